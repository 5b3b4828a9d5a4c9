//! The gateway's side of one partition: which owner it listens to, what it wants, and how far it has been pushed.
//!
//! All Wants and Unwants of the partition come from here, numbered. A subscription is **pending** from
//! [`Node::subscribe`] until its HistoryEnd, then **established** until [`Node::release`]. Where the node has what a
//! subscription lacks, it answers the Want itself ([`Node::subscribe`], rule 9).

mod hold;
mod recent;
mod session;
mod wants;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_vocab::{Channel, Event, LogEpoch, Offset, PartitionId, Term, limits};

use crate::frame::{Outcome, StreamId, ToNode, ToRouter, WantId};
use hold::{Hold, PendingWant};
use recent::Recent;

/// What the node does with what it heard: frames to the router, and deliveries to its shards, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeOut {
    /// This frame goes to the router on this stream.
    Send(StreamId, ToRouter),
    /// A live event, for every shard: to established subscriptions of its channel.
    Event(Arc<Event>),
    /// For every shard: all established subscriptions of the partition have everything before this.
    Mark(Offset),
    /// Past events for one Want.
    History {
        /// The Want.
        want: WantId,
        /// What it turned out to be.
        outcome: Outcome,
        /// The events.
        rows: Vec<Arc<Event>>,
    },
    /// The Want is answered; its subscription is established and live from `upto` on.
    Established {
        /// The Want.
        want: WantId,
        /// What it turned out to be.
        outcome: Outcome,
        /// The epoch in which `upto` counts.
        epoch: LogEpoch,
        /// The first offset that has not been delivered.
        upto: Offset,
    },
    /// For every shard: events of the channel (`None`: of every channel of the partition) below `upto` are gone.
    Lost {
        /// The channel.
        channel: Option<Channel>,
        /// The first offset that is not lost.
        upto: Offset,
    },
    /// For every shard: the log is another one; established subscriptions go on from now and are told `lost: epoch`.
    EpochChanged(LogEpoch),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OwnerRef {
    stream: StreamId,
    term: Term,
}

/// See the module.
#[derive(Debug)]
pub struct Node {
    partition: PartitionId,
    owner: Option<OwnerRef>,
    /// The highest term heard of: only it is listened to, and it never falls.
    highest: Term,
    epoch: Option<LogEpoch>,
    /// Who else says to own the partition: of use when their log turns out to be the right one.
    claims: BTreeMap<StreamId, (Term, LogEpoch)>,
    /// The last Resume's number; never reused.
    n: u64,
    /// A Resume under `n` has been sent to `owner`, so that data frames are heeded.
    in_session: bool,
    /// next[P]: every established subscription was pushed everything before this. Moved by Event and Mark only.
    next: Offset,
    /// Ordered, so that the same calls make the same frames.
    holds: BTreeMap<Channel, Hold>,
    /// The holds that nobody wants any more, by when they end: a tick looks at those that are due, and at no others.
    lingering: BTreeSet<(u64, Channel)>,
    wants: BTreeMap<WantId, PendingWant>,
    /// What was pushed lately.
    recent: Recent,
    /// The last Want's or Unwant's number in this session.
    number: u64,
    told_count: u64,
    told_xor: u64,
    acked: Option<(Offset, u64)>,
    /// The age of the router's read as its last Mark told it, and when that came.
    fresh: Option<(u64, u64)>,
}

impl Node {
    /// A node that wants nothing yet and knows no owner.
    #[must_use]
    pub fn new(partition: PartitionId) -> Self {
        Self {
            partition,
            owner: None,
            highest: Term::NONE,
            epoch: None,
            claims: BTreeMap::new(),
            n: 0,
            in_session: false,
            next: Offset(0),
            holds: BTreeMap::new(),
            lingering: BTreeSet::new(),
            wants: BTreeMap::new(),
            recent: Recent::new(limits::NODE_RING_BYTES_LIMIT),
            number: 0,
            told_count: 0,
            told_xor: 0,
            acked: None,
            fresh: None,
        }
    }

    /// Keeps another amount of recent events than [`limits::NODE_RING_BYTES_LIMIT`]: tests reach the end of a small one.
    #[must_use]
    pub fn with_ring_bytes_limit(mut self, ring_bytes_limit: usize) -> Self {
        self.recent = Recent::new(ring_bytes_limit);
        self
    }

    /// The epoch of the partition's topic, once an owner named it.
    #[must_use]
    pub fn epoch(&self) -> Option<LogEpoch> {
        self.epoch
    }

    /// True when something here wants something of the partition.
    #[must_use]
    pub fn has_interest(&self) -> bool {
        self.holds.values().any(Hold::is_wanted)
    }

