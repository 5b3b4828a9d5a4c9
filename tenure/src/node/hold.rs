//! What the node remembers of a channel that is wanted here, and of a Want that is not answered yet.

use tidegate_vocab::{Channel, Offset};

use crate::frame::{Outcome, WantFrom};

/// A channel that somebody here wants, or wanted until a moment ago. A node has one per channel: it is kept small.
#[derive(Debug, Default)]
pub(super) struct Hold {
    established_at: Place,
    covered_from: Place,
    pub(super) subscribers: u32,
    /// Twice the pending subscriptions, and one more once the current session's router has been told of the channel.
    pending_and_told: u32,
}

const _: () = assert!(size_of::<Hold>() == 24);

const TOLD: u32 = 1;
const ONE_PENDING: u32 = 2;

/// An offset or none, in eight bytes: no log has [`u64::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(u64);

impl Default for Place {
    fn default() -> Self {
        Self::from(None)
    }
}

impl From<Option<Offset>> for Place {
    fn from(offset: Option<Offset>) -> Self {
        Self(offset.map_or(u64::MAX, |offset| offset.0))
    }
}

impl From<Place> for Option<Offset> {
    fn from(place: Place) -> Self {
        (place.0 != u64::MAX).then_some(Offset(place.0))
    }
}

impl Hold {
    /// The least position at which one of its subscriptions was established; `None` while none was.
    pub(super) fn established_at(&self) -> Option<Offset> {
        self.established_at.into()
    }

    /// Where the hold began without a break since (rule 9): every row of the channel from here to next[P] was pushed.
    /// `None` while that is not known.
    pub(super) fn covered_from(&self) -> Option<Offset> {
        self.covered_from.into()
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.subscribers > 0 || self.pending_and_told >= ONE_PENDING
    }

    /// One more subscription waits for its answer.
    pub(super) fn begin(&mut self) {
        self.pending_and_told += ONE_PENDING;
    }

    /// One that waited no longer does.
    pub(super) fn give_up(&mut self) {
        debug_assert!(self.pending_and_told >= ONE_PENDING, "what is given up was pending");
        self.pending_and_told -= ONE_PENDING;
    }

    /// Whether the current session's router has been told of it.
    pub(super) fn is_told(&self) -> bool {
        self.pending_and_told & TOLD != 0
    }

    pub(super) fn set_told(&mut self, is_told: bool) {
        self.pending_and_told = self.pending_and_told & !TOLD | u32::from(is_told);
    }

    /// One of its Wants was answered, live from `upto` on: the owner sends every row from there.
    pub(super) fn established(&mut self, upto: Offset) {
        self.give_up();
        self.subscribers += 1;
        self.established_at = Some(self.established_at().map_or(upto, |at| at.min(upto))).into();
        self.covered_from = Some(self.covered_from().map_or(upto, |at| at.min(upto))).into();
    }

    /// Rows below `upto` will not come: an unbroken hold begins anew there.
    pub(super) fn broken_below(&mut self, upto: Offset) {
        self.covered_from = self.covered_from().map(|at| at.max(upto)).into();
    }

    /// The log is another one: live subscriptions go on from now, wherever that is.
    pub(super) fn log_changed(&mut self) {
        self.established_at = self.established_at().map(|_| Offset(0)).into();
        self.covered_from = None.into();
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
