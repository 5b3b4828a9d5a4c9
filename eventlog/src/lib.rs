//! The event log behind one trait; here the embedded log.
