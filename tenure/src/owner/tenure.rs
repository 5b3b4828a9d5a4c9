//! One tenure on one stream: the send pointer S, what is wanted, and what is sent live.
//!
//! Reading S, cutting a History and adding its want are one step of [`Tenure::pump`] (rule 7); nothing else moves S.
//! How Wants are answered is in `answer`.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use tidegate_vocab::{Channel, LogEpoch, Offset, PartitionId, Term, limits};

use super::answer::{PendingWant, Step, Waiting};
use super::{OwnerOut, Row, Rows};
use crate::frame::{StreamId, ToNode, ToRouter, WantId, event_cost};

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
    /// How old the router's read of the log is.
    pub(super) age_ms: u64,
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
    pub(super) wants: Map<Channel, bool>,
    pub(super) wants_xor: u64,
    pub(super) steps: VecDeque<Step>,
    /// The Wants in `steps` and `waiting` that somebody still waits for: those cancelled are passed over in their turn.
    pub(super) open: HashSet<WantId, foldhash::fast::RandomState>,
    pub(super) waiting: Waiting,
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
            open: HashSet::default(),
            waiting: Waiting::default(),
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

    /// Takes a Want, an Unwant, a Cancel or an acknowledgement; false when it does not go with what was heard before.
    pub(super) fn heard(&mut self, frame: ToRouter) -> bool {
        match frame {
            ToRouter::Resume { .. } => true,
            ToRouter::Want { number, want, channel, from, .. } => {
                self.open.insert(want);
                self.steps.push_back(Step::Want(PendingWant::new(want, channel, from)));
                self.is_next(number)
            }
            ToRouter::Unwant { number, channel, .. } => {
                self.steps.push_back(Step::Unwant(channel));
                self.is_next(number)
            }
            ToRouter::Cancel { want, .. } => {
                self.open.remove(&want); // Not there when it crossed its HistoryEnd.
                true
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
        self.waiting.high_watermark(next, asked_ms);
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

const _: () = assert!(limits::READ_BYTES_LIMIT < limits::STREAM_BYTES_LIMIT);
