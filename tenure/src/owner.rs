//! The router's side of one partition: who owns it, who wants what in it, and how far each node has been sent.

mod answer;
mod begin;
mod rows;
mod tenure;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidegate_vocab::{Event, LogEpoch, Offset, PartitionId, Term, limits};

use crate::frame::{StreamId, ToNode, ToRouter};
pub use rows::{Chunk, Record, Row, Rows, RowsError};
use tenure::Tenure;

/// Names one attempt to own the partition; drawn anew for each assignment and each retake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub u128);

/// What the owner asks its driver to do besides sending frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerOut {
    /// Append a takeover record with this nonce.
    AppendTakeover(Nonce),
    /// Another router took over and the partition is still assigned here: call [`Owner::retake`] after a pause.
    TakenOver,
    /// This frame goes to this stream at once, whatever its room.
    Send(StreamId, ToNode),
    /// Ask the log for its high watermark and tell [`Owner::high_watermark`].
    AskHighWatermark,
    /// Read the log from here for a tenure that fell behind the ring, and tell [`Owner::log_rows`].
    ReadLog {
        /// The stream whose tenure fell behind.
        stream: StreamId,
        /// Its send pointer.
        from: Offset,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Owner {
    partition: PartitionId,
    epoch: LogEpoch,
    /// The nonce of the current assignment; `None` while not assigned.
    nonce: Option<Nonce>,
    /// The term, while serving.
    term: Option<Term>,
    /// H: the next offset to consume.
    h: Offset,
    /// Recent rows for send pointers behind H, and the first offset from which the ring is complete.
    ring: VecDeque<Row>,
    ring_bytes: usize,
    ring_bytes_limit: usize,
    ring_floor: Offset,
    streams: BTreeMap<StreamId, Option<Tenure>>,
    /// The router's read is at most this old: when it asked for the high watermark that it has since reached.
    fresh_at_ms: u64,
    /// A high watermark not reached yet, and when it was asked for.
    target: Option<(Offset, u64)>,
    out: Vec<OwnerOut>,
}

impl Owner {
    /// An owner that is not assigned yet and has consumed everything below `h`.
    #[must_use]
    pub fn new(partition: PartitionId, epoch: LogEpoch, h: Offset) -> Self {
        Self {
            partition,
            epoch,
            nonce: None,
            term: None,
            h,
            ring: VecDeque::new(),
            ring_bytes: 0,
            ring_bytes_limit: limits::TAIL_RING_BYTES_LIMIT,
            ring_floor: h,
            streams: BTreeMap::new(),
            fresh_at_ms: 0,
            target: None,
            out: Vec::new(),
        }
    }

    /// Keeps another amount of recent rows than [`limits::TAIL_RING_BYTES_LIMIT`]: tests reach the end of a small one.
    #[must_use]
    pub fn with_ring_bytes_limit(mut self, ring_bytes_limit: usize) -> Self {
        self.ring_bytes_limit = ring_bytes_limit;
        self
    }

    /// H: the next offset to consume.
    #[must_use]
    pub fn h(&self) -> Offset {
        self.h
    }

    /// The term, while serving.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    /// Takes what the driver is asked to do.
    pub fn take_out(&mut self) -> Vec<OwnerOut> {
        std::mem::take(&mut self.out)
    }

    /// The log's group gave us the partition: take over under `nonce`.
    pub fn assigned(&mut self, nonce: Nonce) {
        self.stop();
        self.nonce = Some(nonce);
        self.out.push(OwnerOut::AppendTakeover(nonce));
    }

    /// The pause after a foreign takeover is over and the partition is still assigned: try again under a new nonce.
    pub fn retake(&mut self, nonce: Nonce) {
        if self.nonce.is_some() && self.term.is_none() {
            self.assigned(nonce);
        }
    }

    /// The partition is no longer ours; voids the nonce at once, also one whose takeover is on its way.
    pub fn revoked(&mut self) {
        self.nonce = None;
        self.stop();
    }

    /// The record at `offset` has been consumed and, if it is an event, its row is readable.
    pub fn consumed(&mut self, offset: Offset, record: Record, floor: Offset) {
        debug_assert!(offset >= self.h, "the log is consumed in order");
        self.h = offset.next();
        match record {
            Record::Takeover(nonce) => self.takeover_consumed(offset, nonce, floor),
            Record::Event(event) => {
                debug_assert_eq!(event.offset, Some(offset));
                self.remember(Row::Event(event));
            }
            Record::DeadLetter(channel) => self.remember(Row::DeadLetter { offset, channel }),
            Record::Nothing => {}
        }
        if let Some((target, asked_ms)) = self.target
            && self.h >= target
        {
            self.fresh_at_ms = self.fresh_at_ms.max(asked_ms);
            self.target = None;
        }
    }

    fn remember(&mut self, row: Row) {
        self.ring_bytes += row.cost();
        self.ring.push_back(row);
        while self.ring_bytes > self.ring_bytes_limit {
            let Some(old) = self.ring.pop_front() else { break };
            self.ring_bytes -= old.cost();
            self.ring_floor = old.offset().next();
        }
    }

    /// Rule 1: owner and term are a pure function of the log, and only the current nonce serves.
    fn takeover_consumed(&mut self, offset: Offset, nonce: Nonce, floor: Offset) {
        if self.nonce == Some(nonce) {
            let term = Term::of_takeover_at(offset);
            self.stop();
            self.term = Some(term);
            for stream in self.streams.keys() {
                self.out.push(OwnerOut::Send(*stream, self.owned(term, floor)));
            }
        } else if self.term.is_some() {
            self.stop();
            self.out.push(OwnerOut::TakenOver);
        }
    }

    /// Ends the tenure, if there is one, and says so.
    fn stop(&mut self) {
        let Some(term) = self.term.take() else { return };
        for (stream, tenure) in &mut self.streams {
            *tenure = None;
            self.out.push(OwnerOut::Send(*stream, ToNode::Ended { partition: self.partition, term }));
        }
    }

    fn owned(&self, term: Term, floor: Offset) -> ToNode {
        ToNode::Owned { partition: self.partition, term, epoch: self.epoch, floor }
    }

    /// A node attached. Its tenure begins with its Resume.
    pub fn attached(&mut self, stream: StreamId, floor: Offset) {
        self.streams.insert(stream, None);
        if let Some(term) = self.term {
            self.out.push(OwnerOut::Send(stream, self.owned(term, floor)));
        }
    }

    /// A node's stream ended, and with it everything that was known about it.
    pub fn detached(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// A frame from a node. What is not of the current tenure on this stream is ignored (rule 4).
    pub fn on_frame(&mut self, stream: StreamId, frame: ToRouter, floor: Offset) {
        let Some(slot) = self.streams.get_mut(&stream) else { return };
        let (term, n) = frame.session();
        let Some(serving) = self.term.filter(|serving| *serving == term) else { return };
        if let ToRouter::Resume { from, channels, .. } = frame {
            if slot.as_ref().is_none_or(|tenure| tenure.n < n) {
                *slot = Some(Tenure::open(n, from.unwrap_or(self.h), channels));
            }
            return;
        }
        let Some(tenure) = slot.as_mut().filter(|tenure| tenure.n == n) else { return };
        if !tenure.heard(frame) {
            *slot = None; // The two sides disagree about what is wanted: one Resume puts it right (rule 8).
            let again = self.owned(serving, floor);
            self.out.push(OwnerOut::Send(stream, again));
        }
    }

    /// The log's high watermark, as asked for at `asked_ms`.
    pub fn high_watermark(&mut self, next: Offset, asked_ms: u64) {
        if self.h >= next {
            self.fresh_at_ms = self.fresh_at_ms.max(asked_ms);
        } else if self.target.is_none() {
            self.target = Some((next, asked_ms));
        }
        for tenure in self.streams.values_mut().flatten() {
            tenure.high_watermark(next, asked_ms);
        }
    }

    /// Rows of the log for a tenure that fell behind the ring: every event to deliver (by its verdict) and every dead
    /// letter of the partition in `[from, upto)`. What lies above H is not looked at.
    pub fn log_rows(&mut self, stream: StreamId, from: Offset, mut rows: Vec<Row>, upto: Offset) {
        if let Some(Some(tenure)) = self.streams.get_mut(&stream) {
            rows.retain(|row| row.offset() < self.h);
            tenure.log_rows(from, rows, upto.min(self.h));
        }
    }

    /// The log no longer has what a tenure that fell behind still needed: its next pump tells so, in order.
    pub fn log_gone(&mut self, stream: StreamId, start: Offset) {
        if let Some(Some(tenure)) = self.streams.get_mut(&stream) {
            tenure.log_gone(start.min(self.h));
        }
    }

    /// Sends an ephemeral event to the nodes that want its channel and are not behind; says to how many.
    pub fn ephemeral(&mut self, event: &Arc<Event>, has_room: impl Fn(StreamId) -> bool) -> usize {
        debug_assert_eq!(event.offset, None);
        let Some(term) = self.term else { return 0 };
        let mut routed = 0;
        for (stream, slot) in &self.streams {
            let Some(tenure) = slot else { continue };
            if tenure.s >= self.h && tenure.is_wanted(&event.channel) && has_room(*stream) {
                let frame =
                    ToNode::Event { partition: self.partition, term, n: tenure.n, event: Arc::clone(event) };
                self.out.push(OwnerOut::Send(*stream, frame));
                routed += 1;
            }
        }
        routed
    }

    /// Streams whose tenure is open here.
    pub fn open_streams(&self) -> Vec<StreamId> {
        self.streams.iter().filter(|(_, tenure)| tenure.is_some()).map(|(stream, _)| *stream).collect()
    }

    /// How far H is ahead of the slowest open tenure, in offsets.
    #[must_use]
    pub fn furthest_behind(&self) -> u64 {
        self.streams.values().flatten().map(|tenure| self.h.0.saturating_sub(tenure.s.0)).max().unwrap_or(0)
    }

    /// Sends to one stream what its tenure is owed, up to about `room` bytes. True when something is left to send.
    ///
    /// A Want that waits for the interval, the watermark or the store is tried again only here: call it with each
    /// heartbeat too, whatever it answered last.
    pub fn pump(
        &mut self,
        stream: StreamId,
        room: usize,
        rows: &dyn Rows,
        now_ms: u64,
        send: &mut dyn FnMut(ToNode),
    ) -> bool {
        let Some(term) = self.term else { return false };
        let Some(Some(tenure)) = self.streams.get_mut(&stream) else { return false };
        let view = tenure::View {
            partition: self.partition,
            term,
            epoch: self.epoch,
            stream,
            h: self.h,
            ring: &self.ring,
            ring_floor: self.ring_floor,
            rows,
            now_ms,
            age_ms: now_ms.saturating_sub(self.fresh_at_ms),
        };
        let before = tenure.s;
        let more = tenure.pump(&view, room, send, &mut self.out);
        debug_assert!(tenure.s >= before, "S only rises");
        more
    }

    /// Sends a Mark to each tenure: its send pointer, if it moved or `heartbeat` is due. A driver may drop one for want
    /// of room: the next heartbeat makes up for it.
    pub fn mark(&mut self, heartbeat: bool, now_ms: u64, send: &mut dyn FnMut(StreamId, ToNode)) {
        let Some(term) = self.term else { return };
        let age_ms = now_ms.saturating_sub(self.fresh_at_ms);
        for (stream, slot) in &mut self.streams {
            let Some(tenure) = slot else { continue };
            let Some(next) = tenure.due_mark(self.h, heartbeat) else { continue };
            send(*stream, ToNode::Mark { partition: self.partition, term, n: tenure.n, next, age_ms });
        }
    }

    /// The least offset that every attached node with an open tenure has acknowledged; H when there is none.
    #[must_use]
    pub fn acked(&self) -> Offset {
        self.streams.values().flatten().map(|tenure| tenure.acked).min().unwrap_or(self.h).min(self.h)
    }
}
