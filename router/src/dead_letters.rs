//! Keeps the records that nobody could read, as they were, on the topic `dead`.
//!
//! Keyed by the position at which a record stood: an owner that goes and the next may both write one, and a reader drops
//! the second. The partition never waits for it; a copy that could not be kept is counted, and the record itself stays
//! where it was for as long as its topic keeps it.

use std::sync::Arc;

use bytes::Bytes;
use prometheus::IntCounter;
use tidegate_eventlog::{EventLog, LogRecord, NewRecord};
use tidegate_vocab::{LogEpoch, PartitionId, Position, Topic};
use tokio::sync::Semaphore;

use crate::record::DeadReason;

/// Copies on their way at once: a topic full of garbage takes no more of the log's writer.
const IN_FLIGHT_LIMIT: usize = 64;
/// Names of the headers that say where a copy is from.
const KEY_HEADER: &str = "tidegate-key";
const REASON_HEADER: &str = "tidegate-reason";
const TIME_HEADER: &str = "tidegate-time-ms";

/// See the module.
pub(crate) struct DeadLetters {
    log: Arc<dyn EventLog>,
    unkept: IntCounter,
    in_flight: Arc<Semaphore>,
}

impl DeadLetters {
    pub(crate) fn new(log: Arc<dyn EventLog>, unkept: IntCounter) -> Self {
        Self { log, unkept, in_flight: Arc::new(Semaphore::new(IN_FLIGHT_LIMIT)) }
    }

    /// Hands a copy to the log, without waiting.
    pub(crate) fn keep(&self, epoch: LogEpoch, from: PartitionId, record: &LogRecord, reason: DeadReason) {
        let unkept = self.unkept.clone();
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else { return unkept.inc() };
        let to = PartitionId { topic: Topic::Dead, number: 0 };
        let position = position_key(epoch, from, record);
        let copy = copy(position.clone(), record, reason);
        let appending = self.log.append_record(to, copy);
        tokio::spawn(async move {
            if let Err(error) = appending.await {
                tracing::warn!(position, %error, "dead letter could not be kept");
                unkept.inc();
            }
            drop(permit);
        });
    }
}

/// `<topic>.<position>`, as logs and cursors write a position.
fn position_key(epoch: LogEpoch, from: PartitionId, record: &LogRecord) -> String {
    format!("{}.{}", from.topic.as_str(), Position::new(epoch, from, record.offset))
}

/// The value and the headers as they were, and what the log does not keep of a copy.
fn copy(position: String, record: &LogRecord, reason: DeadReason) -> NewRecord {
    let mut headers = record.headers.clone();
    // What fits beside them: no log takes more than 255.
    headers.truncate(252);
    headers.push((KEY_HEADER.into(), record.key.clone()));
    headers.push((REASON_HEADER.into(), Bytes::from_static(reason.as_str().as_bytes())));
    headers.push((TIME_HEADER.into(), record.time_ms.to_string().into()));
    NewRecord { key: position.into(), value: record.value.clone(), headers }
}
