//! Waiting with a deadline, and small things that every test of a log needs.

use std::time::Duration;

use bytes::Bytes;
use tidegate_eventlog::{AppendError, Appended, EventLog, LogRecord, RecordStream};
use tidegate_vocab::{PartitionId, Topic};

pub(crate) const P: PartitionId = PartitionId { topic: Topic::Events, number: 0 };

/// Waits until the condition holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> F,
) {
    let deadline = tokio::time::Instant::now() + within;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Bounds what must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let within = Duration::from_secs(20);
    tokio::time::timeout(within, future).await.unwrap_or_else(|_| panic!("not within {within:?}: {what}"))
}

pub(crate) async fn put(
    log: &impl EventLog,
    partition: PartitionId,
    value: &str,
) -> Result<Appended, AppendError> {
    log.append(partition, Bytes::from_static(b"key"), Bytes::copy_from_slice(value.as_bytes())).await
}

/// So many records, or more if they come together.
pub(crate) async fn take(stream: &mut Box<dyn RecordStream>, count: usize) -> Vec<LogRecord> {
    let mut rows = Vec::new();
    while rows.len() < count {
        rows.extend(soon("the next records", stream.next()).await.expect("readable"));
    }
    rows
}

pub(crate) fn values(rows: &[LogRecord]) -> Vec<String> {
    rows.iter().map(|row| String::from_utf8_lossy(&row.value).into_owned()).collect()
}
