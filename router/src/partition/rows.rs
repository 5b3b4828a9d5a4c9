//! The history of one partition, as the owner reads it.

use std::sync::Arc;

use tidegate_history::{HistoryError, HistoryStore};
use tidegate_tenure::{Rows, RowsError};
use tidegate_vocab::{Channel, Event, Offset, PartitionId, limits};

use crate::record;

/// See the module.
pub(super) struct StoredRows {
    pub(super) store: Arc<HistoryStore>,
    pub(super) id: PartitionId,
    pub(super) floor: Offset,
    pub(super) log_start: Offset,
}

impl Rows for StoredRows {
    fn floor(&self) -> Offset {
        self.floor
    }

    fn log_start(&self) -> Offset {
        self.log_start
    }

    fn evicted(&self, channel: &Channel) -> Result<Offset, RowsError> {
        self.store.evicted(self.id, channel).map_err(refused)
    }

    fn read(
        &self,
        channel: &Channel,
        from: Offset,
        upto: Offset,
    ) -> Result<(Vec<Arc<Event>>, bool), RowsError> {
        let stored = self
            .store
            .read(self.id, channel, from, upto, limits::READ_ROWS_LIMIT, limits::READ_BYTES_LIMIT)
            .map_err(refused)?;
        let mut rows = Vec::with_capacity(stored.rows.len());
        for row in &stored.rows {
            let event = record::read_row(channel, row)
                .ok_or_else(|| RowsError(format!("row {} is not readable", row.offset)))?;
            rows.push(Arc::new(event));
        }
        Ok((rows, stored.next >= upto))
    }

    fn first_of_last(&self, channel: &Channel, count: u32, upto: Offset) -> Result<Offset, RowsError> {
        let tail = self.store.first_of_last(self.id, channel, count as usize, upto).map_err(refused)?;
        Ok(tail.from)
    }

    fn first_since(&self, channel: &Channel, time_ms: u64, upto: Offset) -> Result<Offset, RowsError> {
        self.store.first_since(self.id, channel, time_ms, upto).map_err(refused)
    }
}

fn refused(error: HistoryError) -> RowsError {
    RowsError(error.to_string())
}
