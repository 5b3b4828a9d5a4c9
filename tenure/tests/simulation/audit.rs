//! Watches one tenure from outside: what a node asked for and what the owner put on the stream for it.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_tenure::{LostReason, Outcome, ToNode, ToRouter, WantFrom, WantId};
use tidegate_vocab::{Channel, Offset, Term};

use crate::checks::{Check, hold};
use crate::log::{Log, Store};

#[derive(Debug)]
struct Asked {
    channel: Channel,
    from: WantFrom,
    number: u64,
    /// From where the store was complete when the first frame of the answer went out.
    complete_from: Option<u64>,
    rows: Vec<u64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) term: Term,
    pub(crate) n: u64,
    /// Wants in force, and from where on their rows are owed.
    in_force: BTreeMap<Channel, u64>,
    unwanted: BTreeMap<Channel, u64>,
    asked: BTreeMap<WantId, Asked>,
    names: BTreeSet<WantId>,
    /// Nothing more is to be said to these.
    cancelled: BTreeSet<WantId>,
    sent: BTreeSet<u64>,
    lost: BTreeMap<Option<Channel>, u64>,
    marked: u64,
}

/// What an audit may look at.
pub(crate) struct Scene<'a> {
    pub(crate) log: &'a Log,
    pub(crate) store: &'a Store,
    pub(crate) now_ms: u64,
}

impl Audit {
    pub(crate) fn open(term: Term, n: u64, from: u64, channels: &[Channel]) -> Self {
        Self {
            term,
            n,
            in_force: channels.iter().map(|channel| (channel.clone(), from)).collect(),
            unwanted: BTreeMap::new(),
            asked: BTreeMap::new(),
            names: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            sent: BTreeSet::new(),
            lost: BTreeMap::new(),
            marked: from,
        }
    }

    /// A Want or Unwant of this tenure has reached the owner.
    pub(crate) fn heard(&mut self, frame: &ToRouter) {
        match frame {
            ToRouter::Want { want, channel, from, number, .. } => {
                let (channel, from, number) = (channel.clone(), *from, *number);
                let asked = Asked { channel, from, number, complete_from: None, rows: Vec::new() };
                // A mutant asks twice under one name.
                self.cancelled.remove(want);
                if !self.names.insert(*want) || self.asked.insert(*want, asked).is_some() {
                    self.asked.remove(want);
                }
            }
            ToRouter::Unwant { channel, number, .. } => {
                self.in_force.remove(channel);
                self.unwanted.insert(channel.clone(), *number);
            }
            ToRouter::Cancel { want, .. } => {
                if self.asked.remove(want).is_some() {
                    self.cancelled.insert(*want);
                }
            }
            ToRouter::Resume { .. } | ToRouter::Ack { .. } => {}
        }
    }

    /// The owner puts a frame on the stream.
    pub(crate) fn sends(&mut self, frame: &ToNode, scene: &Scene<'_>) -> Check {
        if let ToNode::History { want, .. } | ToNode::HistoryEnd { want, .. } = frame {
            let is_over = self.cancelled.contains(want);
            hold(!is_over, "nothing_for_a_cancelled_want", || format!("{frame:?}"))?;
        }
        match frame {
            ToNode::Event { n, event, .. } => {
                let Some(offset) = event.offset else { return Ok(()) };
                let rising = *n == self.n && self.sent.last().is_none_or(|last| *last < offset.0);
                self.sent.insert(offset.0);
                hold(rising, "rows_are_sent_once_in_order", || format!("{offset} after {:?}", self.sent))
            }
            ToNode::Mark { next, .. } => self.marks(next.0, scene),
            ToNode::Lost { channel, upto, .. } => {
                self.lost.insert(channel.clone(), upto.0);
                Ok(())
            }
            ToNode::History { want, rows, .. } => {
                let Some(asked) = self.asked.get_mut(want) else { return Ok(()) };
                asked.begin(scene);
                asked.rows.extend(rows.iter().filter_map(|row| row.offset).map(|offset| offset.0));
                let rising = asked.rows.is_sorted_by(|a, b| a < b);
                hold(rising, "history_is_complete", || format!("not in order: {asked:?}"))
            }
            ToNode::HistoryEnd { want, outcome, upto, .. } => {
                let Some(mut asked) = self.asked.remove(want) else { return Ok(()) };
                asked.begin(scene);
                asked.check(*outcome, upto.0, scene)?;
                let dead = self.unwanted.get(&asked.channel).is_some_and(|number| *number > asked.number);
                if !dead {
                    self.in_force.entry(asked.channel).or_insert(upto.0);
                }
                Ok(())
            }
            ToNode::Owned { .. } | ToNode::Ended { .. } => Ok(()),
        }
    }

