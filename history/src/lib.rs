//! The history of each partition: an interval [floor, H) of rows by channel, in the embedded store.
//!
//! H is written in the same batch as the rows, so a crash never leaves a hole below H. What was evicted is remembered
//! per channel, so an answer is complete or says that it is not.
//!
//! Invariants, per partition: floor <= H, both of one log epoch; every row of a channel in
//! [max(floor, evicted), H) is stored and none below is shown; `evicted` never falls, but is forgotten once the log
//! itself no longer has what it speaks of. Age is measured from the partition's newest record, never by a clock.
//!
//! Calls are synchronous and bounded by what is passed to them. Nothing is synced: the log is the truth, H says from
//! where to read it again. A call that writes waits for the store's journal, so next to a log in the same store it
//! can wait for that log's sync: make it where waiting some milliseconds is allowed. Writes to one partition come
//! from one task; `sweep` may run beside it. Does not know what a row means, and starts no thread.

mod codec;
mod read;
mod sweep;
#[cfg(test)]
mod tests;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use fjall::{Database, Keyspace, PersistMode};
use tidegate_eventlog::store;
use tidegate_vocab::{Channel, LogEpoch, Offset, PartitionId};

use crate::codec::{Malformed, PartitionState};
pub use crate::read::{Rows, TailStart};
pub use crate::sweep::Swept;

/// The format this version reads and writes.
const FORMAT: u64 = 1;
const FORMAT_KEY: &[u8] = &[0, 0];
const SCOPE_KEY: &[u8] = &[0, 1];
const GENERATION_KEY: &[u8] = &[0, 2];

/// How much history a namespace keeps; a row goes when either bound excludes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Rows per channel; 0 keeps no history.
    pub rows: u32,
    /// Milliseconds before the partition's newest record.
    pub age_ms: u64,
}

impl Retention {
    /// No history.
    pub const NONE: Self = Self { rows: 0, age_ms: 0 };

    /// Rows older than this are past their age.
    fn cutoff_ms(self, state: &PartitionState) -> u64 {
        state.newest_ms.saturating_sub(self.age_ms)
    }
}

/// The retention of a channel namespace ("" is the one of channels without).
pub type RetentionOf = Arc<dyn Fn(&str) -> Retention + Send + Sync>;

/// What the history needs to know.
#[derive(Clone)]
pub struct HistoryOptions {
    /// Looked up by namespace at every write: quick, and the same answer until the next start.
    pub retention: RetentionOf,
    /// A digest of which namespaces keep history at all. When it differs from the last start's, all intervals are
    /// dropped and loaded again from the log: rows of a namespace that kept none were never stored, and an interval
    /// built then would pass for complete. Other changes of retention need no new digest.
    pub scope: u64,
}

impl HistoryOptions {
    /// One retention for all namespaces.
    #[must_use]
    pub fn same(retention: Retention) -> Self {
        Self {
            retention: Arc::new(move |_| retention),
            scope: u64::from(retention.rows > 0 && retention.age_ms > 0),
        }
    }
}

/// What the store holds of a partition: all that retention leaves of [floor, h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// The log that the offsets belong to.
    pub epoch: LogEpoch,
    /// The first offset that was loaded.
    pub floor: Offset,
    /// Next to process.
    pub h: Offset,
}

/// Why the history did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory was written by a version with another format.
    #[error(
        "history has format {found} and this version knows {known}: run the version that wrote it, or delete it: it is loaded again from the log"
    )]
    Format {
        /// What the directory has.
        found: u64,
        /// What we know.
        known: u64,
    },
    /// Something that we wrote does not read back.
    #[error("history is damaged: delete it: it is loaded again from the log")]
    Damaged,
    /// The store refused.
    #[error("store could not be used: {0}")]
    Store(#[from] fjall::Error),
}

/// Why a call was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The partition has no interval: `reset` starts one.
    #[error("partition has no interval")]
    NoInterval,
    /// The caller broke a rule; a fault of ours.
    #[error("call breaks a rule of the history: {rule}")]
    Misuse {
        /// Which rule.
        rule: &'static str,
    },
    /// Something that we wrote does not read back.
    #[error("stored history is malformed")]
    Damaged,
    /// The store refused; after a failed write it refuses all writes until the process starts anew.
    #[error("store could not be used: {0}")]
    Store(#[from] fjall::Error),
}

