//! What is wanted here: subscriptions come and go, and what the owner says to their Wants.

use std::sync::Arc;

use tidegate_vocab::{Channel, Event, Offset, limits};

use super::hold::PendingWant;
use super::{Node, NodeOut};
use crate::frame::{Outcome, ToRouter, WantFrom, WantId};

impl Node {
    /// A subscription wants a channel of this partition. True when the node answered it by itself (rule 9); `unix_ms` is
    /// the time by which events are left out of an answer whose own time to live has run out.
    pub fn subscribe(
        &mut self,
        want: WantId,
        channel: Channel,
        from: WantFrom,
        unix_ms: u64,
        out: &mut Vec<NodeOut>,
    ) -> bool {
        if let Some(rows) = self.own_rows(&channel, from, unix_ms) {
            self.answer_itself(want, &channel, from, rows, out);
            return true;
        }
        let hold = self.holds.entry(channel.clone()).or_default();
        hold.pending += 1;
        if let Some(until_ms) = hold.linger_until_ms.take() {
            self.lingering.remove(&(until_ms, channel.clone()));
        }
        let is_fresh = !matches!(from, WantFrom::Next { .. });
        let before = self.wants.insert(want, PendingWant { channel, from, is_fresh });
        debug_assert!(before.is_none(), "a want id is used once");
        if self.owner.is_some() {
            self.open_session(out);
            self.send_want(want, out);
        }
        false
    }

    /// The rows of an answer that needs no owner (rule 9): the channel's hold has not been broken since `from`, and all
    /// that came since is in the ring. `None` when that is not so.
    ///
    /// This holds in a new term and between two owners too, since the next Resume goes on from next[P] or below. But
    /// "from now on" is only for an owner's stream to say: without one nobody knows how long ago next[P] was now.
    fn own_rows(&self, channel: &Channel, from: WantFrom, unix_ms: u64) -> Option<Vec<Arc<Event>>> {
        let covered_from = self.holds.get(channel)?.covered_from?;
        let from = match from {
            WantFrom::Next { epoch, offset } if self.epoch == Some(epoch) => offset,
            WantFrom::Now if self.in_session => self.next,
            _ => return None,
        };
        let is_covered = covered_from <= from && from <= self.next;
        is_covered.then(|| self.recent.rows(channel, from, unix_ms)).flatten()
    }

    /// The shards have everything below next[P], and get the rest behind this.
    fn answer_itself(
        &mut self,
        want: WantId,
        channel: &Channel,
        from: WantFrom,
        rows: Vec<Arc<Event>>,
        out: &mut Vec<NodeOut>,
    ) {
        let (Some(epoch), Some(hold)) = (self.epoch, self.holds.get_mut(channel)) else { return };
        debug_assert!(hold.told || !self.in_session, "the owner sends what is answered here");
        debug_assert!(hold.established_at <= hold.covered_from, "a Resume begins no later than a hold");
        hold.subscribers += 1;
        if let Some(until_ms) = hold.linger_until_ms.take() {
            self.lingering.remove(&(until_ms, channel.clone()));
        }
        let outcome = if from == WantFrom::Now { Outcome::Fresh } else { Outcome::Recovered };
        if !rows.is_empty() {
            out.push(NodeOut::History { want, outcome, rows });
        }
        out.push(NodeOut::Established { want, outcome, epoch, upto: self.next });
    }

    /// A pending subscription is given up, and the owner need send nothing more for it. False, and ignored, when its
    /// HistoryEnd has come already: then release the channel.
    pub fn cancel(&mut self, want: WantId, now_ms: u64, out: &mut Vec<NodeOut>) -> bool {
        let Some(pending) = self.wants.remove(&want) else { return false };
        // In a session every unfinished Want has been sent in it.
        if let Some(owner) = self.owner.filter(|_| self.in_session) {
            let (partition, term, n) = (self.partition, owner.term, self.n);
            out.push(NodeOut::Send(owner.stream, ToRouter::Cancel { partition, term, n, want }));
        }
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
            && !hold.is_wanted()
            && hold.linger_until_ms.is_none()
        {
            let until_ms = now_ms + limits::UNWANT_LINGER_MS;
            hold.linger_until_ms = Some(until_ms);
            self.lingering.insert((until_ms, channel.clone()));
        }
    }

    /// Unwants what has lingered long enough.
    pub(super) fn unwant_lingering(&mut self, now_ms: u64, out: &mut Vec<NodeOut>) {
        let mut ended = Vec::new();
        while self.lingering.first().is_some_and(|(until_ms, _)| *until_ms <= now_ms) {
            ended.extend(self.lingering.pop_first().map(|(_, channel)| channel));
        }
        ended.sort_unstable();
        for channel in ended {
            let told = self.holds.remove(&channel).is_some_and(|hold| hold.told);
            if self.holds.is_empty() {
                self.recent.forget(self.next);
            }
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
    }

    pub(super) fn send_want(&mut self, want: WantId, out: &mut Vec<NodeOut>) {
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
    pub(super) fn history(
        &mut self,
        want: WantId,
        outcome: Outcome,
        rows: Vec<Arc<Event>>,
        out: &mut Vec<NodeOut>,
    ) {
        let Some(pending) = self.wants.get_mut(&want) else { return };
        let (Some(epoch), Some(last)) = (self.epoch, rows.last().and_then(|row| row.offset)) else { return };
        pending.from = WantFrom::Next { epoch, offset: last.next() };
        let outcome = pending.outcome(outcome);
        out.push(NodeOut::History { want, outcome, rows });
    }

    pub(super) fn history_end(
        &mut self,
        want: WantId,
        outcome: Outcome,
        upto: Offset,
        out: &mut Vec<NodeOut>,
    ) {
        let Some(epoch) = self.epoch else { return };
        let Some(pending) = self.wants.remove(&want) else { return };
        if let Some(hold) = self.holds.get_mut(&pending.channel) {
            hold.established(upto);
        }
        let outcome = pending.outcome(outcome);
        out.push(NodeOut::Established { want, outcome, epoch, upto });
    }
}
