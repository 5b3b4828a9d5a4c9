//! Opens many client connections and measures what they cost the server.
//!
//! Owns the client's side of a load: connections as raw sockets, so that the load costs little itself, and figures read
//! from the server's `/proc` entry. Load goes to loopback, bounded in count and time.

mod connection;
mod latency;
mod memory;

pub use connection::{Connection, Transport, open_all};
pub use latency::{Latencies, publish_latency};
pub use memory::{Memory, settled_memory};
