//! Clients: what each follows, where it stands, and what it was given and told.

use std::collections::BTreeSet;

use tidegate_tenure::{WantFrom, WantId};
use tidegate_vocab::Channel;

/// One channel of one client, across its connections.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) channel: Channel,
    /// What it asks for while it has no cursor.
    pub(crate) wish: WantFrom,
    /// The position its cursor kept at the last cut.
    pub(crate) cursor: Option<u64>,
    /// From here on it is owed every event.
    pub(crate) start: Option<u64>,
    pub(crate) got: BTreeSet<u64>,
    /// What it was told is lost.
    pub(crate) lost: Vec<(u64, u64)>,
    /// Everything it is owed below this has been checked.
    pub(crate) verified: u64,
}

impl Follow {
    pub(crate) fn new(channel: Channel, wish: WantFrom) -> Self {
        Self { channel, wish, cursor: None, start: None, got: BTreeSet::new(), lost: Vec::new(), verified: 0 }
    }
}

/// One channel of one connection.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) want: WantId,
    /// HistoryEnd has come.
    pub(crate) established: bool,
    /// The first offset not yet received; `None` while a fresh one has received nothing.
    pub(crate) pos: Option<u64>,
    /// The last offset received.
    pub(crate) last: Option<u64>,
    /// What it asked for was not in the log yet.
    pub(crate) asked_above_log: bool,
    /// What it asked for counts in another epoch.
    pub(crate) asked_other_epoch: bool,
}

impl Sub {
    /// Rule 13: an established channel stands at its shard's next, unless it stands above it.
    pub(crate) fn position(&self, shard_next: u64) -> Option<u64> {
        if self.established { self.pos.map(|pos| pos.max(shard_next)) } else { self.pos }
    }
}

/// A connection to one gateway.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) gateway: usize,
    /// One per followed channel, in the same order.
    pub(crate) subs: Vec<Sub>,
}

/// A client that reconnects with its cursor, to any gateway.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) follows: Vec<Follow>,
    pub(crate) conn: Option<Conn>,
}
