//! Loads on real `tidegate dev` processes.

mod burst;
mod compare;
mod dev;
mod fleet;
mod idle;
mod million;
mod polls;
mod pressure;
mod run;
mod verify;