    /// True while an owner serves this node. Without one, live subscriptions stay and new ones are pending.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.owner.is_some()
    }

    /// How old the router's read of the log is, in milliseconds, as far as its Marks tell.
    #[must_use]
    pub fn read_age_ms(&self, now_ms: u64) -> Option<u64> {
        self.fresh.map(|(age_ms, heard_ms)| age_ms + now_ms.saturating_sub(heard_ms))
    }

    /// Unwants what has lingered long enough, and acknowledges what was pushed since the last time.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<NodeOut>) {
        self.unwant_lingering(now_ms, out);
        self.follow_a_claim(out);
        self.ack(out);
    }

    /// Epochs have no order: when the log that was named last turns out to be the one that ended, another counts. And
    /// an owner that was left for it may be the one to come back to.
    fn follow_a_claim(&mut self, out: &mut Vec<NodeOut>) {
        if self.owner.is_some() {
            return;
        }
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            self.claims.iter().partition(|(_, (_, epoch))| Some(*epoch) == self.epoch);
        let serves = |(_, (term, _)): &(&StreamId, &(Term, LogEpoch))| *term >= self.highest;
        let here = here.into_iter().filter(serves).max_by_key(|(stream, (term, _))| (*term, **stream));
        if let Some((&stream, &(term, epoch))) =
            here.or(elsewhere.into_iter().max_by_key(|(stream, (term, _))| (*term, **stream)))
        {
            self.owned(stream, term, epoch, out);
        }
    }

    /// A stream ended: if its router was the owner there is none until another `Owned`.
    pub fn stream_down(&mut self, stream: StreamId) {
        self.claims.remove(&stream);
        if self.owner.is_some_and(|owner| owner.stream == stream) {
            self.owner = None;
            self.in_session = false;
        }
    }

    /// A frame from a router. What is not of the current owner, term and Resume is dropped (rule 4).
    pub fn on_frame(&mut self, stream: StreamId, frame: ToNode, now_ms: u64, out: &mut Vec<NodeOut>) {
        match frame {
            ToNode::Owned { term, epoch, .. } => {
                self.claims.insert(stream, (term, epoch));
                self.owned(stream, term, epoch, out);
            }
            ToNode::Ended { term, .. } if self.claims.get(&stream).is_some_and(|claim| claim.0 == term) => {
                self.stream_down(stream);
            }
            ToNode::Event { term, n, event, .. } if self.heeds(stream, term, n) => {
                if let Some(offset) = event.offset {
                    debug_assert!(offset >= self.next, "an owner sends each row once");
                    self.next = self.next.max(offset.next());
                }
                self.recent.remember(&event);
                out.push(NodeOut::Event(event));
            }
            ToNode::Mark { term, n, next, age_ms, .. } if self.heeds(stream, term, n) => {
                self.fresh = Some((age_ms, now_ms));
                if next > self.next {
                    self.next = next;
                    out.push(NodeOut::Mark(next));
                }
            }
            ToNode::History { term, n, want, outcome, rows, .. } if self.heeds(stream, term, n) => {
                self.history(want, outcome, rows, out);
            }
            ToNode::HistoryEnd { term, n, want, outcome, upto, .. } if self.heeds(stream, term, n) => {
                self.history_end(want, outcome, upto, out);
            }
            ToNode::Lost { term, n, channel, upto, .. } if self.heeds(stream, term, n) => {
                self.lost(channel.as_ref(), upto);
                out.push(NodeOut::Lost { channel, upto });
            }
            _ => {}
        }
    }

    fn heeds(&self, stream: StreamId, term: Term, n: u64) -> bool {
        self.in_session && n == self.n && self.owner == Some(OwnerRef { stream, term })
    }

    fn lost(&mut self, channel: Option<&Channel>, upto: Offset) {
        match channel {
            Some(channel) => {
                if let Some(hold) = self.holds.get_mut(channel) {
                    hold.broken_below(upto);
                }
            }
            None => self.holds.values_mut().for_each(|hold| hold.broken_below(upto)),
        }
    }

    /// The higher term wins; equal terms mean the newer stream (rule 4).
    fn owned(&mut self, stream: StreamId, term: Term, epoch: LogEpoch, out: &mut Vec<NodeOut>) {
        let epoch_changed = self.epoch.is_some_and(|known| known != epoch);
        if epoch_changed {
            let is_overtaken = |(other, of): &(Term, LogEpoch)| *of == epoch && *other > term;
            if self.claims.values().any(is_overtaken) {
                return;
            }
        } else {
            let older_stream = self.owner.is_some_and(|owner| owner.term == term && owner.stream > stream);
            if term < self.highest || older_stream {
                return;
            }
        }
        self.highest = term;
        self.owner = Some(OwnerRef { stream, term });
        self.in_session = false;
        self.epoch = Some(epoch);
        // Until something came in the new log there is no position to resume from: those who go on from now once
        // more are told once more.
        let has_no_position =
            |hold: &Hold| hold.established_at.is_some_and(|at| at.max(self.next) == Offset(0));
        if epoch_changed || self.holds.values().any(has_no_position) {
            self.next = Offset(0);
            self.recent.forget(Offset(0));
            self.holds.values_mut().for_each(Hold::log_changed);
            out.push(NodeOut::EpochChanged(epoch));
        }
        if !self.holds.is_empty() {
            self.open_session(out);
            let unfinished: Vec<WantId> = self.wants.keys().copied().collect();
            for want in unfinished {
                self.send_want(want, out);
            }
        }
    }
}
