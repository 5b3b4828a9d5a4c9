//! `loadtest polls`: what a short poll costs that finds nothing new.
//!
//! **Owns** some connections that are kept alive, each of which asks again as soon as it has its answer, as a dashboard that
//! polls does, only quicker: `GET /v1/events` with the tag of its last answer, which is answered 304 while nothing has come.
//! Now and then an event is published, and every connection must find each of them once and in order: an answer that is
//! quick because it looks at nothing would be noticed.

mod client;
mod measure;
mod report;

use std::net::SocketAddr;

use serde::Serialize;

pub use measure::polls;
pub use report::{GATE, Report};

/// What shall be polled, and how.
#[derive(Debug, Clone, Serialize)]
pub struct PollsOptions {
    /// The server's public port.
    pub public: SocketAddr,
    /// Where events are published; none: without events.
    pub apis: Vec<SocketAddr>,
    /// The server's process.
    pub pid: u32,
    /// Connections that poll, each one request at a time.
    pub connections: usize,
    /// Channels that each names.
    pub channels: usize,
    /// That are measured.
    pub seconds: u64,
    /// That are not, before them.
    pub warm_seconds: u64,
    /// Milliseconds between two events.
    pub event_interval_ms: u64,
    /// A fault for tests: the first connection asks with an older tag than it has, so that it gets events again.
    #[serde(skip)]
    pub planted_repeat: bool,
}
