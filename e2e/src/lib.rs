//! The harness of the end-to-end tests: the real binary in a process of its own, and clients that see every byte.
//!
//! Owns no knowledge of how the server works: it starts [`Server`], or a [`Cluster`] around a
//! [`Kafka`] of its own, talks HTTP over plain sockets ([`http`]), follows
//! channels over each transport through one interface ([`Follower`]) and keeps what came ([`Record`]). Whatever goes
//! wrong panics with what was waited for; a server that is dropped during a panic prints what it logged.
//!
//! Waits are deadlines on conditions ([`eventually`]); nothing here waits for a fixed time and hopes.

mod client;
mod cluster;
mod eventually;
mod follow;
mod follower;
pub mod http;
mod kafka;
mod members;
mod metric;
mod node;
mod object;
mod process;
mod publisher;
mod record;
mod server;
mod token;
pub mod vectors;

pub use client::{Goal, Tour};
pub use cluster::{Cluster, Shape};
pub use eventually::{PATIENCE, QUIET, eventually};
pub use follow::{Follow, Transport, percent_encoded};
pub use follower::{Cut, Follower, Heard};
pub use kafka::Kafka;
pub use members::Members;
pub use node::Node;
pub use object::{Event, Object};
pub use publisher::{Acked, Publisher};
pub use record::{Record, Seen};
pub use server::{Server, Setup};
pub use token::{SECRET, now_s, token};
