//! One tenure on one stream: the send pointer S, the wants, and the Wants still to be answered.
//!
//! Reading S, cutting a History and adding its want are one step of [`Tenure::pump`] (rule 7); nothing else moves S.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_vocab::{Channel, LogEpoch, Offset, PartitionId, Term, limits};

use super::{Chunk, OwnerOut, Row, Rows, RowsError};
use crate::frame::{LostReason, Outcome, StreamId, ToNode, ToRouter, WantFrom, WantId, event_cost};

/// Milliseconds after which an unanswered question for the high watermark is asked again.
const WATERMARK_RETRY_MS: u64 = 1_000;

type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// What a pump may look at besides its own tenure.
pub(super) struct View<'a> {
    pub(super) partition: PartitionId,
    pub(super) term: Term,
    pub(super) epoch: LogEpoch,
    pub(super) stream: StreamId,
    pub(super) h: Offset,
    pub(super) ring: &'a VecDeque<Row>,
    pub(super) ring_floor: Offset,
    pub(super) rows: &'a dyn Rows,
    pub(super) now_ms: u64,
}

/// A Want or Unwant in the order in which it came.
#[derive(Debug)]
enum Step {
    Want(PendingWant),
    Unwant(Channel),
}

#[derive(Debug)]
struct PendingWant {
    want: WantId,
    channel: Channel,
    from: WantFrom,
    /// Set once the first chunk went out: the next offset to read and what was said.
    progress: Option<(Offset, Outcome)>,
    /// Some rows went out: from now on a gap in what follows must be told.
    has_sent: bool,
    /// For a `next` above H: a high watermark asked for after the Want has been seen.
    watermark: Watermark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watermark {
    NotAsked,
    /// One that was asked for later than this will do; it is asked for again when none has come.
    Asked {
        at_ms: u64,
        again_ms: u64,
    },
    Seen(Offset),
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

/// See the module.
#[derive(Debug)]
pub(super) struct Tenure {
    pub(super) n: u64,
    pub(super) s: Offset,
    pub(super) acked: Offset,
    /// A read of the log is under way for this tenure.
    pub(super) reading: bool,
    /// Channel -> its want is in force. Not yet in force: its first Want is still being answered.
    wants: Map<Channel, bool>,
    wants_xor: u64,
    steps: VecDeque<Step>,
    waiting: Vec<PendingWant>,
    /// Rows below the ring, read from the log, and the offset up to which they are complete.
    read_rows: VecDeque<Row>,
    read_upto: Offset,
    /// The log no longer has what is below this.
    gone_below: Offset,
    /// The number of the last Want or Unwant heard.
    number: u64,
    marked: Option<Offset>,
}

impl Tenure {
    pub(super) fn open(n: u64, from: Offset, channels: Vec<Channel>) -> Self {
        let wants_xor = channels.iter().fold(0, |xor, channel| xor ^ channel.hash64());
        Self {
            n,
            s: from,
            acked: from,
            reading: false,
            wants: channels.into_iter().map(|channel| (channel, true)).collect(),
            wants_xor,
            steps: VecDeque::new(),
            waiting: Vec::new(),
            read_rows: VecDeque::new(),
            read_upto: Offset(0),
            gone_below: Offset(0),
            number: 0,
            marked: None,
        }
    }

    pub(super) fn is_wanted(&self, channel: &Channel) -> bool {
        self.wants.get(channel) == Some(&true)
    }

    /// Takes a Want, an Unwant or an acknowledgement; false when it does not go with what was heard before.
    pub(super) fn heard(&mut self, frame: ToRouter) -> bool {
        match frame {
            ToRouter::Resume { .. } => true,
            ToRouter::Want { number, want, channel, from, .. } => {
                let watermark = Watermark::NotAsked;
                let pending = PendingWant { want, channel, from, progress: None, has_sent: false, watermark };
                self.steps.push_back(Step::Want(pending));
                self.is_next(number)
            }
            ToRouter::Unwant { number, channel, .. } => {
                self.steps.push_back(Step::Unwant(channel));
                self.is_next(number)
            }
            ToRouter::Ack { next, number, held, held_xor, .. } => {
                self.acked = self.acked.max(next);
                // While steps are still to be applied there is nothing to compare: a later Ack will tell.
                let agrees = self.wants.len() as u64 == held && self.wants_xor == held_xor;
                number == self.number && (agrees || !self.steps.is_empty())
            }
        }
    }

    /// Wants and Unwants come in order and none is missing: a stream keeps the order in which the node numbered them.
    fn is_next(&mut self, number: u64) -> bool {
        let is_next = number == self.number + 1;
        self.number = number;
        is_next
    }

    pub(super) fn high_watermark(&mut self, next: Offset, asked_ms: u64) {
        for pending in &mut self.waiting {
            // Strictly later: within the same millisecond it may have been asked for before the Want came.
            if let Watermark::Asked { at_ms, .. } = pending.watermark
                && asked_ms > at_ms
            {
                pending.watermark = Watermark::Seen(next);
            }
        }
    }

    pub(super) fn log_gone(&mut self, start: Offset) {
        self.reading = false;
        self.gone_below = self.gone_below.max(start);
    }

    pub(super) fn log_rows(&mut self, from: Offset, rows: Vec<Row>, upto: Offset) {
        self.reading = false;
        if from == self.s {
            self.read_rows = rows.into();
            self.read_upto = upto;
        }
    }

    /// The Mark to send now, if one is due: S, and never above H (rule 5).
    pub(super) fn due_mark(&mut self, h: Offset, heartbeat: bool) -> Option<Offset> {
        if self.s > h || (self.marked == Some(self.s) && !heartbeat) {
            return None;
        }
        debug_assert!(self.marked <= Some(self.s), "marks only rise");
        self.marked = Some(self.s);
        Some(self.s)
    }

    /// Sends up to about `room` bytes; true when something is left that room alone would let out.
    pub(super) fn pump(
        &mut self,
        view: &View<'_>,
        room: usize,
        send: &mut dyn FnMut(ToNode),
        out: &mut Vec<OwnerOut>,
    ) -> bool {
        if self.s > view.h {
            return false; // Resumed from above H: nothing is due before H gets there.
        }
        if room == 0 {
            return !self.steps.is_empty() || self.s < view.h;
        }
        let mut left = room;
        loop {
            let answered = self.answer_one(view, &mut left, send, out);
            let sent = self.advance(view, &mut left, send, out);
            if left == 0 {
                return !self.steps.is_empty() || self.s < view.h;
            }
            if !answered && !sent {
                return false;
            }
        }
    }

    /// Applies the next Want or Unwant; waiting Wants are tried when no other is left. True when something moved.
    fn answer_one(
        &mut self,
        view: &View<'_>,
        left: &mut usize,
        send: &mut dyn FnMut(ToNode),
        out: &mut Vec<OwnerOut>,
    ) -> bool {
        match self.steps.pop_front() {
            Some(Step::Unwant(channel)) => {
                self.waiting.retain(|pending| pending.channel != channel);
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
                match self.try_want(&mut pending, view, left, send, out) {
                    Tried::Done => {}
                    Tried::More => self.steps.push_front(Step::Want(pending)),
                    Tried::Waits => self.waiting.push(pending),
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
        let mut moved = false;
        for mut pending in std::mem::take(&mut self.waiting) {
            if *left == 0 {
                self.waiting.push(pending); // An interval that grew may answer many at once.
                continue;
            }
            match self.try_want(&mut pending, view, left, send, out) {
                Tried::Done => moved = true,
                Tried::More => {
                    self.steps.push_back(Step::Want(pending));
                    moved = true;
                }
                Tried::Waits => self.waiting.push(pending),
            }
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
        Ok((gone <= from || is_whole).then_some(chunk))
    }

    /// Decides what a Want is and from where it starts; `None` when that is not known yet.
    fn begin(
        &self,
        pending: &mut PendingWant,
        view: &View<'_>,
        out: &mut Vec<OwnerOut>,
    ) -> Result<Option<(Offset, Outcome)>, RowsError> {
        let channel = &pending.channel;
        let floor = view.rows.floor();
        let complete_from = floor.max(view.rows.evicted(channel)?);
        let rebuilt = floor <= view.rows.log_start();
        let fresh = |from: Offset| Some((from.max(complete_from), Outcome::Fresh));
        Ok(match pending.from {
            WantFrom::Now => Some((self.s, Outcome::Fresh)),
            WantFrom::Start => {
                if rebuilt {
                    fresh(Offset(0))
                } else {
                    None
                }
            }
            WantFrom::Last(count) => {
                let from = view.rows.first_of_last(channel, count, self.s)?;
                if from > complete_from || rebuilt || complete_from > floor { fresh(from) } else { None }
            }
            WantFrom::Since(time_ms) => {
                let from = view.rows.first_since(channel, time_ms, self.s)?;
                if from > complete_from || rebuilt || complete_from > floor { fresh(from) } else { None }
            }
            WantFrom::Next { epoch, .. } if epoch != view.epoch => {
                Some((self.s, Outcome::Lost(LostReason::Epoch)))
            }
            WantFrom::Next { offset, .. } if offset > view.h => above_h(pending, offset, view, out),
            WantFrom::Next { offset, .. } if offset >= complete_from => Some((offset, Outcome::Recovered)),
            WantFrom::Next { offset, .. }
                if offset < floor && !rebuilt && offset >= view.rows.log_start() =>
            {
                None
            }
            WantFrom::Next { .. } => Some((self.s, Outcome::Lost(LostReason::Expired))),
        })
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

    /// Moves S towards H over the ring or rows read from the log, sending what is wanted. True when S moved.
    fn advance(
        &mut self,
        view: &View<'_>,
        left: &mut usize,
        send: &mut dyn FnMut(ToNode),
        out: &mut Vec<OwnerOut>,
    ) -> bool {
        let before = self.s;
        if self.s < view.ring_floor {
            self.advance_over_read(view, left, send, out);
        }
        if self.s >= view.ring_floor && self.s < view.h {
            let mut at = view.ring.partition_point(|row| row.offset() < self.s);
            while *left > 0 {
                let Some(row) = view.ring.get(at) else {
                    self.s = view.h;
                    break;
                };
                self.send_row(row, view, left, send);
                at += 1;
            }
        }
        self.s > before
    }

    fn advance_over_read(
        &mut self,
        view: &View<'_>,
        left: &mut usize,
        send: &mut dyn FnMut(ToNode),
        out: &mut Vec<OwnerOut>,
    ) {
        if self.s < self.gone_below {
            let upto = self.gone_below;
            self.send_lost(None, upto, view, left, send);
            self.s = upto;
        }
        while *left > 0 && self.s < self.read_upto {
            match self.read_rows.pop_front() {
                Some(row) if row.offset() < self.s => {}
                Some(row) => self.send_row(&row, view, left, send),
                None => self.s = self.read_upto,
            }
        }
        if self.s >= self.read_upto && self.s < view.ring_floor && !self.reading {
            self.reading = true;
            out.push(OwnerOut::ReadLog { stream: view.stream, from: self.s });
        }
    }

    fn send_row(&mut self, row: &Row, view: &View<'_>, left: &mut usize, send: &mut dyn FnMut(ToNode)) {
        debug_assert!(row.offset() >= self.s, "a row is sent once per tenure");
        let upto = row.offset().next();
        match row {
            Row::Event(event) if self.is_wanted(&event.channel) => {
                *left = left.saturating_sub(event_cost(event));
                let (n, event) = (self.n, Arc::clone(event));
                send(ToNode::Event { partition: view.partition, term: view.term, n, event });
            }
            Row::Event(_) => {}
            Row::DeadLetter { channel: Some(channel), .. } if !self.is_wanted(channel) => {}
            Row::DeadLetter { channel, .. } => self.send_lost(channel.clone(), upto, view, left, send),
        }
        self.s = upto;
    }

    /// Loss is told before S passes it, and in order on the stream (rule 10).
    fn send_lost(
        &self,
        channel: Option<Channel>,
        upto: Offset,
        view: &View<'_>,
        left: &mut usize,
        send: &mut dyn FnMut(ToNode),
    ) {
        let frame = ToNode::Lost { partition: view.partition, term: view.term, n: self.n, channel, upto };
        *left = left.saturating_sub(frame.cost());
        send(frame);
    }
}

/// Rule 6: a `next` above H waits for a high watermark that was asked for after the Want.
fn above_h(
    pending: &mut PendingWant,
    offset: Offset,
    view: &View<'_>,
    out: &mut Vec<OwnerOut>,
) -> Option<(Offset, Outcome)> {
    match pending.watermark {
        Watermark::NotAsked => {
            pending.watermark = Watermark::Asked { at_ms: view.now_ms, again_ms: view.now_ms + 1 };
            None
        }
        Watermark::Asked { at_ms, again_ms } if view.now_ms >= again_ms => {
            let again_ms = view.now_ms + WATERMARK_RETRY_MS;
            pending.watermark = Watermark::Asked { at_ms, again_ms };
            out.push(OwnerOut::AskHighWatermark);
            None
        }
        Watermark::Seen(next) if offset > next => Some((view.h, Outcome::Lost(LostReason::BadCursor))),
        Watermark::Asked { .. } | Watermark::Seen(_) => None,
    }
}

const _: () = assert!(limits::READ_BYTES_LIMIT < limits::STREAM_BYTES_LIMIT);
