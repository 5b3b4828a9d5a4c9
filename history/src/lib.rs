//! The history of each partition: an interval [floor, H) of rows by channel, in the embedded store.
//!
//! H is written in the same batch as the rows, so a crash never leaves a hole below H. What was evicted is remembered
//! per channel, so an answer is complete or says that it is not.
