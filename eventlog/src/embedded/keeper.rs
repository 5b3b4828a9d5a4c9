//! The upkeep thread: forgets records past their retention in small batches, and notices a store that failed.
//!
//! Retention's clock is the newest record of the whole log, never the wall clock: a clock that jumps ahead while
//! nothing is written forgets nothing.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use fjall::{AbstractTree, PersistMode};

use super::codec;
use super::disk::Room;
use super::meta::{self, Bounds};
use super::shared::{Partition, Shared};

/// Between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// Records forgotten in one batch, so that an append never waits long behind one.
const TRIM_ROWS: u64 = 1000;
/// Batches in one round: 100,000 records a second, more than are written.
const TRIM_BATCHES: usize = 100;

/// What forgetting may take before it gives: the flush of what was written last.
const TRIM_BYTES: u64 = crate::store::TABLE_BYTES;

/// Rounds in a row in which room is made after something was forgotten, while the disk is full: the engine lets go of
/// files only some versions later. After those every [`FREE_EVERY`]th round tries once more.
const FREE_ROUNDS: u32 = 5;
const FREE_EVERY: u32 = 5;

/// Told to stop by whoever closes the log.
#[derive(Debug, Default)]
pub(super) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(super) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// True once stopped; waits up to `timeout` for that.
    fn wait(&self, timeout: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let (stopped, _) = self
            .changed
            .wait_timeout_while(stopped, timeout, |stopped| !*stopped)
            .unwrap_or_else(PoisonError::into_inner);
        *stopped
    }
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    stop: Arc<Stop>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, stop: Arc<Stop>) -> Self {
        Self { shared, stop }
    }

    pub(super) fn run(self) {
        while !self.stop.wait(ROUND_INTERVAL) {
            self.shared.upkeep();
        }
    }
}

/// How many batches may be forgotten in one round. The engine's background work may eat far into the reserve after
/// the last append, and then forgetting is the one thing that brings room back: in small steps, for it writes too.
fn batches_in(room: Room) -> usize {
    match room {
        Room::Enough | Room::Low(_) => TRIM_BATCHES,
        Room::Exhausted(free_bytes) => usize::from(free_bytes >= TRIM_BYTES),
    }
}

impl Shared {
    /// One round.
    pub(super) fn upkeep(&self) {
        if self.failure().is_some() {
            return;
        }
        // Costs nothing when all is well and is the only way to hear that background work has failed.
        if let Err(error) = self.database.persist(PersistMode::Buffer) {
            self.stop_writing(&error);
            return;
        }
        match self.trim() {
            Ok(false) => {}
            Ok(true) => self.short_rounds.store(0, Ordering::Relaxed),
            Err(error) => {
                self.stop_writing(&error);
                return;
            }
        }
        if self.check_room(0).is_ok() {
            self.short_rounds.store(0, Ordering::Relaxed);
        } else if self.forgot_anything() {
            let round = self.short_rounds.fetch_add(1, Ordering::Relaxed);
            if round < FREE_ROUNDS || round.is_multiple_of(FREE_EVERY) {
                self.free_room().unwrap_or_else(
                    |error| tracing::warn!(%error, "could not delete tables of forgotten records"),
                );
            }
        }
    }

    fn forgot_anything(&self) -> bool {
        self.partitions.iter().any(|partition| partition.start() > 0)
    }

    /// Forgets what has expired, in all partitions, as far as one round goes; true when there was something.
    fn trim(&self) -> fjall::Result<bool> {
        let mut trimmed = false;
        let mut batches = batches_in(self.gauge.room(0));
        for partition in &self.partitions {
            while batches > 0 {
                batches -= 1;
                let start = partition.start();
                let more = self.trim_step(partition)?;
                trimmed |= partition.start() > start;
                if !more {
                    break;
                }
            }
        }
        Ok(trimmed)
    }

    /// Deletes the tables that hold nothing but forgotten records, and has memtables flushed, which lets go of the
    /// files. Compaction would do both in time, but only writes drive it, and on a full disk there are none. What
    /// this brings back of deleted rows lies below the start.
    fn free_room(&self) -> fjall::Result<()> {
        for partition in &self.partitions {
            let forgotten =
                codec::record_key(partition.id, 0)..codec::record_key(partition.id, partition.start());
            self.records.tree.drop_range(forgotten)?;
        }
        // An empty memtable is not flushed: something has to be in one.
        self.meta.insert("upkeep", [])?;
        self.records.rotate_memtable()?;
        self.meta.rotate_memtable()?;
        Ok(())
    }

    /// Forgets up to [`TRIM_ROWS`] expired records of one partition; true when there may be more.
    fn trim_step(&self, partition: &Partition) -> fjall::Result<bool> {
        let cutoff_ms = self.newest_ms().saturating_sub(self.retention.of(partition.id.topic));
        let (start, end) = (partition.start(), partition.high_watermark());
        let time_at = |offset| self.time_at(partition.id, offset).ok().flatten();
        if start == end || time_at(start).is_none_or(|time_ms| time_ms >= cutoff_ms) {
            return Ok(false);
        }
        let Some(time_ms) = time_at(end - 1) else { return Ok(false) };
        let Ok(target) = self.offset_at(partition.id, cutoff_ms) else { return Ok(false) };
        let upto = target.0.min(start + TRIM_ROWS).min(end);
        // Readers must know before the first record goes.
        partition.raise_start(upto);
        let mut batch = self.database.batch();
        for offset in start..upto {
            batch.remove(&self.records, codec::record_key(partition.id, offset));
        }
        meta::put_bounds(&mut batch, &self.meta, partition.id, Bounds { start: upto, next: end, time_ms });
        batch.commit()?;
        tracing::debug!(partition = %partition.id, start = upto, "forgot records past their retention");
        Ok(upto < target.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nearly_full_disk_is_freed_in_small_steps_and_a_full_one_is_left_alone() {
        assert_eq!(batches_in(Room::Enough), TRIM_BATCHES);
        assert_eq!(batches_in(Room::Low(1)), TRIM_BATCHES);
        assert_eq!(batches_in(Room::Exhausted(TRIM_BYTES)), 1);
        assert_eq!(batches_in(Room::Exhausted(TRIM_BYTES - 1)), 0);
    }
}
