//! Growing the interval: upwards with the log, downwards with a backward load; and what retention takes meanwhile.
//!
//! One call is one batch. No key stands twice in a batch: rows that retention excludes at once are never written.

use std::collections::BTreeMap;

use fjall::OwnedWriteBatch;
use tidegate_eventlog::LogRecord;
use tidegate_vocab::{Channel, Offset, PartitionId};

use crate::codec::{self, ChannelMeta, PartitionState};
use crate::{HistoryError, HistoryStore, Retention, lock};

/// Rows that one write may delete in one channel beyond those it adds; `sweep` does the rest.
const EVICT_ROWS_LIMIT: usize = 256;

/// What retention leaves of a channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) rows: usize,
    /// Rows older than this go.
    pub(crate) cutoff_ms: u64,
    /// Rows below this are already invisible.
    pub(crate) visible_from: u64,
}

impl Bound {
    pub(crate) fn new(retention: Retention, state: &PartitionState, meta: &ChannelMeta) -> Self {
        Self {
            rows: retention.rows as usize,
            cutoff_ms: retention.cutoff_ms(state),
            visible_from: state.interval.floor.0.max(meta.evicted),
        }
    }

    /// True when a channel has a row that has to go.
    pub(crate) fn excludes_some_of(&self, meta: &ChannelMeta) -> bool {
        meta.count > 0
            && (meta.count as usize > self.rows
                || meta.first_ms < self.cutoff_ms
                || meta.first < self.visible_from)
    }
}

impl HistoryStore {
    /// Moves H to `new_h` with the rows in between, given in the order of their offsets. Offsets without a row are
    /// records that are no events. Atomic: after a crash H and the rows agree.
    ///
    /// # Errors
    /// Refuses an H that does not rise and rows outside [H, new H), out of order, or whose key is not the channel.
    pub fn apply(
        &self,
        partition: PartitionId,
        rows: &[(Channel, LogRecord)],
        new_h: Offset,
    ) -> Result<(), HistoryError> {
        let slot = self.slot(partition);
        let mut state = lock(&slot);
        let mut grown = state.ok_or(HistoryError::NoInterval)?;
        if new_h <= grown.interval.h {
            return Err(HistoryError::misuse("H rises"));
        }
        check_rows(rows, grown.interval.h, new_h)?;
        grown.interval.h = new_h;
        grown.newest_ms = grown.newest_ms.max(newest(rows));
        let mut batch = self.database.batch();
        for (channel, fresh) in by_channel(rows) {
            if let Some(retention) = self.retention_of(channel) {
                self.append_rows(&mut batch, partition, &grown, channel, &fresh, retention)?;
            }
        }
        batch.insert(&self.meta, codec::interval_key(partition), codec::interval_value(&grown));
        batch.commit()?;
        debug_assert!(grown.interval.floor <= grown.interval.h);
        *state = Some(grown);
        Ok(())
    }

    /// Moves the floor down to `new_floor` with all rows of [new floor, floor), in the order of their offsets. Never
    /// brings back what the channel's retention excludes, and remembers as evicted what it left out. Atomic.
    ///
    /// # Errors
    /// Refuses a floor that does not fall and rows outside [new floor, floor), out of order, or of another key.
    pub fn extend_floor(
        &self,
        partition: PartitionId,
        rows: &[(Channel, LogRecord)],
        new_floor: Offset,
    ) -> Result<(), HistoryError> {
        let slot = self.slot(partition);
        let mut state = lock(&slot);
        let mut grown = state.ok_or(HistoryError::NoInterval)?;
        if new_floor >= grown.interval.floor {
            return Err(HistoryError::misuse("the floor falls"));
        }
        check_rows(rows, new_floor, grown.interval.floor)?;
        grown.interval.floor = new_floor;
        grown.newest_ms = grown.newest_ms.max(newest(rows));
        let mut batch = self.database.batch();
        for (channel, older) in by_channel(rows) {
            if let Some(retention) = self.retention_of(channel) {
                self.prepend_rows(&mut batch, partition, &grown, channel, &older, retention)?;
            }
        }
        batch.insert(&self.meta, codec::interval_key(partition), codec::interval_value(&grown));
        batch.commit()?;
        *state = Some(grown);
        Ok(())
    }

    /// Adds rows behind all others of the channel and evicts from its front.
    fn append_rows(
        &self,
        batch: &mut OwnedWriteBatch,
        partition: PartitionId,
        state: &PartitionState,
        channel: &Channel,
        fresh: &[&LogRecord],
        retention: Retention,
    ) -> Result<(), HistoryError> {
        let mut meta = self.channel_meta(partition, state.generation, channel)?.unwrap_or_default();
        let (dropped, kept) =
            fresh.split_at(excluded(fresh, retention.rows as usize, retention.cutoff_ms(state)));
        if let Some(last_dropped) = dropped.last() {
            // Then all rows before them go as well.
            meta.evicted = meta.evicted.max(last_dropped.offset.next().0);
        }
        let bound = Bound::new(retention, state, &meta);
        let prefix = codec::row_prefix(partition, state.generation, channel.as_str().as_bytes());
        self.evict(batch, &prefix, &mut meta, bound, kept.len(), EVICT_ROWS_LIMIT)?;
        for row in kept {
            batch.insert(
                &self.rows,
                codec::row_key(&prefix, row.offset.0),
                codec::row_value(row.time_ms, &row.value),
            );
        }
        if meta.count == 0
            && let Some(first) = kept.first()
        {
            (meta.first, meta.first_ms) = (first.offset.0, first.time_ms);
        }
        meta.count += kept.len() as u32;
        self.put_channel_meta(batch, partition, state.generation, channel, &meta);
        Ok(())
    }

