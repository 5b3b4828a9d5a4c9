//! The words every crate shares: channels, positions, cursors, error kinds, limits.
