//! Out to the nodes: room, frames and their metrics.

use std::collections::HashMap;

use tidegate_link::DeliverSender;
use tidegate_tenure::{Owner, StreamId, ToNode};
use tidegate_vocab::Offset;

use super::replay::Replay;
use super::rows::StoredRows;
use crate::metrics::Metrics;

/// Bytes sent to one stream before the others have their turn.
const TURN_BYTES: usize = 256 * 1024;
/// Replays kept between two reads of slow tenures; each may hold a window of keys.
const REPLAYS_LIMIT: usize = 4;
/// A replay that nobody went on with for this long is forgotten.
const REPLAY_IDLE_MS: u64 = 5_000;

/// One node's stream, as one partition sees it.
pub(super) struct Stream {
    sender: DeliverSender,
    /// A job waits for room; nothing is sent before.
    full: bool,
    /// The first offset that was never sent on it.
    sent: Offset,
}

/// What became of a stream's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// All that is due was sent.
    Idle,
    /// There is more to send, and room.
    More,
    /// There is no room: wait for it.
    Full,
}

impl Stream {
    pub(super) fn new(sender: DeliverSender) -> Self {
        Self { sender, full: false, sent: Offset(0) }
    }

    pub(super) fn sender(&self) -> &DeliverSender {
        &self.sender
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn has_room(&self) -> bool {
        !self.full && self.sender.room() > 0
    }

    pub(super) fn room_came(&mut self) {
        self.full = false;
    }

    /// Sends one frame whatever the room: Owned, Ended, Lost and the like.
    pub(super) fn send(&mut self, frame: ToNode, metrics: &Metrics) {
        self.count(&frame, metrics);
        self.sender.push([frame]);
    }

    /// A Mark for a node that does not read is left out: the next one says more.
    pub(super) fn send_mark(&self, frame: ToNode) {
        if self.has_room() {
            self.sender.push([frame]);
        }
    }

    /// Sends what the tenure is owed, one turn's worth.
    pub(super) fn pump(
        &mut self,
        id: StreamId,
        owner: &mut Owner,
        rows: &StoredRows,
        now_ms: u64,
        metrics: &Metrics,
    ) -> Turn {
        if self.full || self.sender.is_closed() {
            return Turn::Idle;
        }
        let room = self.sender.room();
        if room == 0 {
            self.full = true;
            return Turn::Full;
        }
        let mut frames = Vec::new();
        let more = owner.pump(id, room.min(TURN_BYTES), rows, now_ms, &mut |frame| frames.push(frame));
        if !frames.is_empty() {
            frames.iter().for_each(|frame| self.count(frame, metrics));
            self.sender.push(frames);
        }
        if more { Turn::More } else { Turn::Idle }
    }

    fn count(&mut self, frame: &ToNode, metrics: &Metrics) {
        match frame {
            ToNode::Event { event, .. } => {
                metrics.pushes.inc();
                match event.offset {
                    Some(offset) if offset < self.sent => {}
                    Some(offset) => {
                        self.sent = offset.next();
                        metrics.events_wanted.inc();
                    }
                    None => metrics.events_wanted.inc(),
                }
            }
            ToNode::History { rows, .. } => metrics.history_rows.inc_by(rows.len() as u64),
            ToNode::Lost { .. } => metrics.lost.inc(),
            _ => {}
        }
    }
}

/// The replays of tenures behind the ring, kept so that each read does not need a lead-in of its own.
#[derive(Default)]
pub(super) struct Replays(HashMap<StreamId, (Replay, u64)>);

impl Replays {
    pub(super) fn take(&mut self, stream: StreamId) -> Option<Replay> {
        self.0.remove(&stream).map(|(replay, _)| replay)
    }

    pub(super) fn keep(&mut self, stream: StreamId, replay: Replay, now_ms: u64) {
        if self.0.len() < REPLAYS_LIMIT {
            self.0.insert(stream, (replay, now_ms));
        }
    }

    /// Forgets those that nobody went on with: the tenure has caught up or is gone.
    pub(super) fn forget_idle(&mut self, now_ms: u64) {
        self.0.retain(|_, (_, used_ms)| now_ms.saturating_sub(*used_ms) < REPLAY_IDLE_MS);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
