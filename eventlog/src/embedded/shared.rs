//! What the writer, the readers and the keeper share.
//!
//! Invariants: per partition start <= high watermark, both rise only, and every record in between is in the
//! store, synced. The start is raised here before a record is deleted, so a reader that finds its offset at or
//! above the start after reading has read no hole.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace};
use tidegate_vocab::{LogEpoch, PartitionCounts, PartitionId, Topic};
use tokio::sync::watch;

use super::disk::{DiskGauge, Room};
use super::failure;
use super::meta::TopicMeta;
use super::{Clock, RetentionMs};
use crate::{AppendError, store};

/// A commit that takes longer than this is reported by `health`: the store's background work has died or stalls.
const COMMIT_STALL: Duration = Duration::from_secs(10);

/// How far consumers may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watermark {
    /// The offset after the last synced record.
    pub(super) next: u64,
    /// No record will follow: the log was closed.
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) id: PartitionId,
    start: AtomicU64,
    watermark: watch::Sender<Watermark>,
}

impl Partition {
    pub(super) fn new(id: PartitionId, start: u64, next: u64) -> Self {
        debug_assert!(start <= next);
        let (watermark, _) = watch::channel(Watermark { next, closed: false });
        Self { id, start: AtomicU64::new(start), watermark }
    }

    pub(super) fn start(&self) -> u64 {
        self.start.load(Ordering::SeqCst)
    }

    pub(super) fn high_watermark(&self) -> u64 {
        self.watermark.borrow().next
    }

    pub(super) fn watch(&self) -> watch::Receiver<Watermark> {
        self.watermark.subscribe()
    }

    pub(super) fn raise_start(&self, start: u64) {
        debug_assert!(start <= self.high_watermark());
        self.start.fetch_max(start, Ordering::SeqCst);
    }

    pub(super) fn raise_watermark(&self, next: u64) {
        self.watermark.send_modify(|watermark| {
            debug_assert!(watermark.next < next);
            watermark.next = next;
        });
    }

    pub(super) fn close(&self) {
        self.watermark.send_modify(|watermark| watermark.closed = true);
    }
}

pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) records: Keyspace,
    pub(super) meta: Keyspace,
    pub(super) counts: PartitionCounts,
    pub(super) topics: Vec<TopicMeta>,
    pub(super) epoch_salt: String,
    pub(super) retention: RetentionMs,
    pub(super) clock: Clock,
    pub(super) partitions: Vec<Partition>,
    pub(super) gauge: DiskGauge,
    /// Bytes that wait for the writer.
    pub(super) queued_bytes: AtomicUsize,
    /// Set once, for good: the store takes no more writes until the process starts anew.
    failure: Mutex<Option<AppendError>>,
    commit_since: Mutex<Option<Instant>>,
    /// The newest record's time over all partitions: retention's clock.
    newest_ms: AtomicU64,
    /// Upkeep rounds in a row that found too little room since one last forgot something.
    pub(super) short_rounds: AtomicU32,
}

impl Shared {
    pub(super) fn new(
        database: Database,
        records: Keyspace,
        meta: Keyspace,
        topics: Vec<TopicMeta>,
        partitions: Vec<Partition>,
        options: super::EmbeddedOptions,
        newest_ms: u64,
    ) -> Self {
        let gauge = DiskGauge::new(store::directory_of(&records).to_path_buf(), options.disk_reserve_bytes);
        Self {
            database,
            records,
            meta,
            counts: options.counts,
            topics,
            epoch_salt: options.epoch_salt,
            retention: options.retention,
            clock: options.clock,
            partitions,
            gauge,
            queued_bytes: AtomicUsize::new(0),
            failure: Mutex::new(None),
            commit_since: Mutex::new(None),
            newest_ms: AtomicU64::new(newest_ms),
            short_rounds: AtomicU32::new(0),
        }
    }

    /// Where the partition stands in `partitions`; none when the topic has no such number.
    pub(super) fn index(&self, partition: PartitionId) -> Option<usize> {
        if partition.number >= self.counts.of(partition.topic) {
            return None;
        }
        let before: u32 = Topic::ALL
            .into_iter()
            .take_while(|topic| *topic != partition.topic)
            .map(|topic| self.counts.of(topic))
            .sum();
        Some((before + partition.number) as usize)
    }

    pub(super) fn partition(&self, partition: PartitionId) -> Option<&Partition> {
        self.partitions.get(self.index(partition)?)
    }

    pub(super) fn epoch(&self, topic: Topic) -> LogEpoch {
        // invariant: `meta::open` answers for every topic in the order of their numbers
        let id = &self.topics[topic as usize].id;
        LogEpoch::derive(topic, id, self.counts.of(topic), &self.epoch_salt)
    }

    pub(super) fn failure(&self) -> Option<AppendError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refuses all further appends, since the store does; returns with what. The first failure stays: later ones
    /// are its consequences.
    pub(super) fn stop_writing(&self, error: &fjall::Error) -> AppendError {
        let lasting = failure::lasting(error, self.check_room(0).is_err());
        let mut slot = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert_with(|| {
            store::journal::mark_suspect(store::directory_of(&self.records));
            tracing::error!(failure = %lasting, "log takes no more records until the process is started anew");
            lasting
        })
        .clone()
    }

    pub(super) fn mark_commit(&self, running: bool) {
        *self.commit_since.lock().unwrap_or_else(PoisonError::into_inner) = running.then(Instant::now);
    }

    pub(super) fn newest_ms(&self) -> u64 {
        self.newest_ms.load(Ordering::Relaxed)
    }

    pub(super) fn note_time(&self, time_ms: u64) {
        self.newest_ms.fetch_max(time_ms, Ordering::Relaxed);
    }

    /// Refuses `bytes` when the file system is down to its reserve.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), AppendError> {
        match self.gauge.room(bytes) {
            Room::Enough => Ok(()),
            Room::Low(free) | Room::Exhausted(free) => Err(AppendError::Full {
                reason: format!(
                    "{free} bytes are free and {} are kept in reserve: free some space",
                    self.gauge.reserve_bytes()
                ),
            }),
        }
    }

    pub(super) fn health(&self) -> Result<(), AppendError> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let since = *self.commit_since.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waited) = since.map(|since| since.elapsed()).filter(|waited| *waited > COMMIT_STALL) {
            return Err(AppendError::Unavailable {
                reason: format!("a commit has not returned for {} s", waited.as_secs()),
            });
        }
        self.check_room(0)
    }
}
