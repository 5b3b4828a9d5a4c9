//! What nodes and members say to each other, as values.
//!
//! A **subject** is what nodes announce: a user, by its own channel `user:<id>`, or another channel, by its name. What a node
//! has of a user are its connections; of a channel, the connections that follow it.

use tidegate_vocab::{Channel, Incarnation};

/// What a subject is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectKind {
    /// A user: `user:<id>`.
    User,
    /// Any other channel.
    Channel,
}

impl SubjectKind {
    /// Of a subject.
    #[must_use]
    pub fn of(subject: &Channel) -> Self {
        if subject.is_user() { Self::User } else { Self::Channel }
    }
}

/// The transports of connections, as a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transports(pub u8);

impl Transports {
    /// A WebSocket.
    pub const WEBSOCKET: Self = Self(1);
    /// Server-Sent Events.
    pub const SSE: Self = Self(2);
    /// HTTP streaming (NDJSON).
    pub const STREAM: Self = Self(4);
    /// Long or short polling.
    pub const POLL: Self = Self(8);

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a node has of one subject: absolute values, so that saying it again changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holding {
    /// Open connections, of the user or that follow the channel; 0 while only a poll lingers.
    pub connections: u32,
    /// Over which transports.
    pub transports: Transports,
    /// Since when, seconds since the Unix epoch by the node's clock. For people, never compared.
    pub since_s: u32,
}

/// What a node has of a subject now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The subject.
    pub subject: Channel,
    /// What the node has of it; `None` when that is nothing any more.
    pub state: Option<Holding>,
}

/// First on a stream: who announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The node's process start.
    pub node: Incarnation,
    /// The newest ring that the node knows.
    pub digest: u64,
    /// Where the node's internal port is, for operators; may be empty.
    pub address: String,
}

/// Subjects of a node. An empty batch renews the lease like any other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// Its number: rises by one with each batch of a stream, and over all streams of a node to a member.
    pub seq: u64,
    /// What changed.
    pub updates: Vec<Update>,
    /// True in the batch that completes the snapshot with which the stream began: what it did not mention is gone.
    pub ends_snapshot: bool,
}

/// One node on which a subject is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: Incarnation,
    /// What the node has of the subject.
    pub state: Holding,
}

/// Where a subject is; nowhere when there are no places.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Location {
    /// The nodes, in no order.
    pub places: Vec<Place>,
}

/// A member counts as current about a node: everything that this ring assigns to it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Current {
    /// The member's process start.
    pub member: Incarnation,
    /// The ring.
    pub digest: u64,
}

/// Whether a subject is online: on some node, or gone for less than the debounce. A channel that is online is *occupied*, and
/// *vacated* when it goes offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// On some node.
    Online,
    /// On none.
    Offline,
}

/// A subject came or went. On the compacted topic it is the record of that key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The subject.
    pub subject: Channel,
    /// To what it changed.
    pub presence: Presence,
    /// Since when, seconds since the Unix epoch.
    pub since_s: u32,
    /// The member that saw it.
    pub emitter: Incarnation,
    /// Its number among those of the emitter. A repeat has the same.
    pub number: u64,
}

impl Transition {
    /// What came or went.
    #[must_use]
    pub fn kind(&self) -> SubjectKind {
        SubjectKind::of(&self.subject)
    }
}
