//! What the node remembers of a channel that is wanted here, and of a Want that is not answered yet.

use tidegate_vocab::{Channel, Offset};

use crate::frame::{Outcome, WantFrom};

/// A channel that somebody here wants, or wanted until a moment ago.
#[derive(Debug, Default)]
pub(super) struct Hold {
    pub(super) subscribers: u32,
    pub(super) pending: u32,
    /// The least position at which one of its subscriptions was established; `None` while none was.
    pub(super) established_at: Option<Offset>,
    /// Where the hold began without a break since (rule 9): every row of the channel from here to next[P] was pushed.
    /// `None` while that is not known.
    pub(super) covered_from: Option<Offset>,
    /// The current session's router has been told of it.
    pub(super) told: bool,
    /// When to unwant it, in milliseconds, once nobody wants it any more.
    pub(super) linger_until_ms: Option<u64>,
}

impl Hold {
    pub(super) fn is_wanted(&self) -> bool {
        self.subscribers + self.pending > 0
    }

    /// One of its Wants was answered, live from `upto` on: the owner sends every row from there.
    pub(super) fn established(&mut self, upto: Offset) {
        self.pending -= 1;
        self.subscribers += 1;
        self.established_at = Some(self.established_at.map_or(upto, |at| at.min(upto)));
        self.covered_from = Some(self.covered_from.map_or(upto, |at| at.min(upto)));
    }

    /// Rows below `upto` will not come: an unbroken hold begins anew there.
    pub(super) fn broken_below(&mut self, upto: Offset) {
        self.covered_from = self.covered_from.map(|at| at.max(upto));
    }

    /// The log is another one: live subscriptions go on from now, wherever that is.
    pub(super) fn log_changed(&mut self) {
        self.established_at = self.established_at.map(|_| Offset(0));
        self.covered_from = None;
    }
}

/// A subscription whose HistoryEnd has not come.
#[derive(Debug)]
pub(super) struct PendingWant {
    pub(super) channel: Channel,
    /// From where the rest is to be asked for.
    pub(super) from: WantFrom,
    /// It came without a cursor, so it is `fresh` also when it goes on from the position it reached.
    pub(super) is_fresh: bool,
}

impl PendingWant {
    pub(super) fn outcome(&self, heard: Outcome) -> Outcome {
        if self.is_fresh && heard == Outcome::Recovered { Outcome::Fresh } else { heard }
    }
}
