//! Readings of the rules that lose events or stall, planted between the machines and in the model's own shards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidegate_tenure::{Nonce, Record, StreamId, ToNode, ToRouter, WantFrom, WantId};
use tidegate_vocab::{Channel, Offset, Term};

use crate::checks::{Session, address};
use crate::client::Sub;
use crate::frames;
use crate::log::Rec;
use crate::world::World;

/// One misreading. Most are named in TENURES, with the traces by which the model refuted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A shard gives a History to every subscriber of the channel.
    HistoryToEverySubscriber,
    /// A History is matched by (connection, channel), not by its Want.
    HistoryWithoutWantId,
    /// A shard dedupes by the partition's position.
    DedupeByPartition,
    /// A shard gives a live event to a pending subscription.
    LiveEventToPending,
    /// A Mark moves a pending subscription.
    MarkToPending,
    /// A subscription to a channel that the node holds needs no Want.
    JoinLocally,
    /// A Mark overtakes the events queued before it.
    MarkBeforeQueuedEvents,
    /// A Mark says H instead of S.
    MarkSaysH,
    /// A Mark goes out before the Resume that it answers was processed.
    MarkBeforeResume,
    /// A node heeds any data frame of a lower term.
    HeedLowerTerm,
    /// A node heeds Events and Marks of a lower term.
    HeedLowerTermLive,
    /// A node heeds data frames of an old Resume number in the same term.
    HeedOldNumber,
    /// A node follows the latest `Owned`, also one of a lower term.
    OwnedOfLowerTerm,
    /// A node ignores an `Owned` of a term that it has heard.
    IgnoreEqualTerm,
    /// A Resume says "from now" instead of the least position.
    ResumeFromHead,
    /// A Resume lists the pending channels too, and they count as established.
    ResumeFoldsPending,
    /// After a Resume the unfinished Wants are not sent again.
    WantsNotRepeated,
    /// next[P] rises with a History.
    HistoryMovesNext,
    /// Want and Unwant change places on the way.
    UnwantOvertakesWant,
    /// Frames that tell of loss get lost.
    LostIsDropped,
    /// A router recognises its takeover by its own name.
    TakeoverByName,
    /// A router serves as soon as its takeover is in the log.
    ServesBeforeConsumed,
    /// A router does not stop at a foreign takeover.
    ForeignTakeoverIgnored,
    /// A router that was taken over does not try again.
    NoRetake,
    /// A store forgets what it evicted.
    EvictedForgotten,
    /// A cursor above H is judged by H, not by a high watermark.
    WatermarkIsOwnH,
}

/// The misreading of this run, and what it must remember.
#[derive(Debug)]
pub(crate) struct Planted {
    pub(crate) mutant: Option<Mutant>,
    /// Per router: the nonce it took over with last.
    nonces: BTreeMap<usize, Nonce>,
    /// Per router: where that nonce is in the log.
    landed: BTreeMap<usize, u64>,
    /// Terms that one side knows by another number: (router, or stream and its side's number) -> the real one.
    real_terms: BTreeMap<(usize, Term), Term>,
    heard_terms: BTreeMap<(StreamId, Term), Term>,
    /// Per gateway: the highest term of an `Owned`.
    highest: BTreeMap<usize, Term>,
    /// Per gateway: the position of the partition.
    positions: BTreeMap<usize, u64>,
    wants: BTreeSet<WantId>,
}