    /// Adds rows before all others of the channel as far as there is room.
    fn prepend_rows(
        &self,
        batch: &mut OwnedWriteBatch,
        partition: PartitionId,
        state: &PartitionState,
        channel: &Channel,
        older: &[&LogRecord],
        retention: Retention,
    ) -> Result<(), HistoryError> {
        let mut meta = self.channel_meta(partition, state.generation, channel)?.unwrap_or_default();
        let above_evicted = older.partition_point(|row| row.offset.0 < meta.evicted);
        let older = &older[above_evicted..];
        let room = (retention.rows as usize).saturating_sub(meta.count as usize);
        let (dropped, kept) = older.split_at(excluded(older, room, retention.cutoff_ms(state)));
        if let Some(last_dropped) = dropped.last() {
            meta.evicted = meta.evicted.max(last_dropped.offset.next().0);
        }
        let prefix = codec::row_prefix(partition, state.generation, channel.as_str().as_bytes());
        for row in kept {
            batch.insert(
                &self.rows,
                codec::row_key(&prefix, row.offset.0),
                codec::row_value(row.time_ms, &row.value),
            );
        }
        if let Some(first) = kept.first() {
            (meta.first, meta.first_ms) = (first.offset.0, first.time_ms);
        }
        meta.count += kept.len() as u32;
        if !dropped.is_empty() || !kept.is_empty() {
            self.put_channel_meta(batch, partition, state.generation, channel, &meta);
        }
        Ok(())
    }

    /// Deletes from the channel's front what the bound excludes once `incoming` rows are added; at most `limit` rows
    /// beyond as many as come in. Leaves `meta` as it is after the deletions.
    pub(crate) fn evict(
        &self,
        batch: &mut OwnedWriteBatch,
        prefix: &[u8],
        meta: &mut ChannelMeta,
        bound: Bound,
        incoming: usize,
        limit: usize,
    ) -> Result<usize, HistoryError> {
        let after = |meta: &ChannelMeta| ChannelMeta { count: meta.count + incoming as u32, ..*meta };
        let mut deleted = 0;
        if meta.count == 0 || !bound.excludes_some_of(&after(meta)) {
            return Ok(0);
        }
        let keys = codec::row_key(prefix, meta.first)..=codec::row_key(prefix, u64::MAX);
        for guard in self.rows.range(keys) {
            let (key, stored) = guard.into_inner()?;
            (meta.first, meta.first_ms) = (codec::row_offset(&key)?, codec::row_time(&stored)?);
            if deleted >= limit + incoming || !bound.excludes_some_of(&after(meta)) {
                return Ok(deleted);
            }
            batch.remove(&self.rows, key);
            meta.count = meta.count.saturating_sub(1);
            meta.evicted = meta.evicted.max(meta.first + 1);
            deleted += 1;
        }
        debug_assert_eq!(meta.count, 0, "invariant: a channel's count is the number of its rows");
        meta.count = 0;
        Ok(deleted)
    }

    pub(crate) fn channel_meta(
        &self,
        partition: PartitionId,
        generation: u64,
        channel: &Channel,
    ) -> Result<Option<ChannelMeta>, HistoryError> {
        let key = codec::channel_key(partition, generation, channel.as_str().as_bytes());
        Ok(self.meta.get(key)?.map(|stored| codec::channel_meta(&stored)).transpose()?)
    }

    pub(crate) fn put_channel_meta(
        &self,
        batch: &mut OwnedWriteBatch,
        partition: PartitionId,
        generation: u64,
        channel: &Channel,
        meta: &ChannelMeta,
    ) {
        let key = codec::channel_key(partition, generation, channel.as_str().as_bytes());
        batch.insert(&self.meta, key, codec::channel_value(meta));
    }
}

/// How many rows at the front do not fit: too many for `room`, or older than the cutoff.
fn excluded(rows: &[&LogRecord], room: usize, cutoff_ms: u64) -> usize {
    let too_old = rows.iter().take_while(|row| row.time_ms < cutoff_ms).count();
    rows.len().saturating_sub(room).max(too_old)
}

fn newest(rows: &[(Channel, LogRecord)]) -> u64 {
    rows.last().map_or(0, |(_, row)| row.time_ms)
}

fn by_channel(rows: &[(Channel, LogRecord)]) -> BTreeMap<&Channel, Vec<&LogRecord>> {
    let mut channels: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (channel, row) in rows {
        channels.entry(channel).or_default().push(row);
    }
    channels
}

fn check_rows(rows: &[(Channel, LogRecord)], from: Offset, upto: Offset) -> Result<(), HistoryError> {
    let mut next = from;
    for (channel, row) in rows {
        if row.offset < next || row.offset >= upto {
            return Err(HistoryError::misuse("rows rise and lie in the range that is added"));
        }
        if row.key != channel.as_str().as_bytes() {
            return Err(HistoryError::misuse("the key of a row is its channel"));
        }
        next = row.offset.next();
    }
    Ok(())
}
