//! How a tenure answers Wants: one at a time, in order, when the stream has room; those that must wait stand aside.

use std::collections::VecDeque;

use tidegate_vocab::{Channel, Offset, limits};

use super::begin::Watermark;
use super::tenure::{Tenure, View};
use super::{Chunk, OwnerOut, RowsError};
use crate::frame::{LostReason, Outcome, ToNode, WantFrom, WantId};

/// Milliseconds after which Wants that wait are tried again, unless the interval grew or a watermark came before.
const WAITING_RETRY_MS: u64 = 50;

/// A Want or Unwant in the order in which it came.
#[derive(Debug)]
pub(super) enum Step {
    Want(PendingWant),
    Unwant(Channel),
}

#[derive(Debug)]
pub(super) struct PendingWant {
    pub(super) want: WantId,
    pub(super) channel: Channel,
    pub(super) from: WantFrom,
    /// Set once the first chunk went out: the next offset to read and what was said.
    progress: Option<(Offset, Outcome)>,
    /// Some rows went out: from now on a gap in what follows must be told.
    has_sent: bool,
    /// For a `next` above H: a high watermark asked for after the Want has been seen.
    pub(super) watermark: Watermark,
}

/// What became of a Want when it was tried.
enum Tried {
    /// Answered to the end; its want is in force.
    Done,
    /// One chunk went out; go on with it when there is room.
    More,
    /// It waits for the interval, the watermark or the store: others go first.
    Waits,
}

impl PendingWant {
    pub(super) fn new(want: WantId, channel: Channel, from: WantFrom) -> Self {
        Self { want, channel, from, progress: None, has_sent: false, watermark: Watermark::NotAsked }
    }
}

/// Wants that wait for the interval, a watermark or the store. They are tried now and then, not with every pump.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queue: VecDeque<PendingWant>,
    retry_at_ms: u64,
    tried_floor: Offset,
}

impl Waiting {
    fn is_due(&self, view: &View<'_>) -> bool {
        !self.queue.is_empty() && (view.now_ms >= self.retry_at_ms || view.rows.floor() != self.tried_floor)
    }

    fn rest(&mut self, view: &View<'_>) {
        self.retry_at_ms = view.now_ms + WAITING_RETRY_MS;
        self.tried_floor = view.rows.floor();
    }

    pub(super) fn high_watermark(&mut self, next: Offset, asked_ms: u64) {
        for pending in &mut self.queue {
            // Strictly later: within the same millisecond it may have been asked for before the Want came.
            if let Watermark::Asked { at_ms, .. } = pending.watermark
                && asked_ms > at_ms
            {
                pending.watermark = Watermark::Seen(next);
                self.retry_at_ms = 0;
            }
        }
    }
}

impl Tenure {
    /// Applies the next Want or Unwant; waiting Wants are tried when no other is left. True when something moved.
    pub(super) fn answer_one(
        &mut self,
        view: &View<'_>,
        left: &mut usize,
        send: &mut dyn FnMut(ToNode),
        out: &mut Vec<OwnerOut>,
    ) -> bool {
        match self.steps.pop_front() {
            Some(Step::Unwant(channel)) => {
                self.waiting
                    .queue
                    .retain(|pending| pending.channel != channel || !self.open.remove(&pending.want));
                if self.wants.remove(&channel).is_some() {
                    self.wants_xor ^= channel.hash64();
                }
                true
            }
            Some(Step::Want(mut pending)) => {
                if !self.wants.contains_key(&pending.channel) {
                    self.wants_xor ^= pending.channel.hash64();
                    self.wants.insert(pending.channel.clone(), false);
                }
                if !self.open.contains(&pending.want) {
                    return true; // Cancelled: the channel counts as wanted, and nobody waits for rows.
                }
                match self.try_want(&mut pending, view, left, send, out) {
                    Tried::Done => {}
                    Tried::More => self.steps.push_front(Step::Want(pending)),
                    Tried::Waits => self.waiting.queue.push_back(pending),
                }
                true
            }
            None => self.retry_waiting(view, left, send, out),
        }
    }

