//! The backward load: a new owner begins near the log's end, and its history's floor goes down from there.
//!
//! Verdicts only run forwards, so a stretch is judged first, which leaves the offsets that are not delivered, and then
//! read again in chunks from its upper end downwards: each chunk is one batch of the store (TENURES, rules 3 and 14).

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_eventlog::LogRecord;
use tidegate_tenure::Verdict;
use tidegate_vocab::{Channel, Offset, PartitionId, limits};

use super::replay::{Replay, ReplayError, nothing_before};
use crate::context::Context;
use crate::record::{self, Reading};

/// Offsets that are judged at once: as many as a window has, so that reading the lead-in at most doubles the work.
const STRETCH_OFFSETS: u64 = limits::IDEMPOTENCY_WINDOW_OFFSETS;
/// Offsets of one chunk: what the store takes in one batch, and what is held in memory.
const CHUNK_OFFSETS: u64 = 1024;

/// How far a backward load has got.
#[derive(Debug, Default)]
pub(super) struct Backfill {
    /// What has been judged: from here on.
    judged_from: Offset,
    /// Offsets there that are repeats or conflicts.
    skipped: BTreeSet<Offset>,
}

/// Rows of `[new_floor, floor)`.
pub(super) struct Chunk {
    pub(super) rows: Arc<Vec<(Channel, LogRecord)>>,
    pub(super) new_floor: Offset,
    pub(super) bytes: usize,
}

impl Backfill {
    /// A load that goes down from `floor`.
    pub(super) fn below(floor: Offset) -> Self {
        Self { judged_from: floor, skipped: BTreeSet::new() }
    }

    /// Reads the chunk right below `floor`, not past `horizon`.
    pub(super) async fn chunk(
        &mut self,
        context: &Context,
        id: PartitionId,
        floor: Offset,
        horizon: Offset,
    ) -> Result<Chunk, ReplayError> {
        debug_assert!(horizon < floor);
        if self.judged_from >= floor {
            self.judge(context, id, floor, horizon).await?;
        }
        let new_floor = Offset(floor.0.saturating_sub(CHUNK_OFFSETS)).max(self.judged_from);
        let (mut rows, mut bytes, mut next) = (Vec::new(), 0, new_floor);
        while next < floor {
            let most = usize::try_from(floor.0 - next.0).unwrap_or(usize::MAX).min(limits::READ_ROWS_LIMIT);
            let records = context.log.read(id, next, most, limits::READ_BYTES_LIMIT).await?;
            let Some(last) = records.last() else {
                nothing_before(context, id, floor).await?;
                break;
            };
            next = last.offset.next();
            for record in records.into_iter().filter(|record| record.offset < floor) {
                if !self.skipped.contains(&record.offset)
                    && let Some(channel) = record::channel_here(&context.log.counts(), id, &record)
                {
                    bytes += record.value.len();
                    rows.push((channel, record));
                }
            }
        }
        Ok(Chunk { rows: Arc::new(rows), new_floor, bytes })
    }

    async fn judge(
        &mut self,
        context: &Context,
        id: PartitionId,
        floor: Offset,
        horizon: Offset,
    ) -> Result<(), ReplayError> {
        let from = Offset(floor.0.saturating_sub(STRETCH_OFFSETS)).max(horizon);
        let mut replay = Replay::open(context, id, from).await?;
        let mut skipped = BTreeSet::new();
        while replay.next < floor {
            for (offset, reading) in replay.read(context, floor).await? {
                match reading {
                    Reading::UnknownVersion(version) => return Err(ReplayError::UnknownVersion(version)),
                    Reading::Event(_, Verdict::Fresh) | Reading::DeadLetter(..) => {}
                    Reading::Event(..) | Reading::Takeover(_) => drop(skipped.insert(offset)),
                }
            }
        }
        (self.judged_from, self.skipped) = (from, skipped);
        Ok(())
    }
}
