//! End-to-end tests of the tidegate binary.
