//! The router over the embedded log in a temporary directory, with a node of the real protocol attached in-process.

mod api;
mod backward;
mod control;
mod delivery;
mod faults;
mod faulty_log;
mod harness;
mod http;
mod moves;
mod presence;
mod publish;
mod remote;
mod upstream;
