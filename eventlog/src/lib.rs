//! The event log behind one trait: append, read back, consume, and who owns which partition.
//!
//! Owns: what the roles may ask of a log, whatever the engine, and the embedded engine that `tidegate dev` uses.
//! A record is opaque here: a key, a value and the log's own time. Offsets of one partition rise; a consumer is
//! shown only what the log can no longer lose.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod embedded;
pub mod store;

use std::pin::Pin;

use bytes::Bytes;
use tidegate_vocab::{LogEpoch, Offset, PartitionCounts, PartitionId, Topic};

/// A future that the trait can return behind a pointer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Named bytes beside a value, for whoever reads the log without knowing the value's format.
pub type Headers = Vec<(String, Bytes)>;

/// A record that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewRecord {
    /// The key: the channel of an event, the user or connection of an upstream message.
    pub key: Bytes,
    /// The encoded record.
    pub value: Bytes,
    /// At most 255 of them.
    pub headers: Headers,
}

impl NewRecord {
    /// How much it is, headers included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        self.key.len() + self.value.len() + headers.sum::<usize>()
    }
}

/// One record as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its place.
    pub offset: Offset,
    /// LogAppendTime: the log's own clock, milliseconds since the Unix epoch, never falling within a partition.
    pub time_ms: u64,
    /// The key: the channel of an event, the user or connection of an upstream message.
    pub key: Bytes,
    /// The encoded record.
    pub value: Bytes,
    /// What stands beside it.
    pub headers: Headers,
}

/// Where a record landed. Returned only once the log has it for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its place.
    pub offset: Offset,
    /// The log's time of it, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The log may have the record more than once, and another of them may come first: an attempt whose answer was lost
    /// may have been written.
    pub may_repeat: bool,
}

/// Why an append did not answer with a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Nothing was written and nothing will be: the log refuses now. Safe to retry.
    #[error("log is not writable: {reason}")]
    Unavailable {
        /// For operators.
        reason: String,
    },
    /// Nothing was written: too many appends wait already. Safe to retry after a pause.
    #[error("too many appends wait for the log")]
    Busy,
    /// Nothing was written: the file system is full or down to its reserve.
    #[error("log storage is full: {reason}")]
    Full {
        /// For operators.
        reason: String,
    },
    /// It may have been written or not; only a retry with the same idempotency key is safe.
    #[error("outcome of the append is not known: {reason}")]
    Indeterminate {
        /// For operators.
        reason: String,
    },
}

/// Why a read did not answer with records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The log no longer has this offset.
    #[error("offset is below the log start")]
    BelowStart {
        /// The first offset that the log still has.
        start: Offset,
    },
    /// The log has never had this offset: truncation, or another log.
    #[error("offset is beyond the log end")]
    BeyondEnd {
        /// The next offset to be written.
        end: Offset,
    },
    /// The log does not answer.
    #[error("log is not readable: {reason}")]
    Unavailable {
        /// For operators.
        reason: String,
    },
}

/// A change of what this process owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignment {
    /// The partition is ours until revoked.
    Assigned(PartitionId),
    /// It is no longer ours.
    Revoked(PartitionId),
}

/// Records of one partition in order, from an offset on and then as they come.
pub trait RecordStream: Send {
    /// The next records, at least one; waits until there is one. Cancel-safe: a dropped call loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<LogRecord>, ReadError>>;
}

/// What the roles ask of a log.
pub trait EventLog: Send + Sync + 'static {
    /// How many partitions each topic is configured to have.
    fn counts(&self) -> PartitionCounts;

    /// The epoch of a topic, as derived now.
    fn epoch(&self, topic: Topic) -> LogEpoch;

    /// Appends one record. Completes only when the log cannot lose it any more (`dev`: after fsync; Kafka: acks=all).
    /// Dropping the future does not withdraw the record. Calls made one after the other by one task keep their order.
    fn append_record(
        &self,
        partition: PartitionId,
        record: NewRecord,
    ) -> BoxFuture<'static, Result<Appended, AppendError>>;

    /// As [`EventLog::append_record`], without headers.
    fn append(
        &self,
        partition: PartitionId,
        key: Bytes,
        value: Bytes,
    ) -> BoxFuture<'static, Result<Appended, AppendError>> {
        self.append_record(partition, NewRecord { key, value, headers: Headers::new() })
    }

    /// Notes for lag tools that everything before `next` has been handed over. No promise depends on it, and a log
    /// without such tools ignores it. Never waits.
    fn commit(&self, partition: PartitionId, next: Offset) {
        let _ = (partition, next);
    }

    /// The first offset that the log still has.
    fn start(&self, partition: PartitionId) -> BoxFuture<'_, Result<Offset, ReadError>>;

    /// The offset after the last record that consumers may see.
    fn high_watermark(&self, partition: PartitionId) -> BoxFuture<'_, Result<Offset, ReadError>>;

    /// Both of the above, for engines that learn them together.
    fn bounds(&self, partition: PartitionId) -> BoxFuture<'_, Result<(Offset, Offset), ReadError>> {
        Box::pin(async move { Ok((self.start(partition).await?, self.high_watermark(partition).await?)) })
    }

    /// The first offset whose record has at least this time; the high watermark when there is none.
    fn offset_at(&self, partition: PartitionId, time_ms: u64) -> BoxFuture<'_, Result<Offset, ReadError>>;

    /// Up to `max_rows` records and about `max_bytes` bytes from `from` on, at least one if there is one; empty at the end.
    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        max_rows: usize,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<LogRecord>, ReadError>>;

    /// Consumes a partition from an offset on.
    fn consume(&self, partition: PartitionId, from: Offset) -> Box<dyn RecordStream>;

    /// What this process owns, as it changes. Taken once: a second call gets a receiver that never hears anything.
    fn assignments(&self) -> tokio::sync::mpsc::Receiver<Assignment>;

    /// Gives up what this process owns, so that others take it over while it still serves. Assigned nothing from then on.
    /// A log with one owner ignores it.
    fn leave(&self) {}

    /// Whether no broker answers, so that nobody can append anything through this process or read anything new.
    fn is_blind(&self) -> bool {
        false
    }

    /// True while appends would be accepted as far as the log knows; the reason otherwise.
    fn health(&self) -> Result<(), AppendError>;
}
