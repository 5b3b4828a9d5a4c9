//! Appending: one idempotent producer for the process, replaced when librdkafka gives it up.
//!
//! Owns the order of appends (a record is in librdkafka's queue when the call returns), the bound on what one
//! partition may have in flight, and what a delivery report means. Never blocks a caller: librdkafka copies the
//! record, and a thread of the producer's own hands the reports to whoever waits.

mod deliveries;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer};
use tidegate_eventlog::{AppendError, Appended, NewRecord};
use tidegate_vocab::{PartitionId, Topic};
use tokio::sync::oneshot;

use self::deliveries::{Deliveries, Pending};
use crate::options::MESSAGE_TIMEOUT_MS;
use crate::shared::{Shared, lock};

/// Records that one partition may have in flight: a partition without leader keeps no more than these.
const PARTITION_RECORDS_LIMIT: usize = 4096;
/// Bytes that one partition may have in flight: an eighth of librdkafka's queue.
const PARTITION_BYTES_LIMIT: usize = 16 * 1024 * 1024;
/// After this an append is answered as indeterminate; librdkafka answers by itself a second or so after
/// [`MESSAGE_TIMEOUT_MS`].
const ANSWER_TIMEOUT: Duration = Duration::from_millis(MESSAGE_TIMEOUT_MS + 3_000);

/// How long a producer is left to fail before it is replaced.
const REBUILD_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) type Answer = oneshot::Receiver<Result<Appended, AppendError>>;
type Generation = ThreadedProducer<Deliveries>;

/// What one partition has in flight.
#[derive(Default)]
pub(crate) struct InFlight {
    records: AtomicUsize,
    bytes: AtomicUsize,
}

impl InFlight {
    /// Makes room for a record, or says that there is none.
    fn enter(&self, bytes: usize) -> bool {
        let records = self.records.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits =
            records < PARTITION_RECORDS_LIMIT && (before == 0 || before + bytes <= PARTITION_BYTES_LIMIT);
        if !fits {
            self.leave(bytes);
        }
        fits
    }

    fn leave(&self, bytes: usize) {
        self.records.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

pub(crate) struct Producer {
    shared: Arc<Shared>,
    in_flight: [Vec<Arc<InFlight>>; Topic::COUNT],
    /// None once closed.
    current: RwLock<Option<Generation>>,
    /// When the current one was made.
    made: Mutex<Instant>,
}

impl Producer {
    pub(crate) fn new(shared: Arc<Shared>) -> KafkaResult<Self> {
        let in_flight =
            Topic::ALL.map(|topic| (0..shared.options.counts.of(topic)).map(|_| Arc::default()).collect());
        let current = RwLock::new(Some(generation(&shared)?));
        Ok(Self { shared, in_flight, current, made: Mutex::new(Instant::now()) })
    }

    /// Connects to the leaders of all partitions, so that no publish has to wait for that. Blocks.
    pub(crate) fn warm(&self, timeout: Duration) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let Some(current) = current.as_ref() else { return };
        for topic in Topic::ALL {
            let name = self.shared.name(topic);
            let Ok(metadata) = current.client().fetch_metadata(Some(name), timeout) else { continue };
            let mut leaders = std::collections::BTreeMap::new();
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                leaders.entry(partition.leader()).or_insert(partition.id());
            }
            for (_, partition) in leaders.range(0..) {
                if let Err(error) = current.client().fetch_watermarks(name, *partition, timeout) {
                    tracing::debug!(%error, name, partition, "producer could not be warmed up");
                }
            }
        }
    }

    /// Hands a record to librdkafka; the answer comes by itself, even when nobody waits for it any more.
    pub(crate) fn enqueue(&self, partition: PartitionId, record: &NewRecord) -> Result<Answer, AppendError> {
        let unavailable = |reason: String| AppendError::Unavailable { reason };
        self.shared.known(partition).map_err(unavailable)?;
        if let Some(problem) = self.shared.problem(partition.topic) {
            return Err(unavailable(problem));
        }
        let in_flight = &self.in_flight[partition.topic as usize][partition.number as usize];
        let bytes = record.bytes();
        if !in_flight.enter(bytes) {
            return Err(AppendError::Busy);
        }
        let (answer, answered) = oneshot::channel();
        let pending = Box::new(Pending {
            answer: Some(answer),
            in_flight: Arc::clone(in_flight),
            bytes,
            since: Instant::now(),
        });
        let native = BaseRecord::with_opaque_to(self.shared.name(partition.topic), pending)
            .partition(i32::try_from(partition.number).unwrap_or(i32::MAX))
            .key(&record.key[..])
            .payload(&record.value[..]);
        let native = if record.headers.is_empty() { native } else { native.headers(headers(record)) };
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let current = current.as_ref().ok_or_else(|| unavailable("the log is closed".into()))?;
        match current.send(native) {
            Ok(()) => Ok(answered),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Err(AppendError::Busy),
            Err((error, _)) => Err(unavailable(error.to_string())),
        }
    }

    /// Replaces a producer that librdkafka has given up: an idempotent one cannot go on after certain errors.
    /// Blocks for up to a second; what the old one had in flight is answered as indeterminate.
    pub(crate) fn rebuild_if_dead(&self) {
        let is_dead = || {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.as_ref().and_then(|current| current.client().fatal_error())
        };
        // One that fails at once, for want of a permission say, is not replaced in a loop.
        if lock(&self.made).elapsed() < REBUILD_INTERVAL {
            return;
        }
        let Some((code, reason)) = is_dead() else { return };
        *lock(&self.made) = Instant::now();
        tracing::error!(%code, reason, "Kafka producer has failed for good and is replaced");
        let next = match generation(&self.shared) {
            Ok(next) => next,
            Err(error) => return tracing::error!(%error, "Kafka producer could not be replaced"),
        };
        let old = self.current.write().unwrap_or_else(PoisonError::into_inner).replace(next);
        self.shared.figures.producers_rebuilt.fetch_add(1, Ordering::Relaxed);
        drop(old);
    }

    /// Sends what waits, for at most so long, and takes no more. Blocks.
    pub(crate) fn close(&self, timeout: Duration) {
        let Some(current) = self.current.write().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        if let Err(error) = current.flush(timeout) {
            tracing::warn!(%error, "Kafka producer was closed before all its records were sent");
            current.purge(PurgeConfig::default().queue().inflight());
        }
    }
}

/// Waits for a delivery report.
pub(crate) async fn answer(queued: Result<Answer, AppendError>) -> Result<Appended, AppendError> {
    let indeterminate = |reason: &str| AppendError::Indeterminate { reason: reason.into() };
    match tokio::time::timeout(ANSWER_TIMEOUT, queued?).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(indeterminate("the producer has ended")),
        Err(_) => Err(indeterminate("Kafka did not answer in time")),
    }
}

fn generation(shared: &Arc<Shared>) -> KafkaResult<Generation> {
    let config = shared.options.finish(shared.options.producer());
    config.create_with_context(Deliveries::new(shared))
}

fn headers(record: &NewRecord) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (key, value) in &record.headers {
        headers = headers.insert(Header { key, value: Some(&value[..]) });
    }
    headers
}
