//! Readings of the rules that lose events or stall, planted between the machines and in the model's own shards.

use std::collections::VecDeque;

use tidegate_tenure::{Nonce, Owner, Record, StreamId, ToNode, ToRouter, WantFrom};
use tidegate_vocab::{Channel, Offset};

use crate::checks::{Session, address};
use crate::client::Sub;
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
    /// A node ignores an `Owned` of a term that it has heard.
    IgnoreEqualTerm,
    /// A Resume says "from now" instead of the least position.
    ResumeFromHead,
    /// A Resume lists the pending channels too, and they count as established.
    ResumeFoldsPending,
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
    /// A cursor above H is judged by H, not by a high watermark.
    WatermarkIsOwnH,
}

/// The misreading of this run, and what it must remember.
#[derive(Debug)]
pub(crate) struct Planted {
    pub(crate) mutant: Option<Mutant>,
}

impl Planted {
    pub(crate) fn new(mutant: Option<Mutant>) -> Self {
        Self { mutant }
    }

    pub(crate) fn landed(&mut self, _router: usize, _nonce: Nonce, _offset: u64) {}

    pub(crate) fn consumed(
        &mut self,
        _r: usize,
        _rec: &Rec,
        record: Record,
        _offset: u64,
        _owner: &mut Owner,
    ) -> Record {
        record
    }

    pub(crate) fn up(&mut self, _r: usize, frame: ToRouter) -> ToRouter {
        frame
    }

    pub(crate) fn push_down(&mut self, _r: usize, _h: u64, down: &mut VecDeque<ToNode>, frame: ToNode) {
        down.push_back(frame);
    }

    pub(crate) fn down(
        &mut self,
        stream: StreamId,
        frame: ToNode,
        session: Option<Session>,
    ) -> Vec<(StreamId, ToNode)> {
        let _ = (address(stream, &frame), session);
        vec![(stream, frame)]
    }

    pub(crate) fn push_up(&mut self, up: &mut VecDeque<ToRouter>, frame: ToRouter) {
        up.push_back(frame);
    }

    pub(crate) fn sent_up(&mut self, _down: &mut VecDeque<ToNode>, _up: &VecDeque<ToRouter>, _h: u64) {}

    pub(crate) fn dedupe_below(&self, shard_next: u64) -> u64 {
        if self.mutant == Some(Mutant::DedupeByPartition) { shard_next } else { 0 }
    }
}

impl World {
    pub(crate) fn plant_local_join(
        &mut self,
        _g: usize,
        _channel: &Channel,
        _from: WantFrom,
        _sub: &mut Sub,
        _c: usize,
        _index: usize,
    ) {
        let _ = Offset(0);
    }

    pub(crate) fn plant_mark_to_pending(&mut self, _g: usize, _next: u64) {}
}
