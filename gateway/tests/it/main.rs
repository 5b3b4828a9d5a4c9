//! A gateway and a real router, in one test process.

mod control;
mod h2;
mod h2_websocket;
mod harness;
mod network;
mod overload;
mod reach;
mod tls;
mod tls_harness;
