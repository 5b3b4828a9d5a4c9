//! The history of each partition as an interval in an embedded store.
