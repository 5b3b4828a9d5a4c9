//! The gateway's side of one partition: which owner it listens to, what it wants, and how far it has been pushed.
//!
//! All Wants and Unwants of the partition come from here, numbered. A subscription is **pending** from
//! [`Node::subscribe`] until its HistoryEnd, then **established** until [`Node::release`].

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_vocab::{Channel, Event, LogEpoch, Offset, PartitionId, Term, limits};

use crate::frame::{Outcome, StreamId, ToNode, ToRouter, WantFrom, WantId};

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

/// A channel that somebody here wants, or wanted until a moment ago.
#[derive(Debug, Default)]
struct Hold {
    subscribers: u32,
    pending: u32,
    /// The least position at which one of its subscriptions was established; `None` while none was.
    established_at: Option<Offset>,
    /// The current session's router has been told of it.
    told: bool,
    /// When to unwant it, in milliseconds, once nobody wants it any more.
    linger_until_ms: Option<u64>,
}

#[derive(Debug)]
struct PendingWant {
    channel: Channel,
    /// From where the rest is to be asked for.
    from: WantFrom,
    /// It came without a cursor, so it is `fresh` also when it goes on from the position it reached.
    is_fresh: bool,
}

impl PendingWant {
    fn outcome(&self, heard: Outcome) -> Outcome {
        if self.is_fresh && heard == Outcome::Recovered { Outcome::Fresh } else { heard }
    }
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
    wants: BTreeMap<WantId, PendingWant>,
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
            wants: BTreeMap::new(),
            number: 0,
            told_count: 0,
            told_xor: 0,
            acked: None,
            fresh: None,
        }
    }

    /// The epoch of the partition's topic, once an owner named it.
    #[must_use]
    pub fn epoch(&self) -> Option<LogEpoch> {
        self.epoch
    }

    /// True when something here wants something of the partition.
    #[must_use]
    pub fn has_interest(&self) -> bool {
        self.holds.values().any(|hold| hold.subscribers + hold.pending > 0)
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

    /// A subscription wants a channel of this partition.
    pub fn subscribe(&mut self, want: WantId, channel: Channel, from: WantFrom, out: &mut Vec<NodeOut>) {
        let hold = self.holds.entry(channel.clone()).or_default();
        hold.pending += 1;
        hold.linger_until_ms = None;
        let is_fresh = !matches!(from, WantFrom::Next { .. });
        let before = self.wants.insert(want, PendingWant { channel, from, is_fresh });
        debug_assert!(before.is_none(), "a want id is used once");
        if self.owner.is_some() {
            self.open_session(out);
            self.send_want(want, out);
        }
    }

    /// A pending subscription is given up. Ignored when its HistoryEnd has come already: then release the channel.
    pub fn cancel(&mut self, want: WantId, now_ms: u64) -> bool {
        let Some(pending) = self.wants.remove(&want) else { return false };
        if let Some(hold) = self.holds.get_mut(&pending.channel) {
            hold.pending -= 1;
        }
        self.linger(&pending.channel, now_ms);
        true
    }

    /// An established subscription has gone.
    pub fn release(&mut self, channel: &Channel, now_ms: u64) {
        let Some(hold) = self.holds.get_mut(channel) else { return };
        debug_assert!(hold.subscribers > 0, "interest is counted");
        hold.subscribers = hold.subscribers.saturating_sub(1);
        self.linger(channel, now_ms);
    }

    fn linger(&mut self, channel: &Channel, now_ms: u64) {
        if let Some(hold) = self.holds.get_mut(channel)
            && hold.subscribers + hold.pending == 0
        {
            hold.linger_until_ms = Some(now_ms + limits::UNWANT_LINGER_MS);
        }
    }

    /// Unwants what has lingered long enough, and acknowledges what was pushed since the last time.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<NodeOut>) {
        let due = |hold: &Hold| hold.linger_until_ms.is_some_and(|until| until <= now_ms);
        let ended: Vec<Channel> =
            self.holds.iter().filter(|(_, hold)| due(hold)).map(|(channel, _)| channel.clone()).collect();
        for channel in ended {
            let told = self.holds.remove(&channel).is_some_and(|hold| hold.told);
            if let (Some(owner), true, true) = (self.owner, self.in_session, told) {
                self.number += 1;
                self.told_count -= 1;
                self.told_xor ^= channel.hash64();
                let (partition, n, number) = (self.partition, self.n, self.number);
                out.push(NodeOut::Send(
                    owner.stream,
                    ToRouter::Unwant { partition, term: owner.term, n, number, channel },
                ));
            }
        }
        self.follow_another_log(out);
        self.ack(out);
    }

    /// Epochs have no order: when the log that was named last turns out to be the one that ended, the other counts.
    fn follow_another_log(&mut self, out: &mut Vec<NodeOut>) {
        let mut others = self.claims.iter().filter(|(_, (_, epoch))| Some(*epoch) != self.epoch);
        if let (None, Some((&stream, &(term, epoch)))) = (self.owner, others.next_back()) {
            self.owned(stream, term, epoch, out);
        }
    }

    fn ack(&mut self, out: &mut Vec<NodeOut>) {
        let Some(owner) = self.owner.filter(|_| self.in_session) else { return };
        if self.acked == Some((self.next, self.number)) {
            return;
        }
        self.acked = Some((self.next, self.number));
        out.push(NodeOut::Send(
            owner.stream,
            ToRouter::Ack {
                partition: self.partition,
                term: owner.term,
                n: self.n,
                next: self.next,
                number: self.number,
                held: self.told_count,
                held_xor: self.told_xor,
            },
        ));
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
                out.push(NodeOut::Lost { channel, upto });
            }
            _ => {}
        }
    }

    fn heeds(&self, stream: StreamId, term: Term, n: u64) -> bool {
        self.in_session && n == self.n && self.owner == Some(OwnerRef { stream, term })
    }

    /// The higher term wins; equal terms mean the newer stream (rule 4).
    fn owned(&mut self, stream: StreamId, term: Term, epoch: LogEpoch, out: &mut Vec<NodeOut>) {
        let epoch_changed = self.epoch.is_some_and(|known| known != epoch);
        if !epoch_changed {
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
            for hold in self.holds.values_mut() {
                hold.established_at = hold.established_at.map(|_| Offset(0));
            }
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

    /// Sends the Resume that opens a session, unless one is open: established channels only (rule 8), from the least
    /// position of an established subscription (rule 5).
    fn open_session(&mut self, out: &mut Vec<NodeOut>) {
        let Some(owner) = self.owner.filter(|_| !self.in_session) else { return };
        self.n += 1;
        self.in_session = true;
        (self.number, self.told_count, self.told_xor, self.acked) = (0, 0, 0, None);
        let mut from: Option<Offset> = None;
        let mut channels = Vec::new();
        for (channel, hold) in &mut self.holds {
            hold.told = hold.established_at.is_some();
            if let Some(at) = hold.established_at {
                let position = at.max(self.next);
                from = Some(from.map_or(position, |least| least.min(position)));
                self.told_count += 1;
                self.told_xor ^= channel.hash64();
                channels.push(channel.clone());
            }
        }
        let from = from.filter(|offset| *offset > Offset(0));
        out.push(NodeOut::Send(
            owner.stream,
            ToRouter::Resume { partition: self.partition, term: owner.term, n: self.n, from, channels },
        ));
    }

    fn send_want(&mut self, want: WantId, out: &mut Vec<NodeOut>) {
        let (Some(owner), Some(pending)) = (self.owner, self.wants.get(&want)) else { return };
        self.number += 1;
        if let Some(hold) = self.holds.get_mut(&pending.channel)
            && !hold.told
        {
            hold.told = true;
            self.told_count += 1;
            self.told_xor ^= pending.channel.hash64();
        }
        out.push(NodeOut::Send(
            owner.stream,
            ToRouter::Want {
                partition: self.partition,
                term: owner.term,
                n: self.n,
                number: self.number,
                want,
                channel: pending.channel.clone(),
                from: pending.from,
            },
        ));
    }

    /// A Want keeps the position it reached, so that a new session asks on from there.
    fn history(&mut self, want: WantId, outcome: Outcome, rows: Vec<Arc<Event>>, out: &mut Vec<NodeOut>) {
        let Some(pending) = self.wants.get_mut(&want) else { return };
        let (Some(epoch), Some(last)) = (self.epoch, rows.last().and_then(|row| row.offset)) else { return };
        pending.from = WantFrom::Next { epoch, offset: last.next() };
        let outcome = pending.outcome(outcome);
        out.push(NodeOut::History { want, outcome, rows });
    }

    fn history_end(&mut self, want: WantId, outcome: Outcome, upto: Offset, out: &mut Vec<NodeOut>) {
        let Some(epoch) = self.epoch else { return };
        let Some(pending) = self.wants.remove(&want) else { return };
        if let Some(hold) = self.holds.get_mut(&pending.channel) {
            hold.pending -= 1;
            hold.subscribers += 1;
            hold.established_at = Some(hold.established_at.map_or(upto, |at| at.min(upto)));
        }
        let outcome = pending.outcome(outcome);
        out.push(NodeOut::Established { want, outcome, epoch, upto });
    }
}
