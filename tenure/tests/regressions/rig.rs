//! One owner with one stream, and a store that says what the test wants.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_tenure::{
    Chunk, Nonce, Outcome, Owner, OwnerOut, Record, Rows, RowsError, StreamId, ToNode, ToRouter, WantFrom,
    WantId,
};
use tidegate_vocab::{Channel, Event, EventName, LogEpoch, Offset, PartitionId, Payload, Term, Topic};

pub(crate) const PARTITION: PartitionId = PartitionId { topic: Topic::Events, number: 0 };
pub(crate) const EPOCH: LogEpoch = LogEpoch(7);
pub(crate) const OTHER_EPOCH: LogEpoch = LogEpoch(8);
pub(crate) const CHANNEL: &str = "c";
const TERM: Term = Term(1);

pub(crate) fn channel() -> Channel {
    Channel::parse(CHANNEL).expect("valid")
}

pub(crate) fn event(offset: u64) -> Arc<Event> {
    Arc::new(Event {
        channel: channel(),
        name: EventName::MESSAGE,
        payload: Payload::Json(Bytes::from_static(b"{}")),
        time_ms: 0,
        offset: Some(Offset(offset)),
        expires_ms: None,
        trace: None,
    })
}

pub(crate) fn next(offset: u64) -> WantFrom {
    WantFrom::Next { epoch: EPOCH, offset: Offset(offset) }
}

pub(crate) fn owned(term: u64) -> ToNode {
    owned_by(term, EPOCH)
}

pub(crate) fn owned_by(term: u64, epoch: LogEpoch) -> ToNode {
    ToNode::Owned { partition: PARTITION, term: Term(term), epoch, floor: Offset(0) }
}

/// Each Want that was answered to its end: its id, what it turned out to be, and upto.
pub(crate) fn ends_of(frames: &[ToNode]) -> Vec<(u64, Outcome, u64)> {
    let end = |frame: &ToNode| match frame {
        ToNode::HistoryEnd { want, outcome, upto, .. } => Some((want.0, *outcome, upto.0)),
        _ => None,
    };
    frames.iter().filter_map(end).collect()
}

/// A store that says what it is told to say.
#[derive(Debug, Default)]
pub(crate) struct SaidRows {
    pub(crate) floor: u64,
    pub(crate) evicted: u64,
    pub(crate) rows: Vec<Arc<Event>>,
    pub(crate) stalled: bool,
    pub(crate) reads: Cell<u64>,
}

impl Rows for SaidRows {
    fn floor(&self) -> Offset {
        Offset(self.floor)
    }

    fn log_start(&self) -> Offset {
        Offset(0)
    }

    fn evicted(&self, _: &Channel) -> Result<Offset, RowsError> {
        self.reads.set(self.reads.get() + 1);
        Ok(Offset(self.evicted))
    }

    fn read(&self, _: &Channel, _: Offset, _: Offset) -> Result<Chunk, RowsError> {
        Ok((self.rows.clone(), !self.stalled))
    }

    fn first_of_last(&self, _: &Channel, _: u32, _: Offset) -> Result<Offset, RowsError> {
        Ok(self.floor())
    }

    fn first_since(&self, _: &Channel, _: u64, _: Offset) -> Result<Offset, RowsError> {
        Ok(self.floor())
    }
}

/// An owner that serves in term 1, with one node attached.
pub(crate) struct Rig {
    pub(crate) owner: Owner,
    pub(crate) rows: SaidRows,
    pub(crate) stream: StreamId,
    pub(crate) room: usize,
    pub(crate) now_ms: u64,
    n: u64,
}

impl Rig {
    pub(crate) fn serving(ring_bytes_limit: usize) -> Self {
        let mut owner = Owner::new(PARTITION, EPOCH, Offset(0)).with_ring_bytes_limit(ring_bytes_limit);
        let stream = StreamId(1);
        owner.attached(stream, Offset(0));
        owner.assigned(Nonce(1));
        owner.consumed(Offset(0), Record::Takeover(Nonce(1)), Offset(0));
        owner.take_out();
        Self { owner, rows: SaidRows::default(), stream, room: 1 << 20, now_ms: 1_000, n: 0 }
    }

    pub(crate) fn consume(&mut self, record: Record) {
        self.owner.consumed(self.owner.h(), record, Offset(0));
    }

    pub(crate) fn resume(&mut self, n: u64, from: Option<u64>, channels: &[&str]) {
        self.n = n;
        let channels = channels.iter().map(|name| Channel::parse(name).expect("valid")).collect();
        let from = from.map(Offset);
        self.hear(ToRouter::Resume { partition: PARTITION, term: TERM, n, from, channels });
    }

    pub(crate) fn want(&mut self, number: u64, want: u64, from: WantFrom) {
        let (n, want) = (self.n, WantId(want));
        self.hear(ToRouter::Want {
            partition: PARTITION,
            term: TERM,
            n,
            number,
            want,
            channel: channel(),
            from,
        });
    }

    pub(crate) fn unwant(&mut self, number: u64) {
        let n = self.n;
        self.hear(ToRouter::Unwant { partition: PARTITION, term: TERM, n, number, channel: channel() });
    }

    pub(crate) fn cancel(&mut self, want: u64) {
        self.cancel_in(self.n, want);
    }

    pub(crate) fn cancel_in(&mut self, n: u64, want: u64) {
        self.hear(ToRouter::Cancel { partition: PARTITION, term: TERM, n, want: WantId(want) });
    }

    pub(crate) fn ack(&mut self, next: u64, number: u64, held: u64, held_xor: u64) {
        let (n, next) = (self.n, Offset(next));
        self.hear(ToRouter::Ack { partition: PARTITION, term: TERM, n, next, number, held, held_xor });
    }

    fn hear(&mut self, frame: ToRouter) {
        self.owner.on_frame(self.stream, frame, Offset(0));
    }

    pub(crate) fn pump(&mut self) -> Vec<ToNode> {
        let mut frames = Vec::new();
        self.owner.pump(self.stream, self.room, &self.rows, self.now_ms, &mut |frame| frames.push(frame));
        frames
    }

    /// The Wants that one pump answered to the end.
    pub(crate) fn ends(&mut self) -> Vec<(u64, Outcome, u64)> {
        ends_of(&self.pump())
    }

    pub(crate) fn mark(&mut self) -> Vec<u64> {
        let mut marks = Vec::new();
        self.owner.mark(true, self.now_ms, &mut |_, frame| {
            if let ToNode::Mark { next, .. } = frame {
                marks.push(next.0);
            }
        });
        marks
    }

    pub(crate) fn take_out(&mut self) -> Vec<OwnerOut> {
        self.owner.take_out()
    }
}
