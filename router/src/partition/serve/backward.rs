//! The backward load beside the live partition: one chunk at a time, never while the store takes a live batch.

use std::sync::Arc;
use std::time::Duration;

use tidegate_eventlog::ReadError;
use tidegate_vocab::Offset;

use super::super::backfill::{Backfill, Chunk};
use super::super::replay::ReplayError;
use super::super::{End, jobs};
use super::jobs::Done;
use super::{RETRY_PAUSE, Serving};

/// Bytes a second of one partition's backward load: live events come first.
const BYTES_PER_SECOND: u64 = 16 * 1024 * 1024;
/// Pause between two chunks even when they are small.
const PAUSE_MIN: Duration = Duration::from_millis(2);

/// Where the backward load stands.
#[derive(Default)]
pub(super) struct Backward {
    /// A chunk that waits for the store, and the load that goes on behind it.
    ready: Option<(Backfill, Chunk)>,
    /// What goes on when the store has the chunk.
    behind: Option<(Backfill, usize)>,
    /// The store takes a chunk.
    pub(super) filling: bool,
}

impl Serving<'_> {
    /// Begins the load, if anything is to be loaded: asks first how far down.
    pub(super) fn begin_backward(&mut self) {
        if self.rows.floor > self.rows.log_start {
            self.jobs.push(jobs::horizon(Arc::clone(&self.task.context), self.task.id));
        }
    }

    pub(super) fn horizon_came(&mut self, horizon: Option<Offset>) {
        // Without an answer all of the log is loaded: more than is needed, never less.
        self.rows.log_start = self.rows.log_start.max(horizon.unwrap_or_default());
        self.next_chunk(Backfill::below(self.rows.floor));
    }

    pub(super) fn next_chunk(&mut self, backfill: Backfill) {
        let (floor, horizon) = (self.rows.floor, self.rows.log_start);
        if floor <= horizon {
            tracing::info!(partition = %self.task.id, %floor, h = %self.owner.h(), "history is loaded");
            return;
        }
        let context = Arc::clone(&self.task.context);
        self.jobs.push(jobs::chunk(context, self.task.id, backfill, floor, horizon));
    }

    pub(super) fn chunk_came(
        &mut self,
        backfill: Backfill,
        chunk: Result<Chunk, ReplayError>,
    ) -> Result<(), End> {
        match chunk {
            Ok(chunk) => {
                self.backward.ready = Some((backfill, chunk));
                self.fill();
            }
            Err(ReplayError::UnknownVersion(version)) => return Err(End::UnknownVersion(version)),
            // The log has forgotten what was to be loaded: what is left is loaded after another look.
            Err(ReplayError::Read(ReadError::BelowStart { start })) => {
                self.log_start(start);
                self.next_chunk(Backfill::below(self.rows.floor));
            }
            Err(error) => {
                tracing::warn!(partition = %self.task.id, %error, "backward load does not get on; trying again");
                self.task.context.metrics.log_errors.inc();
                self.jobs.push(jobs::after(RETRY_PAUSE, Done::NextChunk(backfill)));
            }
        }
        Ok(())
    }

    /// Hands a ready chunk to the store, unless that has a live batch or another write in hand.
    pub(super) fn fill(&mut self) {
        if self.applying || self.forgetting || self.backward.filling {
            return;
        }
        let Some((backfill, chunk)) = self.backward.ready.take() else { return };
        if chunk.new_floor >= self.rows.floor {
            return self.next_chunk(Backfill::below(self.rows.floor)); // Retention was faster.
        }
        self.backward.filling = true;
        self.backward.behind = Some((backfill, chunk.bytes));
        self.jobs.push(jobs::fill(Arc::clone(&self.task.context.store), self.task.id, chunk));
    }

    /// The store has the chunk, or refused it.
    pub(super) fn filled(&mut self, new_floor: Option<Offset>) {
        self.backward.filling = false;
        if let Some(floor) = new_floor {
            self.rows.floor = floor;
            self.task.context.metrics.backfilled.inc();
        } else {
            self.task.context.metrics.store_errors.inc();
        }
        if let Some((backfill, bytes)) = self.backward.behind.take() {
            let (backfill, pause) = match new_floor {
                Some(_) => {
                    let millis = bytes as u64 * 1_000 / BYTES_PER_SECOND;
                    (backfill, Duration::from_millis(millis).max(PAUSE_MIN))
                }
                None => (Backfill::below(self.rows.floor), RETRY_PAUSE),
            };
            self.jobs.push(jobs::after(pause, Done::NextChunk(backfill)));
        }
        if self.batch.is_some() {
            self.apply();
        }
    }
}
