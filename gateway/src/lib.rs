//! The role that holds client connections.
