//! Loads on real `tidegate dev` processes.

mod compare;
mod dev;
mod idle;
mod verify;
