//! Answers from the history. Each reads one snapshot of the store, so rows and what is said about them agree.

use fjall::{Readable, Snapshot};
use tidegate_eventlog::LogRecord;
use tidegate_vocab::{Channel, Offset, PartitionId};

use crate::codec::{self, ChannelMeta, PartitionState};
use crate::{HistoryError, HistoryStore, lock};

/// Rows of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// In order. The key of each is the channel's name.
    pub rows: Vec<LogRecord>,
    /// The answer is complete from here on, as of the same moment: max(floor, evicted).
    pub complete_from: Offset,
    /// Where to go on: the `upto` asked for (at most H) when all was read, else the offset after the last row.
    pub next: Offset,
}

/// Where the last rows of a channel begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailStart {
    /// A read from here yields them; the `upto` asked for when there are none.
    pub from: Offset,
    /// How many there are: fewer than asked for when the channel has no more within the interval.
    pub rows: usize,
}

/// One channel at one moment.
struct View {
    snapshot: Snapshot,
    state: PartitionState,
    meta: ChannelMeta,
    keeps_history: bool,
    prefix: Vec<u8>,
}

impl View {
    fn complete_from(&self) -> Offset {
        if self.keeps_history {
            self.state.interval.floor.max(Offset(self.meta.evicted))
        } else {
            self.state.interval.h
        }
    }

    /// The part of [from, upto) that can be answered, as keys; none when it is empty.
    fn keys(&self, from: Offset, upto: Offset) -> Option<std::ops::Range<Vec<u8>>> {
        let from = from.max(self.complete_from());
        let upto = upto.min(self.state.interval.h);
        (from < upto).then(|| codec::row_key(&self.prefix, from.0)..codec::row_key(&self.prefix, upto.0))
    }
}

impl HistoryStore {
    /// Rows of the channel in [from, upto), oldest first: at most `max_rows`, about `max_bytes` bytes, and at least
    /// one if there is one. Nothing outside [max(floor, evicted), H) is returned.
    ///
    /// # Errors
    /// When there is no interval, or the store's.
    pub fn read(
        &self,
        partition: PartitionId,
        channel: &Channel,
        from: Offset,
        upto: Offset,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Rows, HistoryError> {
        let view = self.view(partition, channel)?;
        let mut next = upto.min(view.state.interval.h);
        let mut rows: Vec<LogRecord> = Vec::new();
        let mut bytes = 0;
        let key = bytes::Bytes::copy_from_slice(channel.as_str().as_bytes());
        for guard in view.keys(from, upto).into_iter().flat_map(|keys| view.snapshot.range(&self.rows, keys))
        {
            if let Some(last) = rows.last().filter(|_| rows.len() >= max_rows.max(1) || bytes >= max_bytes) {
                next = last.offset.next();
                break;
            }
            let (row_key, stored) = guard.into_inner()?;
            let (time_ms, value) = codec::row(&stored)?;
            bytes += value.len();
            let offset = Offset(codec::row_offset(&row_key)?);
            rows.push(LogRecord { offset, time_ms, key: key.clone(), value, headers: vec![] });
        }
        Ok(Rows { rows, complete_from: view.complete_from(), next })
    }

    /// Where the last `count` rows of the channel below `upto` begin.
    ///
    /// # Errors
    /// When there is no interval, or the store's.
    pub fn first_of_last(
        &self,
        partition: PartitionId,
        channel: &Channel,
        count: usize,
        upto: Offset,
    ) -> Result<TailStart, HistoryError> {
        let view = self.view(partition, channel)?;
        let mut tail = TailStart { from: upto, rows: 0 };
        let Some(keys) = view.keys(Offset(0), upto) else { return Ok(tail) };
        for guard in view.snapshot.range(&self.rows, keys).rev().take(count) {
            tail.from = Offset(codec::row_offset(&guard.key()?)?);
            tail.rows += 1;
        }
        Ok(tail)
    }

    /// The offset of the channel's first row below `upto` that is not older than `time_ms`; `upto` when there is none.
    /// Times never fall within a partition, so this is a binary search: at most 64 seeks, however many rows.
    ///
    /// # Errors
    /// When there is no interval, or the store's.
    pub fn first_since(
        &self,
        partition: PartitionId,
        channel: &Channel,
        time_ms: u64,
        upto: Offset,
    ) -> Result<Offset, HistoryError> {
        let view = self.view(partition, channel)?;
        // The first row at or above `low` is the answer's lower bound; `high` is a row known to fit, or the end.
        let (mut low, mut high) = (view.complete_from().0, upto.0);
        let mut found = upto;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_row(&view, Offset(middle), Offset(high))? {
                Some((offset, row_ms)) if row_ms < time_ms => low = offset + 1,
                Some((offset, _)) => {
                    found = Offset(offset);
                    high = middle;
                }
                None => high = middle,
            }
        }
        Ok(found)
    }

    /// Rows of the channel below this offset may be missing, whatever the floor is (the caller takes the greater).
    /// 0 when nothing is known to be missing; H for a channel without history.
    ///
    /// # Errors
    /// When there is no interval, or the store's.
    pub fn evicted(&self, partition: PartitionId, channel: &Channel) -> Result<Offset, HistoryError> {
        let view = self.view(partition, channel)?;
        let complete_from = view.complete_from();
        Ok(if complete_from > view.state.interval.floor { complete_from } else { Offset(0) })
    }

    fn view(&self, partition: PartitionId, channel: &Channel) -> Result<View, HistoryError> {
        let slot = self.slot(partition);
        let (state, snapshot) = {
            let state = lock(&slot).ok_or(HistoryError::NoInterval)?;
            (state, self.database.snapshot())
        };
        let name = channel.as_str().as_bytes();
        let stored = snapshot.get(&self.meta, codec::channel_key(partition, state.generation, name))?;
        let meta = stored.map(|stored| codec::channel_meta(&stored)).transpose()?.unwrap_or_default();
        let keeps_history = self.retention_of(channel).is_some();
        let prefix = codec::row_prefix(partition, state.generation, name);
        Ok(View { snapshot, state, meta, keeps_history, prefix })
    }

    /// Offset and time of the first row in [from, upto).
    fn first_row(&self, view: &View, from: Offset, upto: Offset) -> Result<Option<(u64, u64)>, HistoryError> {
        let Some(keys) = view.keys(from, upto) else { return Ok(None) };
        let Some(guard) = view.snapshot.range(&self.rows, keys).next() else { return Ok(None) };
        let (key, stored) = guard.into_inner()?;
        Ok(Some((codec::row_offset(&key)?, codec::row_time(&stored)?)))
    }
}
