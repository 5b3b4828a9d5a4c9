//! The history of one partition, as the owner reads it.
//!
//! A dead letter of a known channel stands in the history like an event, so that it goes when retention takes it and
//! is there after a restart. Whoever reads over it is told: to the owner it looks like rows that were evicted.

use std::cell::RefCell;
use std::sync::Arc;

use tidegate_history::{HistoryError, HistoryStore};
use tidegate_tenure::{Rows, RowsError};
use tidegate_vocab::{Channel, Event, Offset, PartitionId, limits};

use crate::record;

/// See the module.
pub(super) struct StoredRows {
    store: Arc<HistoryStore>,
    id: PartitionId,
    pub(super) floor: Offset,
    pub(super) log_start: Offset,
    /// The channel read last, if it has dead letters there, and the offset after the last of them.
    dead: RefCell<Option<(Channel, Offset)>>,
}

impl StoredRows {
    pub(super) fn new(store: Arc<HistoryStore>, id: PartitionId, floor: Offset, log_start: Offset) -> Self {
        Self { store, id, floor, log_start, dead: RefCell::default() }
    }
}

impl Rows for StoredRows {
    fn floor(&self) -> Offset {
        self.floor
    }

    fn log_start(&self) -> Offset {
        self.log_start
    }

    fn evicted(&self, channel: &Channel) -> Result<Offset, RowsError> {
        let evicted = self.store.evicted(self.id, channel).map_err(refused)?;
        let dead = self.dead.borrow().as_ref().filter(|(of, _)| of == channel).map(|(_, upto)| *upto);
        Ok(dead.map_or(evicted, |upto| upto.max(evicted)))
    }

    fn read(
        &self,
        channel: &Channel,
        from: Offset,
        upto: Offset,
    ) -> Result<(Vec<Arc<Event>>, bool), RowsError> {
        let (mut from, mut rows, mut dead) = (from, Vec::new(), None);
        // A stretch of nothing but dead letters is no answer: go on behind it.
        let complete = loop {
            let stored = self
                .store
                .read(self.id, channel, from, upto, limits::READ_ROWS_LIMIT, limits::READ_BYTES_LIMIT)
                .map_err(refused)?;
            for row in &stored.rows {
                match record::read_row(channel, row) {
                    Some(event) => rows.push(Arc::new(event)),
                    None => dead = Some((channel.clone(), row.offset.next())),
                }
            }
            let complete = stored.next >= upto;
            if complete || !rows.is_empty() || stored.next <= from {
                break complete;
            }
            from = stored.next;
        };
        self.dead.replace(dead);
        Ok((rows, complete))
    }

    fn first_of_last(&self, channel: &Channel, count: u32, upto: Offset) -> Result<Offset, RowsError> {
        let tail = self.store.first_of_last(self.id, channel, count as usize, upto).map_err(refused)?;
        Ok(if tail.rows < count as usize { self.floor } else { tail.from })
    }

    fn first_since(&self, channel: &Channel, time_ms: u64, upto: Offset) -> Result<Offset, RowsError> {
        let first = self.store.first_since(self.id, channel, time_ms, upto).map_err(refused)?;
        let older = self.store.read(self.id, channel, Offset(0), first, 1, 1).map_err(refused)?;
        // With no older row the channel cannot tell that the time lies within the interval.
        Ok(if older.rows.is_empty() { self.floor } else { first })
    }
}

fn refused(error: HistoryError) -> RowsError {
    RowsError(error.to_string())
}