impl From<Malformed> for HistoryError {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

impl HistoryError {
    /// An error in production, a panic under test.
    fn misuse(rule: &'static str) -> Self {
        debug_assert!(false, "invariant: {rule}");
        tracing::error!(rule, "history was called against its rules");
        Self::Misuse { rule }
    }
}

/// One partition's state: None until its first `reset`.
type Slot = Arc<Mutex<Option<PartitionState>>>;

/// The history of all partitions of this process.
pub struct HistoryStore {
    database: Database,
    rows: Keyspace,
    meta: Keyspace,
    retention: RetentionOf,
    /// A partition's writes are serialised by its lock, and what is read under it belongs together.
    partitions: RwLock<HashMap<PartitionId, Slot>>,
    /// The last generation given: one count for all partitions, so that none is ever given again.
    generation: Mutex<u64>,
    sweep_cursor: Mutex<Vec<u8>>,
}

impl HistoryStore {
    /// Opens the history in `database`.
    ///
    /// # Errors
    /// Refuses another format.
    pub fn open(database: Database, options: HistoryOptions) -> Result<Self, OpenError> {
        let rows = store::open_keyspace(&database, "history_rows")?;
        let meta = store::open_keyspace(&database, "history_meta")?;
        check_format(&database, &meta)?;
        check_scope(&database, &meta, options.scope)?;
        let generation = stored_u64(&meta, GENERATION_KEY)?.unwrap_or(0);
        let mut partitions = HashMap::new();
        for guard in meta.prefix(codec::all_intervals()) {
            let (key, value) = guard.into_inner()?;
            let partition = codec::interval_partition(&key).map_err(|_| OpenError::Damaged)?;
            let state = codec::partition_state(&value).map_err(|_| OpenError::Damaged)?;
            partitions.insert(partition, Arc::new(Mutex::new(Some(state))));
        }
        Ok(Self {
            database,
            rows,
            meta,
            retention: options.retention,
            partitions: RwLock::new(partitions),
            generation: Mutex::new(generation),
            sweep_cursor: Mutex::default(),
        })
    }

    /// What is held of the partition; none before its first [`HistoryStore::reset`].
    pub fn interval(&self, partition: PartitionId) -> Option<Interval> {
        lock(&self.slot(partition)).map(|state| state.interval)
    }

    /// Forgets all rows of the partition and starts the interval [at, at). Takes no longer for many rows than for
    /// few: they become invisible at once and [`HistoryStore::sweep`] deletes them.
    ///
    /// # Errors
    /// Only the store's.
    pub fn reset(&self, partition: PartitionId, epoch: LogEpoch, at: Offset) -> Result<(), HistoryError> {
        let slot = self.slot(partition);
        let mut state = lock(&slot);
        let mut last_generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = *last_generation + 1;
        let interval = Interval { epoch, floor: at, h: at };
        let fresh = PartitionState { interval, generation, newest_ms: 0 };
        let mut batch = self.database.batch();
        batch.insert(&self.meta, GENERATION_KEY, generation.to_be_bytes());
        batch.insert(&self.meta, codec::interval_key(partition), codec::interval_value(&fresh));
        batch.commit()?;
        *last_generation = generation;
        *state = Some(fresh);
        Ok(())
    }

    /// Raises the floor to the log's start: what lies below, and what was evicted there, is gone for everybody.
    ///
    /// # Errors
    /// When there is no interval, or the store's.
    pub fn forget_below(&self, partition: PartitionId, log_start: Offset) -> Result<(), HistoryError> {
        let slot = self.slot(partition);
        let mut state = lock(&slot);
        let mut raised = state.ok_or(HistoryError::NoInterval)?;
        let floor = log_start.min(raised.interval.h);
        if floor <= raised.interval.floor {
            return Ok(());
        }
        raised.interval.floor = floor;
        let mut batch = self.database.batch();
        batch.insert(&self.meta, codec::interval_key(partition), codec::interval_value(&raised));
        batch.commit()?;
        *state = Some(raised);
        Ok(())
    }

    fn slot(&self, partition: PartitionId) -> Slot {
        let known = self.partitions.read().unwrap_or_else(PoisonError::into_inner).get(&partition).cloned();
        known.unwrap_or_else(|| {
            let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(partitions.entry(partition).or_default())
        })
    }

    /// The retention of the channel; none when it keeps no history.
    fn retention_of(&self, channel: &Channel) -> Option<Retention> {
        Some((self.retention)(channel.namespace()))
            .filter(|retention| retention.rows > 0 && retention.age_ms > 0)
    }
}

fn check_format(database: &Database, meta: &Keyspace) -> Result<(), OpenError> {
    let Some(found) = stored_u64(meta, FORMAT_KEY)? else {
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(meta, FORMAT_KEY, FORMAT.to_be_bytes());
        return Ok(batch.commit()?);
    };
    if found == FORMAT { Ok(()) } else { Err(OpenError::Format { found, known: FORMAT }) }
}

fn check_scope(database: &Database, meta: &Keyspace, scope: u64) -> Result<(), OpenError> {
    let stored = stored_u64(meta, SCOPE_KEY)?;
    if stored == Some(scope) {
        return Ok(());
    }
    let mut batch = database.batch();
    batch.insert(meta, SCOPE_KEY, scope.to_be_bytes());
    if stored.is_some() {
        tracing::warn!("other namespaces keep history than before: loading all history again from the log");
        for guard in meta.prefix(codec::all_intervals()) {
            batch.remove(meta, guard.key()?);
        }
    }
    Ok(batch.commit()?)
}

fn stored_u64(meta: &Keyspace, key: &[u8]) -> Result<Option<u64>, OpenError> {
    let Some(stored) = meta.get(key)? else { return Ok(None) };
    stored.as_ref().try_into().map(|bytes| Some(u64::from_be_bytes(bytes))).map_err(|_| OpenError::Damaged)
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<PartitionState>> {
    // The state is replaced in one step after the store took it: a panic elsewhere leaves it whole.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