    /// Owner: a Mark passes no wanted row that was neither sent nor told as lost, and no H.
    fn marks(&mut self, next: u64, scene: &Scene<'_>) -> Check {
        let invariant = "mark_is_covered";
        hold(next <= scene.store.h, invariant, || format!("mark {next} above H {}", scene.store.h))?;
        let all_lost = self.lost.get(&None).copied().unwrap_or(0);
        for (channel, owed_from) in &self.in_force {
            let lost = self.lost.get(&Some(channel.clone())).copied().unwrap_or(0).max(all_lost);
            let from = self.marked.max(*owed_from).max(lost);
            let missing = scene.log.rows(channel, from, next).find(|offset| !self.sent.contains(offset));
            hold(missing.is_none(), invariant, || format!("mark {next} passed {missing:?} of {channel:?}"))?;
        }
        self.marked = self.marked.max(next);
        Ok(())
    }
}

impl Asked {
    fn begin(&mut self, scene: &Scene<'_>) {
        let evicted = scene.store.evicted().get(&self.channel).copied().unwrap_or(0);
        self.complete_from.get_or_insert(scene.store.floor.max(evicted));
    }

    /// Owner: a History holds what was asked for, as far as it exists, up to where it was cut.
    fn check(&self, outcome: Outcome, upto: u64, scene: &Scene<'_>) -> Check {
        let complete_from = self.complete_from.unwrap_or_default();
        let exists = |from: u64| scene.log.rows(&self.channel, from, upto).collect::<Vec<_>>();
        let (floor, start) = (scene.store.floor, scene.log.start);
        let settled = floor <= start || complete_from > floor;
        let invariant = "history_is_complete";
        let owed = match (self.from, outcome) {
            (WantFrom::Next { offset, epoch }, Outcome::Lost(LostReason::Expired)) => {
                // What is not sent yet still comes: only what lies below S can be lost.
                let evicted = scene.store.evicted().get(&self.channel).copied().unwrap_or(0);
                let below = upto.min(evicted.max(floor).max(start));
                let is_lost = |at| {
                    scene.log.is_dead(&self.channel, at)
                        || scene.log.rows(&self.channel, at, at + 1).next().is_some()
                };
                // What was evicted above `upto` hides whether anything was below.
                let caused = offset.0 < start || evicted > upto || (offset.0..below).any(is_lost);
                let fine = offset.0 < upto && epoch == scene.log.epoch && caused;
                return hold(fine, "lost_has_a_cause", || format!("all comes live: {self:?}, upto {upto}"));
            }
            (WantFrom::Next { .. }, Outcome::Lost(_)) => Vec::new(),
            (_, Outcome::Lost(LostReason::Expired)) if !self.rows.is_empty() => Vec::new(),
            (_, Outcome::Lost(_)) => return hold(false, invariant, || format!("fresh is lost: {self:?}")),
            (WantFrom::Next { offset, .. }, _) => exists(offset.0),
            (WantFrom::Start, _) => {
                hold(settled, invariant, || format!("start before the log start is loaded: {self:?}"))?;
                exists(complete_from)
            }
            (WantFrom::Since(time_ms), _) => {
                let from = scene.log.at_time(time_ms);
                hold(settled || from >= floor, invariant, || format!("since before it is loaded: {self:?}"))?;
                exists(from.max(complete_from))
            }
            (WantFrom::Last(count), _) => {
                let mut rows = exists(complete_from);
                let count = count as usize;
                hold(settled || rows.len() >= count, invariant, || format!("last is not loaded: {self:?}"))?;
                rows.drain(..rows.len().saturating_sub(count));
                rows
            }
            (WantFrom::Now, _) => Vec::new(),
        };
        let missing = owed
            .iter()
            .find(|offset| !self.rows.contains(offset) && !scene.log.is_expired(**offset, scene.now_ms));
        hold(missing.is_none(), invariant, || format!("lacks {missing:?} below {upto}: {self:?}"))?;
        let first = match self.from {
            WantFrom::Next { offset, .. } => offset,
            _ => Offset(0),
        };
        let outside = self.rows.iter().find(|offset| **offset < first.0 || **offset >= upto);
        hold(outside.is_none(), invariant, || format!("{outside:?} is outside, upto {upto}: {self:?}"))
    }
}
