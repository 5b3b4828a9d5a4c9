//! The seam between a gateway and a router, the same whether they share a process or a network.
//!
//! Owns: the ordered Deliver stream with its byte cap, the Reach stream for what is addressed to users now, and the call that
//! carries a client's message to the log.
//! Does not know how either side works. Pushing never waits: a full stream makes its tenures fall behind, and room
//! wakes them again.

mod queue;
mod reach;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_tenure::ToRouter;
use tidegate_vocab::{
    Channel, ConnectionId, Event, Incarnation, LogEpoch, Offset, PartitionId, Payload, Position, Problem,
    Revocation, UserId, partition_number,
};
use tokio::sync::mpsc;

pub use queue::{DeliverReceiver, DeliverSender, deliver_queue};
pub use reach::{
    Held, NoRoom, NodeAnswer, NodeAsk, NodeHello, NodeSays, NodeStatus, NodeWord, OccupantsPage,
    ReachReceiver, ReachSender, ReachStream, Reached, RouterSays, reach_queue,
};

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

impl UpstreamMessage {
    /// The record's key: its user, or its connection when it is anonymous, so that each of them has one partition and
    /// one order.
    #[must_use]
    pub fn key(&self) -> String {
        match &self.user {
            Some(user) => user.to_string(),
            None => self.connection.to_string(),
        }
    }

    /// The number of its partition among so many.
    #[must_use]
    pub fn partition(&self, count: u32) -> u32 {
        partition_number(self.key().as_bytes(), count)
    }
}

/// What the log's order says of a record that a publisher wants to hear about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is the first of its key: it is delivered.
    Fresh,
    /// The event had been published before, here.
    DuplicateOf(Offset),
    /// Its key was used with another event.
    Conflict,
    /// The record cannot be read back.
    Unreadable,
}

/// What became of an ephemeral event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routed {
    /// Sent to so many nodes.
    Nodes(u32),
    /// The router does not serve the partition now: sent to nobody, and never tried again (TENURES, rule 15).
    NotOwner,
}

/// From where a node has read the control topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControlAsk {
    /// The epoch in which `next` counts; 0 when it has read nothing.
    pub epoch: LogEpoch,
    /// The first offset not yet read.
    pub next: Offset,
}

/// What a router can say of the control topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlStanding {
    /// There is more: ask again from where the answer ends.
    More,
    /// It has not read the topic from its start yet, and vouches for nothing.
    Loading,
    /// It has read everything up to a high watermark that it asked for so many milliseconds ago.
    Fresh {
        /// How many.
        age_ms: u64,
    },
    /// It has read the topic, and reaches no broker: nobody can revoke anything through it.
    Blind,
}

/// What stands on the control topic, from where a node has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlAnswer {
    /// The epoch of the topic. If it is not the one that was asked in, the records are from the start.
    pub epoch: LogEpoch,
    /// The first offset that the topic still has: what stood below has expired.
    pub start: Offset,
    /// Records in order, at most [`CONTROL_RECORDS_AT_ONCE`](tidegate_vocab::limits::CONTROL_RECORDS_AT_ONCE).
    pub records: Vec<(Offset, Revocation)>,
    /// The first offset behind them.
    pub next: Offset,
    /// What the router can say of it.
    pub standing: ControlStanding,
}

/// Routers that can be attached to, by address, as discovery sees them now. Whoever is gone from it is no longer dialled;
/// what is open stays open until it ends.
pub type Routers = tokio::sync::watch::Receiver<BTreeMap<String, Arc<dyn RouterLink>>>;

/// What a gateway asks of a router, and routers of each other.
pub trait RouterLink: Send + Sync + 'static {
    /// Whether the router is in this process: it is there as long as the process, so nobody waits for it to come back.
    fn is_local(&self) -> bool {
        false
    }

    /// Attaches this node incarnation; an older stream of the same incarnation is closed.
    fn attach(&self, node: Incarnation) -> BoxFuture<'_, Result<DeliverStream, Problem>>;

    /// Appends a client's message to the upstream log; completes once the log has it. Messages take their order from
    /// the calls, not from when the futures are polled. `draining` means that this router is going or gone and another
    /// may be given the message, at least once (TENURES, rule 16).
    fn upstream(&self, message: UpstreamMessage) -> BoxFuture<'static, Result<Position, Problem>>;

    /// The verdict of the record at this offset, once the owner has consumed it. A router that does not serve the
    /// partition answers with an error; the verdict is a pure function of the log, so any owner's answer is right.
    fn resolve(&self, partition: PartitionId, offset: Offset)
    -> BoxFuture<'static, Result<Settled, Problem>>;

    /// Sends an event that skips the log to the nodes that want its channel, if this router serves its partition.
    fn ephemeral(&self, event: Arc<Event>) -> BoxFuture<'static, Result<Routed, Problem>>;

    /// What stands on the control topic from where a node has read it, and how fresh the router's word on it is. A call
    /// of its own and not frames of the Deliver stream: a node that holds its deliveries for want of a fresh word does
    /// not read that stream, and the word must reach it all the same.
    fn control(&self, ask: ControlAsk) -> BoxFuture<'static, Result<ControlAnswer, Problem>>;

    /// Opens the stream on which this node is asked for its users; an older one of the same incarnation is closed. A call of
    /// its own for the reason that `control` is one.
    fn reach(&self, node: NodeHello) -> BoxFuture<'_, Result<ReachStream, Problem>>;
}
