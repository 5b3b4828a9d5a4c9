//! The router link over the network: a gateway in another process uses a router exactly as one in its own.
//!
//! Owns both ends of the internal Deliver service ([`server()`] over any [`RouterLink`], and [`Remote`], which is one),
//! what they say first (versions, the shared key), and the discovery of routers by name. Knows nothing of tenures
//! beyond passing their frames on in order, and retries nothing: whoever calls decides what a failure means.
//!
//! Backpressure goes the whole way. The server takes frames from the link's queue only as fast as the HTTP/2 stream
//! takes them, and the client reads only while its own queue has room, so that a node that stopped reading shows in
//! the *router's* queue, where its tenures fall behind, and memory does not grow anywhere. Both sides ping each other
//! and give a silent peer up within [`PING_INTERVAL`] and [`PING_TIMEOUT`].
//!
//! [`RouterLink`]: tidegate_link::RouterLink

mod client;
mod convert;
mod discover;
mod hello;
mod metrics;
mod server;

use std::time::Duration;

pub use client::{Dialer, Remote};
pub use discover::discover;
pub use hello::{VERSIONS, Versions};
pub use metrics::Metrics;
pub use server::{Server, server};
pub use tidegate_proto::key::{Key, KeyError};

/// Pause between two HTTP/2 pings, also while nothing else is said.
pub const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Time in which a ping is answered, or the connection is given up.
pub const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// Time in which a router's socket answers.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time in which any call is answered, a message of a client included.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that one stream may have on the way: what a stopped node costs besides the router's own queue. Set and not
/// adaptive, so that it is a bound.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes that a connection may have on the way: one stream that is not read leaves room for the others.
const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES;
/// Frames of one message at most; what is ready leaves at once.
const FRAMES_AT_ONCE: usize = 128;
/// Frames of a node that may wait for the stream.
const FRAMES_LIMIT: usize = 1024;
