//! Loads on real `tidegate dev` processes.

mod dev;
mod idle;
mod verify;
