//! The seam between a gateway and a router, the same whether they share a process or a network.
//!
//! Owns: the ordered Deliver stream with its byte cap, and the call that carries a client's message to the log.
//! Does not know how either side works. Pushing never waits: a full stream makes its tenures fall behind, and room
//! wakes them again.

mod queue;

use std::pin::Pin;

use bytes::Bytes;
use tidegate_tenure::ToRouter;
use tidegate_vocab::{Channel, ConnectionId, Incarnation, Payload, Position, Problem, UserId};
use tokio::sync::mpsc;

pub use queue::{DeliverReceiver, DeliverSender, deliver_queue};

/// A future that the trait can return behind a pointer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The node's side of one Deliver stream. Dropping it ends the stream.
#[derive(Debug)]
pub struct DeliverStream {
    /// Frames to the router, in order. Bounded: the node waits when the router does not read.
    pub to_router: mpsc::Sender<ToRouter>,
    /// Frames from the router, in order. Ends when the router ends the stream.
    pub from_router: DeliverReceiver,
}

/// One thing that one client said.
#[derive(Debug, Clone)]
pub struct UpstreamMessage {
    /// The connection that said it.
    pub connection: ConnectionId,
    /// The connection's user; `None` when it is anonymous.
    pub user: Option<UserId>,
    /// The channel it is about.
    pub channel: Channel,
    /// What it said.
    pub payload: Payload,
    /// Its number among this connection's messages, from 1: a backend dedupes by (connection, seq).
    pub seq: u64,
    /// W3C trace context, if the client sent one.
    pub trace_parent: Option<Bytes>,
}

/// What a gateway asks of a router.
pub trait RouterLink: Send + Sync + 'static {
    /// Attaches this node incarnation; an older stream of the same incarnation is closed.
    fn attach(&self, node: Incarnation) -> BoxFuture<'_, Result<DeliverStream, Problem>>;

    /// Appends a client's message to the upstream log; completes once the log has it.
    fn upstream(&self, message: UpstreamMessage) -> BoxFuture<'static, Result<Position, Problem>>;
}
