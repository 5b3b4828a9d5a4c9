//! What nodes and members say to each other, as values.

use tidegate_vocab::{Incarnation, UserId};

/// The transports over which a user is connected, as a set of bits.
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

/// What a node has of one user: absolute, so that saying it again changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserState {
    /// Open connections; 0 while only a poll lingers.
    pub connections: u32,
    /// Over which transports.
    pub transports: Transports,
    /// Since when, seconds since the Unix epoch by the node's clock. For people, never compared.
    pub since_s: u32,
}

/// A user's state on a node, or that it has none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The user.
    pub user: UserId,
    /// Its state; `None` when it is gone from the node.
    pub state: Option<UserState>,
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

/// Users of a node. An empty batch renews the lease like any other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// Its number: rises by one with each batch of a stream, and over all streams of a node to a member.
    pub seq: u64,
    /// What changed.
    pub updates: Vec<Update>,
    /// True in the batch that completes the snapshot with which the stream began: what it did not mention is gone.
    pub ends_snapshot: bool,
}

/// One node on which a user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: Incarnation,
    /// What the node has of the user.
    pub state: UserState,
}

/// Where a user is; nowhere when there are no places.
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

/// Whether a user is online: connected somewhere, or gone for less than the debounce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// On some node.
    Online,
    /// On none.
    Offline,
}

/// A user came or went. On the compacted topic it is the record of its user's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The user.
    pub user: UserId,
    /// To what it changed.
    pub presence: Presence,
    /// Since when, seconds since the Unix epoch.
    pub since_s: u32,
    /// The member that saw it.
    pub emitter: Incarnation,
    /// Its number among those of the emitter. A repeat has the same.
    pub number: u64,
}
