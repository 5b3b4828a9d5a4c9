//! What happens to frames on their way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidegate_tenure::{StreamId, ToNode, ToRouter, WantFrom, WantId};
use tidegate_vocab::{Channel, LogEpoch, Offset, Term};

use super::{Mutant, Planted};
use crate::checks::{Session, address};
use crate::frames;

/// What one side was told in a session.
#[derive(Debug, Default)]
pub(super) struct Told {
    wants: BTreeMap<WantId, Channel>,
    held: BTreeSet<Channel>,
    /// Channels that a Cancel took away at one side only.
    dropped: BTreeSet<Channel>,
    /// By how much numbers are behind for the Unwants put in.
    shift: u64,
    number: u64,
}

impl Planted {
    /// A frame on its way into a router.
    pub(crate) fn up(
        &mut self,
        r: usize,
        stream: StreamId,
        epoch: LogEpoch,
        mut frame: ToRouter,
    ) -> ToRouter {
        self.plant_in_cancels(stream, &mut frame);
        if let ToRouter::Want { from: WantFrom::Next { epoch: asked, .. }, .. } = &mut frame
            && self.is(Mutant::EpochNotCompared)
        {
            *asked = epoch;
        }
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
                vec![(stream, frame), (stream, frames::mark(self.id, session, upto))]
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
                down.push_front(frames::mark(self.id, Session { stream, term: *term, n: *n }, Offset(h)));
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

    /// A frame as its router hears it, where a Cancel is misread at one side.
    fn plant_in_cancels(&mut self, stream: StreamId, frame: &mut ToRouter) {
        let (of_owner, of_node, of_another) = (
            self.is(Mutant::CancelUnwantsAtOwner),
            self.is(Mutant::CancelUnwantsAtNode),
            self.is(Mutant::CancelOfAnother),
        );
        let told = self.sessions.entry(stream).or_default();
        match frame {
            ToRouter::Resume { channels, .. } => {
                *told = Told { held: channels.iter().cloned().collect(), ..Told::default() };
            }
            ToRouter::Want { number, want, channel, .. } => {
                told.wants.insert(*want, channel.clone());
                told.held.insert(channel.clone());
                told.dropped.remove(channel);
                *number += told.shift;
                told.number = *number;
            }
            ToRouter::Unwant { number, channel, .. } => {
                told.held.remove(channel);
                told.dropped.remove(channel);
                *number += told.shift;
                told.number = *number;
            }
            ToRouter::Cancel { partition, term, n, want } => {
                let Some(channel) = told.wants.remove(want) else { return };
                if of_node {
                    told.dropped.insert(channel);
                } else if of_another {
                    *want = told.wants.keys().next_back().copied().unwrap_or(*want);
                } else if of_owner {
                    told.shift += 1;
                    told.number += 1;
                    let (partition, term, n, number) = (*partition, *term, *n, told.number);
                    *frame = ToRouter::Unwant { partition, term, n, number, channel };
                }
            }
            ToRouter::Ack { number, held, held_xor, .. } => {
                *number += told.shift;
                for channel in told.dropped.intersection(&told.held) {
                    *held -= 1;
                    *held_xor ^= channel.hash64();
                }
            }
        }
    }
}
