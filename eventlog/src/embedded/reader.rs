//! Reading: by offset, by time, and as a stream.
//!
//! The engine's reads are synchronous. The end of the log lies in its memtable or in pages just written, so a
//! read there takes some tens of microseconds, less than a hop to another thread, and runs where it is called;
//! anything further back may wait for the disk and goes to the blocking pool. Each is bounded in rows and bytes.

use std::sync::Arc;

use tidegate_vocab::{Offset, PartitionId, limits};
use tokio::sync::watch;

use super::codec::{self, Malformed};
use super::shared::{Partition, Shared, Watermark};
use crate::{BoxFuture, LogRecord, ReadError, RecordStream};

/// A read that starts this close to the end runs inline: two batches of the writer, surely in memory.
const INLINE_ROWS: u64 = 2048;

impl Shared {
    pub(super) fn known(&self, partition: PartitionId) -> Result<&Partition, ReadError> {
        self.partition(partition).ok_or_else(|| unavailable(format!("there is no partition {partition}")))
    }

    /// Blocks on the disk for at most `max_rows` rows or about `max_bytes` bytes.
    pub(super) fn read(
        &self,
        id: PartitionId,
        from: Offset,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Vec<LogRecord>, ReadError> {
        let partition = self.known(id)?;
        let end = partition.high_watermark();
        check_range(partition, from.0, end)?;
        let upto = end.min(from.0.saturating_add(max_rows.max(1) as u64));
        let mut rows = Vec::with_capacity((upto - from.0).min(limits::READ_ROWS_LIMIT as u64) as usize);
        let mut bytes = 0;
        for guard in self.records.range(codec::record_key(id, from.0)..codec::record_key(id, upto)) {
            let (key, value) = guard.into_inner().map_err(broken)?;
            let offset = codec::offset_of(&key).map_err(malformed)?;
            // Offsets are dense: a gap is either retention at work or damage, and never shown.
            if offset != from.0 + rows.len() as u64 {
                break;
            }
            bytes += value.len();
            rows.push(codec::record(offset, &value).map_err(malformed)?);
            if bytes >= max_bytes {
                break;
            }
        }
        check_range(partition, from.0, end)?;
        if rows.is_empty() && from.0 < end {
            tracing::error!(partition = %id, offset = from.0, "a record is missing from the store");
            return Err(unavailable(format!("record {from} of {id} is missing from the store")));
        }
        Ok(rows)
    }

    /// Binary search: about twenty point reads, since times never fall. Blocks on the disk.
    pub(super) fn offset_at(&self, id: PartitionId, time_ms: u64) -> Result<Offset, ReadError> {
        let partition = self.known(id)?;
        let (mut low, mut high) = (partition.start(), partition.high_watermark());
        while low < high {
            let middle = low + (high - low) / 2;
            // A record that retention took meanwhile is older than all that stay.
            let before = self.time_at(id, middle)?.is_none_or(|time| time < time_ms);
            if before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(Offset(low.max(partition.start())))
    }

    /// The time of one record, if it is there.
    pub(super) fn time_at(&self, id: PartitionId, offset: u64) -> Result<Option<u64>, ReadError> {
        let stored = self.records.get(codec::record_key(id, offset)).map_err(broken)?;
        stored.map(|value| codec::time_of(&value).map_err(malformed)).transpose()
    }
}

/// Reads inline or on the blocking pool, see the module.
pub(super) async fn read(
    shared: Arc<Shared>,
    id: PartitionId,
    from: Offset,
    max_rows: usize,
    max_bytes: usize,
) -> Result<Vec<LogRecord>, ReadError> {
    let end = shared.known(id)?.high_watermark();
    let max_rows = max_rows.min(limits::READ_ROWS_LIMIT);
    if end.saturating_sub(from.0) <= INLINE_ROWS {
        return shared.read(id, from, max_rows, max_bytes);
    }
    blocking(move || shared.read(id, from, max_rows, max_bytes)).await
}

/// Always on the blocking pool: the points of a binary search lie anywhere.
pub(super) async fn offset_at(
    shared: Arc<Shared>,
    id: PartitionId,
    time_ms: u64,
) -> Result<Offset, ReadError> {
    blocking(move || shared.offset_at(id, time_ms)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(unavailable(format!("the read did not run: {error}"))))
}

/// A consumer. Its only state is the offset it is at, moved when rows are handed out: cancelling loses nothing.
pub(super) struct Stream {
    shared: Arc<Shared>,
    id: PartitionId,
    from: Offset,
    /// None when there is no such partition.
    watermark: Option<watch::Receiver<Watermark>>,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, id: PartitionId, from: Offset) -> Self {
        let watermark = shared.partition(id).map(Partition::watch);
        Self { shared, id, from, watermark }
    }

    async fn next_rows(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        loop {
            let watermark = match self.watermark.as_mut() {
                Some(watermark) => *watermark.borrow_and_update(),
                None => return Err(unavailable(format!("there is no partition {}", self.id))),
            };
            if self.from.0 != watermark.next {
                let shared = Arc::clone(&self.shared);
                let rows =
                    read(shared, self.id, self.from, limits::READ_ROWS_LIMIT, limits::READ_BYTES_LIMIT)
                        .await?;
                if let Some(last) = rows.last() {
                    self.from = last.offset.next();
                    return Ok(rows);
                }
                continue;
            }
            if watermark.closed {
                return Err(unavailable("the log is closed".into()));
            }
            if let Some(watermark) = self.watermark.as_mut()
                && watermark.changed().await.is_err()
            {
                return Err(unavailable("the log is closed".into()));
            }
        }
    }
}

impl RecordStream for Stream {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<LogRecord>, ReadError>> {
        Box::pin(self.next_rows())
    }
}

fn check_range(partition: &Partition, from: u64, end: u64) -> Result<(), ReadError> {
    let start = partition.start();
    if from < start {
        return Err(ReadError::BelowStart { start: Offset(start) });
    }
    if from > end {
        return Err(ReadError::BeyondEnd { end: Offset(end) });
    }
    Ok(())
}

pub(super) fn unavailable(reason: String) -> ReadError {
    ReadError::Unavailable { reason }
}

fn broken(error: fjall::Error) -> ReadError {
    unavailable(format!("the store could not be read: {error}"))
}

fn malformed(error: Malformed) -> ReadError {
    unavailable(error.to_string())
}
