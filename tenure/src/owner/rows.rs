//! What an owner is shown of the log, and what it reads back: records, rows, and the store as it needs it.

use std::sync::Arc;

use tidegate_vocab::{Channel, Event, Offset};

use super::Nonce;
use crate::frame::event_cost;

/// What the owner is shown of one log record, after its verdict, and after its row is readable in [`Rows`].
#[derive(Debug, Clone)]
pub enum Record {
    /// A takeover, anybody's.
    Takeover(Nonce),
    /// An event to deliver.
    Event(Arc<Event>),
    /// A record that could not be read: its channel's followers are told; without a usable key, everybody is.
    DeadLetter(Option<Channel>),
    /// Nothing to deliver: a repeat, a conflict, a marker.
    Nothing,
}

/// What tenures are sent from: the ring, and what the log is read for when one fell behind it.
#[derive(Debug, Clone)]
pub enum Row {
    /// An event to deliver.
    Event(Arc<Event>),
    /// A record that could not be read, see [`Record::DeadLetter`].
    DeadLetter {
        /// Where it stands.
        offset: Offset,
        /// Whose followers are told; `None`: everybody's.
        channel: Option<Channel>,
    },
}

impl Row {
    pub(super) fn offset(&self) -> Offset {
        match self {
            Self::Event(event) => event.offset.unwrap_or_default(),
            Self::DeadLetter { offset, .. } => *offset,
        }
    }

    /// About how many bytes the row holds.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Event(event) => event_cost(event),
            Self::DeadLetter { channel, .. } => 64 + channel.as_ref().map_or(0, |it| it.as_str().len()),
        }
    }
}

/// The history could not be read; the Want stays and is tried again.
#[derive(Debug, thiserror::Error)]
#[error("history is not readable: {0}")]
pub struct RowsError(pub String);

/// Some rows in order, and whether that was all.
pub type Chunk = (Vec<Arc<Event>>, bool);

/// Past events of this partition, as the store has them. Every row below H is readable.
pub trait Rows {
    /// The first offset of the interval that the store covers.
    fn floor(&self) -> Offset;
    /// The first offset that the log still has: below it nothing will come back.
    fn log_start(&self) -> Offset;
    /// Rows of `channel` below this may be missing although the interval covers them.
    ///
    /// # Errors
    /// When the store does not answer.
    fn evicted(&self, channel: &Channel) -> Result<Offset, RowsError>;
    /// Rows of `channel` in `[from, upto)`, in order, at most about one step's worth; `true` when that was all.
    /// At least one row unless that was all.
    ///
    /// # Errors
    /// When the store does not answer.
    fn read(&self, channel: &Channel, from: Offset, upto: Offset) -> Result<Chunk, RowsError>;
    /// From where the last `count` rows below `upto` begin; the floor when the interval has fewer of them.
    ///
    /// # Errors
    /// When the store does not answer.
    fn first_of_last(&self, channel: &Channel, count: u32, upto: Offset) -> Result<Offset, RowsError>;
    /// From where the records of at least `time_ms` begin, by the log's time index; at most the floor when that
    /// lies below the interval (the channel's own rows cannot tell).
    ///
    /// # Errors
    /// When the store does not answer.
    fn first_since(&self, channel: &Channel, time_ms: u64, upto: Offset) -> Result<Offset, RowsError>;
}