impl Planted {
    pub(crate) fn new(mutant: Option<Mutant>) -> Self {
        Self {
            mutant,
            nonces: BTreeMap::new(),
            landed: BTreeMap::new(),
            real_terms: BTreeMap::new(),
            heard_terms: BTreeMap::new(),
            highest: BTreeMap::new(),
            positions: BTreeMap::new(),
            wants: BTreeSet::new(),
        }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// A router sends a takeover to the log.
    pub(crate) fn takes_over(&mut self, r: usize, nonce: Nonce) {
        self.nonces.insert(r, nonce);
        self.landed.remove(&r);
    }

    pub(crate) fn landed(&mut self, r: usize, nonce: Nonce, offset: u64) {
        if self.nonces.get(&r) == Some(&nonce) {
            self.landed.entry(r).or_insert(offset);
        }
    }

    /// What a router makes of a record.
    pub(crate) fn consumed(&mut self, r: usize, rec: &Rec, record: Record, offset: u64) -> Record {
        let Some(nonce) = self.nonces.get(&r).copied() else { return record };
        let foreign = matches!(rec, Rec::Takeover { nonce: other, .. } if *other != nonce);
        match (self.mutant, rec) {
            (Some(Mutant::TakeoverByName), Rec::Takeover { router, .. }) if *router == r => {
                Record::Takeover(nonce)
            }
            (Some(Mutant::ForeignTakeoverIgnored), _) if foreign => Record::Nothing,
            (Some(Mutant::ServesBeforeConsumed), _) => self.serves_early(r, nonce, rec, record, offset),
            _ => record,
        }
    }

    /// The record at H stands in for the takeover that is in the log but not consumed yet.
    fn serves_early(&mut self, r: usize, nonce: Nonce, rec: &Rec, record: Record, offset: u64) -> Record {
        let Some(landed) = self.landed.get(&r).copied() else { return record };
        let real = Term::of_takeover_at(Offset(landed));
        let early = self.real_terms.values().any(|term| *term == real);
        match rec {
            Rec::Noise if offset < landed && !early => {
                self.real_terms.insert((r, Term::of_takeover_at(Offset(offset))), real);
                Record::Takeover(nonce)
            }
            Rec::Takeover { .. } if early && offset <= landed => Record::Nothing,
            _ => record,
        }
    }

    /// A frame on its way into a router.
    pub(crate) fn up(&mut self, r: usize, mut frame: ToRouter) -> ToRouter {
        let term = frames::term_up(&mut frame);
        if let Some(((_, known), _)) =
            self.real_terms.iter().find(|((at, _), real)| *at == r && *real == term)
        {
            *term = *known;
        }
        frame
    }

    /// A frame on its way out of a router.
    pub(crate) fn push_down(&mut self, r: usize, h: u64, down: &mut VecDeque<ToNode>, mut frame: ToNode) {
        let term = frames::term_down(&mut frame);
        if let Some(real) = self.real_terms.get(&(r, *term)) {
            *term = *real;
        }
        let mut at = down.len();
        match (self.mutant, &mut frame) {
            (Some(Mutant::LostIsDropped), ToNode::Lost { .. }) => return,
            (Some(Mutant::MarkSaysH), ToNode::Mark { next, .. }) => *next = Offset(h),
            (Some(Mutant::MarkBeforeQueuedEvents), ToNode::Mark { .. }) => {
                while at > 0 && matches!(down.get(at - 1), Some(ToNode::Event { .. })) {
                    at -= 1;
                }
            }
            _ => {}
        }
        down.insert(at, frame);
    }

    /// A frame on its way into a node: what the node takes it for, and what follows it.
    pub(crate) fn down(
        &mut self,
        g: usize,
        stream: StreamId,
        mut frame: ToNode,
        session: Option<Session>,
    ) -> Vec<(StreamId, ToNode)> {
        if let ToNode::Owned { term, .. } = &frame {
            let highest = self.highest.get(&g).copied().unwrap_or(Term::NONE);
            if self.is(Mutant::IgnoreEqualTerm) && *term == highest {
                return Vec::new();
            }
            let heard =
                if self.is(Mutant::OwnedOfLowerTerm) { Term(highest.0 + 1).max(*term) } else { *term };
            self.highest.insert(g, heard.max(highest));
            self.heard_terms.insert((stream, *term), heard);
        }
        if self.is(Mutant::OwnedOfLowerTerm) {
            let term = frames::term_down(&mut frame);
            *term = self.heard_terms.get(&(stream, *term)).copied().unwrap_or(*term);
        }
        let (Some(session), Some(at)) = (session, address(stream, &frame)) else {
            return vec![(stream, frame)];
        };
        let live = matches!(frame, ToNode::Event { .. } | ToNode::Mark { .. });
        let taken_for_current = match self.mutant {
            Some(Mutant::HeedLowerTerm) => at.term < session.term,
            Some(Mutant::HeedLowerTermLive) => at.term < session.term && live,
            Some(Mutant::HeedOldNumber) => at.term == session.term && at.n < session.n,
            _ => false,
        };
        if taken_for_current {
            frames::readdress(&mut frame, session);
            return vec![(session.stream, frame)];
        }
        match frame {
            ToNode::HistoryEnd { upto, .. } if self.is(Mutant::HistoryMovesNext) && at == session => {
                vec![(stream, frame), (stream, frames::mark(session, upto))]
            }
            frame => vec![(stream, frame)],
        }
    }

    /// A frame on its way out of a node; `down` is what comes back.
    pub(crate) fn push_up(
        &mut self,
        stream: StreamId,
        h: u64,
        up: &mut VecDeque<ToRouter>,
        down: &mut VecDeque<ToNode>,
        mut frame: ToRouter,
    ) {
        if self.is(Mutant::OwnedOfLowerTerm) {
            let term = frames::term_up(&mut frame);
            let known = self.heard_terms.iter().find(|((at, _), heard)| *at == stream && *heard == term);
            *term = known.map_or(*term, |((_, real), _)| *real);
        }
        match (self.mutant, &mut frame) {
            (Some(Mutant::ResumeFromHead), ToRouter::Resume { from, .. }) => *from = None,
            (Some(Mutant::MarkBeforeResume), ToRouter::Resume { term, n, .. }) => {
                down.push_front(frames::mark(Session { stream, term: *term, n: *n }, Offset(h)));
            }
            (Some(Mutant::WantsNotRepeated), ToRouter::Want { want, .. }) if !self.wants.insert(*want) => {
                return;
            }
            (Some(Mutant::UnwantOvertakesWant), ToRouter::Want { .. } | ToRouter::Unwant { .. }) => {
                frames::swap_with_other(up, &mut frame);
            }
            _ => {}
        }
        up.push_back(frame);
    }

    /// Below which a shard gives nothing to anybody.
    pub(crate) fn dedupe_below(&mut self, g: usize, next: u64) -> u64 {
        if !self.is(Mutant::DedupeByPartition) {
            return 0;
        }
        let position = self.positions.entry(g).or_default();
        let below = *position;
        *position = below.max(next);
        below
    }
}

impl World {
    /// A pending subscription is listed in a Resume as if it were established.
    pub(crate) fn plant_folded(&mut self, g: usize, frame: &mut ToRouter) {
        let ToRouter::Resume { channels, .. } = frame else { return };
        if !self.is(Mutant::ResumeFoldsPending) {
            return;
        }
        for channel in self.config.channels.clone() {
            for (c, index) in self.subs_of(g, &channel) {
                let Some(sub) = self.sub(c, index).filter(|sub| sub.pos.is_some()) else { continue };
                sub.established = true;
                if !channels.contains(&channel) {
                    channels.push(channel.clone());
                }
            }
        }
    }

    /// A channel that the node holds already is joined where the node stands.
    pub(crate) fn plant_local_join(&mut self, g: usize, channel: &Channel, from: WantFrom, sub: &mut Sub) {
        let next = self.gateways[g].shard_next;
        let at = match from {
            WantFrom::Next { offset, .. } => offset.0,
            WantFrom::Now => next,
            _ => return,
        };
        if self.is(Mutant::JoinLocally) && at >= next && !self.subs_of(g, channel).is_empty() {
            sub.established = true;
            sub.pos = Some(at);
        }
    }

    pub(crate) fn plant_mark_to_pending(&mut self, g: usize, next: u64) {
        if !self.is(Mutant::MarkToPending) {
            return;
        }
        for client in &mut self.clients {
            let conn = client.conn.as_mut().filter(|conn| conn.gateway == g);
            for sub in conn.into_iter().flat_map(|conn| &mut conn.subs) {
                sub.pos = sub.pos.map(|pos| pos.max(next));
            }
        }
    }
}
