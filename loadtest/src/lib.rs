//! Opens many client connections and measures what they cost the server.
//!
//! Owns the client's side of a load: connections as raw sockets, so that the load costs little itself, and figures read
//! from the server's `/proc` entry; and histories of what publishers and subscribers saw while processes were killed, with
//! their judge; and what a cluster adds to the latency of the Kafka below it;
//! and what a delivery costs it beside the least that one can cost; and what a steady flow suffers from storms, from readers that
//! stall and from a rate that rises. Load goes to loopback, bounded in count and time.

pub mod clock;
pub mod compare;
mod connection;
pub mod cpu;
mod files;
pub mod fleet;
pub mod floor;
mod flow;
mod frames;
pub mod gates;
pub mod histogram;
pub mod history;
mod http;
mod http2;
pub mod idle;
pub mod judge;
pub mod latency;
mod mark;
mod median;
mod memory;
pub mod million;
mod page;
pub mod polls;
mod publisher;
mod resident;
pub mod run;
pub mod saturation;
pub mod scenario;
pub mod stalled;
pub mod storm;
mod tls;
pub mod transports;
pub mod verify;
mod websocket;

pub use connection::{Connection, Transport, open_all, open_all_tls};
pub use files::make_room;
pub use http2::{Http2Socket, Http2Stream, open_all_http2};
pub use latency::{Latencies, publish_latency};
pub use memory::{Memory, settled_memory};
pub use resident::{Following, Resident};
pub use tls::Tls;
