//! Loads on real `tidegate dev` processes.

mod compare;
mod dev;
mod fleet;
mod idle;
mod million;
mod polls;
mod run;
mod verify;
