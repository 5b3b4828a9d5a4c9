//! The tidegate command: configuration, life cycle and the administration port around the roles.
//!
//! `main` goes to [`cli::run`]; [`App`] is a whole process, which a test starts within its own.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod logging;
mod version;

pub use app::{Addresses, App, BuildError, RunError};
pub use version::{VERSION, Version};
