//! Loads on real `tidegate dev` processes.

mod burst;
mod compare;
mod dev;
mod idle;
mod pressure;
mod verify;
