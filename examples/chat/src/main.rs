//! Chat backend.
fn main() {}
