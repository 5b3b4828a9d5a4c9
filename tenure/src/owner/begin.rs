//! What a Want turns out to be, and from where its answer starts.

use std::sync::Arc;

use tidegate_vocab::{Channel, LogEpoch, Offset, limits};

use super::answer::PendingWant;
use super::tenure::{Tenure, View};
use super::{Chunk, OwnerOut, Row, RowsError};
use crate::frame::{LostReason, Outcome, WantFrom};

/// Milliseconds after which an unanswered question for the high watermark is asked again.
const WATERMARK_RETRY_MS: u64 = 1_000;

/// Whether a high watermark has been seen that judges a `next` above H.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watermark {
    NotAsked,
    /// One that was asked for later than this will do; it is asked for again when none has come.
    Asked {
        at_ms: u64,
        again_ms: u64,
    },
    Seen(Offset),
}

impl View<'_> {
    /// From where on the ring has every row of the channel below `upto`: also of one that keeps no history (rule 10).
    pub(super) fn ring_complete_from(&self, channel: &Channel, upto: Offset) -> Offset {
        let is_dead = |row: &&Row| match row {
            Row::Event(_) => false,
            Row::DeadLetter { channel: dead, offset } => {
                *offset < upto && dead.as_ref().is_none_or(|dead| dead == channel)
            }
        };
        let last_dead = self.ring.iter().rev().find(is_dead);
        last_dead.map_or(self.ring_floor, |row| row.offset().next())
    }

    /// Rows of the channel in `[from, upto)` out of the ring, and whether that was all.
    pub(super) fn ring_chunk(&self, channel: &Channel, from: Offset, upto: Offset) -> Chunk {
        let start = self.ring.partition_point(|row| row.offset() < from);
        let mut rows =
            self.ring.range(start..).take_while(|row| row.offset() < upto).filter_map(|row| match row {
                Row::Event(event) if event.channel == *channel => Some(Arc::clone(event)),
                Row::Event(_) | Row::DeadLetter { .. } => None,
            });
        let chunk = rows.by_ref().take(limits::READ_ROWS_LIMIT).collect();
        (chunk, rows.next().is_none())
    }
}

impl Tenure {
    /// Decides what a Want is and from where it starts; `None` when that is not known yet.
    pub(super) fn begin(
        &self,
        pending: &mut PendingWant,
        view: &View<'_>,
        out: &mut Vec<OwnerOut>,
    ) -> Result<Option<(Offset, Outcome)>, RowsError> {
        if let WantFrom::Next { epoch, offset } = pending.from {
            return self.begin_next(pending, epoch, offset, view, out);
        }
        let channel = &pending.channel;
        let floor = view.rows.floor();
        let complete_from = floor.max(view.rows.evicted(channel)?);
        // Nothing that is still to be loaded below the interval could belong to the answer.
        let is_settled = floor <= view.rows.log_start() || complete_from > floor;
        let from = match pending.from {
            WantFrom::Last(count) => view.rows.first_of_last(channel, count, self.s)?,
            WantFrom::Since(time_ms) => view.rows.first_since(channel, time_ms, self.s)?,
            WantFrom::Start => Offset(0),
            WantFrom::Now | WantFrom::Next { .. } => return Ok(Some((self.s, Outcome::Fresh))),
        };
        // What was evicted at or above S still comes live.
        let from = from.max(complete_from).min(self.s);
        Ok((is_settled || from > floor).then_some((from, Outcome::Fresh)))
    }

    fn begin_next(
        &self,
        pending: &mut PendingWant,
        epoch: LogEpoch,
        offset: Offset,
        view: &View<'_>,
        out: &mut Vec<OwnerOut>,
    ) -> Result<Option<(Offset, Outcome)>, RowsError> {
        if epoch != view.epoch {
            return Ok(Some((self.s, Outcome::Lost(LostReason::Epoch))));
        }
        if offset > view.h {
            return Ok(above_h(pending, offset, view, out));
        }
        if offset >= self.s {
            return Ok(Some((offset, Outcome::Recovered))); // All of it comes live, whatever was evicted.
        }
        let (floor, log_start) = (view.rows.floor(), view.rows.log_start());
        if offset >= floor.max(view.rows.evicted(&pending.channel)?)
            || offset >= view.ring_complete_from(&pending.channel, self.s)
        {
            return Ok(Some((offset, Outcome::Recovered)));
        }
        let comes_back = offset < floor && offset >= log_start;
        Ok((!comes_back).then_some((self.s, Outcome::Lost(LostReason::Expired))))
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