    fn retry_waiting(
        &mut self,
        view: &View<'_>,
        left: &mut usize,
        send: &mut dyn FnMut(ToNode),
        out: &mut Vec<OwnerOut>,
    ) -> bool {
        if !self.waiting.is_due(view) {
            return false;
        }
        let mut moved = false;
        for _ in 0..self.waiting.queue.len().min(limits::READ_ROWS_LIMIT) {
            if *left == 0 {
                return moved; // An interval that grew may answer many at once.
            }
            let Some(mut pending) = self.waiting.queue.pop_front() else { break };
            if !self.open.contains(&pending.want) {
                continue;
            }
            match self.try_want(&mut pending, view, left, send, out) {
                Tried::Done => moved = true,
                Tried::More => {
                    self.steps.push_back(Step::Want(pending));
                    moved = true;
                }
                Tried::Waits => self.waiting.queue.push_back(pending),
            }
        }
        if !moved {
            self.waiting.rest(view);
        }
        moved
    }

    /// Answers one chunk of a Want, cut at S as it is now (rule 7).
    fn try_want(
        &mut self,
        pending: &mut PendingWant,
        view: &View<'_>,
        left: &mut usize,
        send: &mut dyn FnMut(ToNode),
        out: &mut Vec<OwnerOut>,
    ) -> Tried {
        let (from, outcome) = match pending.progress {
            Some(progress) => progress,
            None => match self.begin(pending, view, out) {
                Ok(Some(begun)) => begun,
                Ok(None) | Err(_) => return Tried::Waits,
            },
        };
        if matches!(outcome, Outcome::Lost(_)) {
            return self.end_want(pending, self.s, outcome, view, left, send);
        }
        if from >= self.s {
            return self.end_want(pending, from, outcome, view, left, send);
        }
        let (rows, complete) = match self.read_chunk(pending, from, view) {
            Ok(Some(chunk)) => chunk,
            Ok(None) => {
                return self.end_want(pending, self.s, Outcome::Lost(LostReason::Expired), view, left, send);
            }
            Err(_) => return Tried::Waits,
        };
        let last = rows.last().and_then(|row| row.offset);
        let next = match last {
            _ if complete => self.s,
            Some(last) => last.next(),
            None => return Tried::Waits, // The store had nothing to say yet.
        };
        let (n, want) = (self.n, pending.want);
        let rows: Vec<_> =
            rows.into_iter().filter(|row| row.expires_ms.is_none_or(|at| at > view.now_ms)).collect();
        if !rows.is_empty() {
            // What is live on this stream stands at S too, and may count with it before these rows arrive: else they
            // would come with a cursor below themselves.
            if let Some(next) = self.due_mark(view.h, false) {
                let (partition, term, age_ms) = (view.partition, view.term, view.age_ms);
                send(ToNode::Mark { partition, term, n, next, age_ms });
            }
            let frame =
                ToNode::History { partition: view.partition, term: view.term, n, want, outcome, rows };
            *left = left.saturating_sub(frame.cost());
            send(frame);
            pending.has_sent = true;
        }
        pending.progress = Some((next, outcome));
        if complete { self.end_want(pending, next, outcome, view, left, send) } else { Tried::More }
    }

    /// The rows of the next chunk, or `None` when some of them were evicted meanwhile.
    fn read_chunk(
        &self,
        pending: &PendingWant,
        from: Offset,
        view: &View<'_>,
    ) -> Result<Option<Chunk>, RowsError> {
        let chunk = view.rows.read(&pending.channel, from, self.s)?;
        // Read first, ask second: what the answer lacks because of an eviction shows in `evicted`.
        let gone = view.rows.evicted(&pending.channel)?.max(view.rows.floor());
        let is_whole = !pending.has_sent && !matches!(pending.from, WantFrom::Next { .. });
        if gone <= from || is_whole {
            return Ok(Some(chunk));
        }
        let in_ring = from >= view.ring_complete_from(&pending.channel, self.s);
        Ok(in_ring.then(|| view.ring_chunk(&pending.channel, from, self.s)))
    }

    fn end_want(
        &mut self,
        pending: &PendingWant,
        upto: Offset,
        outcome: Outcome,
        view: &View<'_>,
        left: &mut usize,
        send: &mut dyn FnMut(ToNode),
    ) -> Tried {
        self.open.remove(&pending.want);
        self.wants.insert(pending.channel.clone(), true);
        let upto = upto.max(self.s);
        let frame = ToNode::HistoryEnd {
            partition: view.partition,
            term: view.term,
            n: self.n,
            want: pending.want,
            outcome,
            upto,
        };
        *left = left.saturating_sub(frame.cost());
        send(frame);
        Tried::Done
    }
}
