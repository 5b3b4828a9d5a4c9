//! What every engine of the log must do, as tests that any engine's crate can run: [`run`].
//!
//! Assumes only what [`EventLog`] promises: offsets rise but need not be dense, and the log may start above 0.
//! Panics at the first breach, naming the case. Waits for what happens by itself, never for time.

mod cases;
mod expiry;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_vocab::{Offset, PartitionId, Topic};

use crate::{Appended, BoxFuture, EventLog, LogRecord};

/// How long anything may take that has to happen by itself.
const DEADLINE: Duration = Duration::from_secs(30);

/// An engine under test.
pub trait Subject: Sync {
    /// Opens the log of this name with at least two partitions a topic: an empty one the first time, the same one
    /// afterwards. The suite has dropped every handle and stream of that name before.
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Arc<dyn EventLog>>;

    /// Lets everything that the log holds now expire, so that it soon forgets it. It may append to other partitions
    /// than number 0 of the events. None when the engine cannot be made to: the case is then left out, loudly.
    fn expire<'a>(&'a self, log: &'a Arc<dyn EventLog>) -> Option<BoxFuture<'a, ()>> {
        let _ = log;
        None
    }
}

/// Runs all cases, one after the other, each on a log of its own.
///
/// # Panics
/// At the first thing that the engine does wrong.
pub async fn run(subject: &impl Subject) {
    cases::appends_keep_their_order(&*subject.open("order").await).await;
    cases::partitions_are_apart(&*subject.open("partitions").await).await;
    cases::what_was_acked_is_visible_at_once(&*subject.open("visible").await).await;
    cases::a_dropped_append_is_not_withdrawn(&*subject.open("dropped").await).await;
    cases::concurrent_appenders(subject.open("concurrent").await).await;
    cases::offsets_by_time(&*subject.open("time").await).await;
    cases::reads_keep_their_bounds(&*subject.open("bounds").await).await;
    cases::a_consumer_waits_and_wakes(subject.open("consumer").await).await;
    cases::a_cancelled_next_loses_nothing(&*subject.open("cancel").await).await;
    cases::assignments_are_taken_once(&*subject.open("assignments").await).await;
    cases::a_reopened_log_goes_on(subject).await;
    cases::epochs_name_topics_and_logs(subject).await;
    expiry::expired_records_are_gone_and_offsets_go_on(subject).await;
}

const P: PartitionId = PartitionId { topic: Topic::Events, number: 0 };
const Q: PartitionId = PartitionId { topic: Topic::Events, number: 1 };

async fn put(log: &dyn EventLog, partition: PartitionId, value: &str) -> Appended {
    log.append(partition, Bytes::from_static(b"key"), Bytes::copy_from_slice(value.as_bytes()))
        .await
        .expect("an append to a healthy log is acked")
}

/// Everything from `from` to the high watermark of now.
async fn read_all(log: &dyn EventLog, partition: PartitionId, from: Offset) -> Vec<LogRecord> {
    let end = log.high_watermark(partition).await.expect("high watermark");
    let mut rows: Vec<LogRecord> = Vec::new();
    let mut next = from;
    while next < end {
        let more = log.read(partition, next, 1000, 1 << 20).await.expect("readable");
        let Some(last) = more.last() else { break };
        assert!(more[0].offset >= next, "a read starts where it was asked to");
        next = last.offset.next();
        rows.extend(more);
    }
    assert!(rows.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets rise");
    assert!(rows.windows(2).all(|pair| pair[0].time_ms <= pair[1].time_ms), "times never fall");
    rows
}

fn values(rows: &[LogRecord]) -> Vec<String> {
    rows.iter().map(|row| String::from_utf8_lossy(&row.value).into_owned()).collect()
}

/// Waits until the condition holds.
async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Bounds what must come.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}
