//! Clients: what each follows, where it stands, and what it was given and told.

use std::collections::BTreeSet;

use tidegate_tenure::WantId;
use tidegate_vocab::{Channel, Cursor, LogEpoch};

use crate::world::NodeSide;

/// One channel of one client, across its connections.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) p: usize,
    pub(crate) channel: Channel,
    /// The log in which everything below counts; `None` before anything came.
    pub(crate) epoch: Option<LogEpoch>,
    /// From here on it is owed every event.
    pub(crate) start: Option<u64>,
    pub(crate) got: BTreeSet<u64>,
    /// What it was told is lost.
    pub(crate) lost: Vec<(u64, u64)>,
    /// Everything it is owed below this has been checked.
    pub(crate) verified: u64,
}

impl Follow {
    pub(crate) fn new(p: usize, channel: Channel) -> Self {
        Self { p, channel, epoch: None, start: None, got: BTreeSet::new(), lost: Vec::new(), verified: 0 }
    }

    /// From now on it counts in this log; what was in another is behind it.
    pub(crate) fn count_in(&mut self, epoch: LogEpoch) {
        if self.epoch != Some(epoch) {
            *self = Self { epoch: Some(epoch), ..Self::new(self.p, self.channel.clone()) };
        }
    }
}

/// One channel of one connection.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) want: WantId,
    /// HistoryEnd has come.
    pub(crate) established: bool,
    /// Its History pauses: it has no Want until its client has read what it was given.
    pub(crate) paused: bool,
    /// The first offset not yet received, and the log in which it counts; `None` while nothing says it.
    pub(crate) pos: Option<(LogEpoch, u64)>,
    /// The last offset received.
    pub(crate) last: Option<u64>,
    /// What it asked for was not in the log yet.
    pub(crate) asked_above_log: bool,
}

impl Sub {
    /// Rule 13: an established channel stands at its shard's next, unless it stands above it.
    pub(crate) fn position(&self, side: &NodeSide) -> Option<(LogEpoch, u64)> {
        if !self.established {
            return self.pos;
        }
        let position = side.shard_next.max(self.pos.map_or(0, |(_, pos)| pos));
        side.shard_epoch.filter(|_| position > 0).map(|epoch| (epoch, position))
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
    /// What its last connection left it with.
    pub(crate) cursor: Option<Cursor>,
    pub(crate) conn: Option<Conn>,
}
