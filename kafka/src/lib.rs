//! The event log on Apache Kafka, through librdkafka.
//!
//! Owns every Kafka client of the process and all of librdkafka's settings: one idempotent producer, one consumer
//! that is a member of the routers' group and fetches nothing, lanes of consumers for the live path, a small pool
//! for bounded reads, and one client for questions. None of their threads is ever waited for by a task: what blocks
//! runs on a thread of its own or on tokio's blocking pool, and whatever waits for brokers has a deadline.
//! Invariants: an append that is called unwritten is in no log; a consumer misses no record in silence unless the
//! log epoch says so within a second. Does not know what a record means, nor who wrote it.

mod live;
mod member;
mod native;
mod observer;
mod options;
mod producer;
mod queries;
mod readers;
mod records;
mod shared;
mod stats;
mod threads;
pub mod topics;
mod turns;
mod watcher;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate_eventlog::{
    AppendError, Appended, Assignment, BoxFuture, EventLog, LogRecord, NewRecord, ReadError, RecordStream,
};
use tidegate_vocab::{LogEpoch, Offset, PartitionCounts, PartitionId, Topic};
use tokio::sync::mpsc;

use self::live::Live;
use self::member::Member;
pub use self::options::{EpochSource, KafkaOptions, Verify};
use self::producer::Producer;
use self::queries::Queries;
use self::readers::{Piece, Readers};
use self::shared::{Shared, lock};
pub use self::stats::KafkaStats;
use self::threads::Worker;
use self::topics::{Finding, Severity, TopicsError};
use self::watcher::Watcher;

/// How long brokers may take to answer for the first time.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a topic that was just made may be unknown to some of the brokers.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long opening waits for the producer to be ready, which spares the first publish that wait.
const WARM_TIMEOUT: Duration = Duration::from_secs(3);
/// How long leaving the group may take: the others wait for it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what was appended may take to be sent when the log is closed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(6);
/// How long the other threads may take to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// librdkafka refuses the options: an unknown property, or one that it is built without.
    #[error("Kafka options are refused: {0}")]
    Options(String),
    /// The topics could not be looked at.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// A topic is missing, or not as it has to be.
    #[error("Kafka topics are not usable: {}", .0.join(" | "))]
    Unusable(Vec<String>),
    /// A thread could not be started.
    #[error("thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// The log. Closed when dropped.
pub struct KafkaLog {
    shared: Arc<Shared>,
    producer: Arc<Producer>,
    queries: Arc<Queries>,
    readers: Arc<Readers>,
    live: Arc<Live>,
    member: Member,
    member_threads: Mutex<Vec<Worker>>,
    watcher_stop: Arc<AtomicBool>,
    watcher_thread: Mutex<Option<Worker>>,
    /// Keeps the receivers of [`EventLog::assignments`] open.
    assignment_senders: Mutex<Vec<mpsc::Sender<Assignment>>>,
}

impl KafkaLog {
    /// Connects, verifies the topics and warms everything up. Joins the group only with
    /// [`EventLog::assignments`].
    ///
    /// # Errors
    /// Refuses topics that are missing or would break a promise, and says what to do.
    pub async fn open(options: KafkaOptions) -> Result<Arc<Self>, OpenError> {
        if options.verify == Verify::Settings {
            verify(&options).await?;
        }
        let opening = tokio::task::spawn_blocking(move || Self::open_blocking(options));
        opening.await.map_err(|error| OpenError::Options(error.to_string()))?
    }

    fn open_blocking(options: KafkaOptions) -> Result<Arc<Self>, OpenError> {
        let refused = |error: rdkafka::error::KafkaError| OpenError::Options(error.to_string());
        let shared = Arc::new(Shared::new(options));
        let queries = Queries::new(Arc::clone(&shared)).map_err(refused)?;
        first_look(&shared, &queries)?;
        let producer = Arc::new(Producer::new(Arc::clone(&shared)).map_err(refused)?);
        let live = Live::new(Arc::clone(&shared), Arc::clone(&queries)).map_err(OpenError::Options)?;
        producer.warm(WARM_TIMEOUT);
        let warm = Instant::now() + WARM_TIMEOUT;
        while !shared.figures.snapshot().producer_is_ready && Instant::now() < warm {
            std::thread::sleep(Duration::from_millis(10));
        }
        let readers = Readers::new(Arc::clone(&shared), Arc::clone(&queries));
        let watcher_stop = Arc::<AtomicBool>::default();
        let watcher = Watcher {
            shared: Arc::clone(&shared),
            queries: Arc::clone(&queries),
            readers: Arc::clone(&readers),
            producer: Arc::clone(&producer),
            stop: Arc::clone(&watcher_stop),
        };
        let watcher_thread =
            Worker::spawn("kafka-watcher", move || watcher.run()).map_err(OpenError::Thread)?;
        Ok(Arc::new(Self {
            shared,
            producer,
            queries,
            readers,
            live,
            member: Member::default(),
            member_threads: Mutex::default(),
            watcher_stop,
            watcher_thread: Mutex::new(Some(watcher_thread)),
            assignment_senders: Mutex::default(),
        }))
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> KafkaStats {
        self.shared.figures.snapshot()
    }

    /// Leaves the group, sends what was appended, ends the streams and stops the threads; blocks until then, for at
    /// most 16 s and a few milliseconds as a rule. Done by `drop` too; a second call does nothing.
    pub fn close(&self) {
        if self.shared.close() {
            return;
        }
        // First, for it is what others wait for.
        self.member.stop();
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        lock(&self.member_threads).drain(..).for_each(|thread| thread.join(deadline));
        self.producer.close(FLUSH_TIMEOUT);
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        self.live.close(deadline);
        self.watcher_stop.store(true, Ordering::Release);
        if let Some(thread) = lock(&self.watcher_thread).take() {
            thread.join(deadline);
        }
        self.readers.close();
    }
}

async fn verify(options: &KafkaOptions) -> Result<(), OpenError> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let mut findings = topics::check(options).await?;
    while findings.iter().any(|finding| finding.problem == topics::MISSING) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(200)).await;
        findings = topics::check(options).await?;
    }
    let (errors, warnings): (Vec<Finding>, Vec<Finding>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    for finding in warnings {
        tracing::warn!(%finding, "Kafka topic is not as configured");
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(OpenError::Unusable(errors.iter().map(Finding::to_string).collect()))
}

/// Waits until the brokers have told the epoch of every topic.
fn first_look(shared: &Shared, queries: &Queries) -> Result<(), OpenError> {
    let deadline = Instant::now() + OPEN_TIMEOUT;
    let settled = Instant::now() + SETTLE_TIMEOUT;
    loop {
        let heard = watcher::look(shared, queries, watcher::DESCRIBE_TIMEOUT);
        let problems: Vec<String> =
            Topic::ALL.into_iter().filter_map(|topic| shared.problem(topic)).collect();
        if !problems.is_empty() && Instant::now() > settled {
            return Err(OpenError::Unusable(problems));
        }
        if problems.is_empty() && Topic::ALL.into_iter().all(|topic| shared.epoch(topic) != LogEpoch(0)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let bootstrap = shared.options.bootstrap.clone();
            let reason = heard.err().unwrap_or_else(|| "a topic's id is still unknown".into());
            return Err(TopicsError::Unreachable { bootstrap, reason }.into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl EventLog for KafkaLog {
    fn counts(&self) -> PartitionCounts {
        self.shared.options.counts
    }

    fn epoch(&self, topic: Topic) -> LogEpoch {
        self.shared.epoch(topic)
    }

    fn append_record(
        &self,
        partition: PartitionId,
        record: NewRecord,
    ) -> BoxFuture<'static, Result<Appended, AppendError>> {
        // Queued here and not when polled: that is what keeps the order of one caller's appends.
        Box::pin(producer::answer(self.producer.enqueue(partition, &record)))
    }

    fn commit(&self, partition: PartitionId, next: Offset) {
        self.member.commit(partition, next);
    }

    fn start(&self, partition: PartitionId) -> BoxFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async move { Ok(Offset(self.queries.range(partition).await?.start)) })
    }

    fn high_watermark(&self, partition: PartitionId) -> BoxFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async move { Ok(Offset(self.queries.range(partition).await?.end)) })
    }

    fn bounds(&self, partition: PartitionId) -> BoxFuture<'_, Result<(Offset, Offset), ReadError>> {
        Box::pin(async move {
            let range = self.queries.range(partition).await?;
            Ok((Offset(range.start), Offset(range.end)))
        })
    }

    fn offset_at(&self, partition: PartitionId, time_ms: u64) -> BoxFuture<'_, Result<Offset, ReadError>> {
        Box::pin(self.queries.offset_at(partition, time_ms))
    }

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        max_rows: usize,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<LogRecord>, ReadError>> {
        Box::pin(self.readers.read(Piece { partition, from, max_rows, max_bytes }))
    }

    fn consume(&self, partition: PartitionId, from: Offset) -> Box<dyn RecordStream> {
        Box::new(self.live.consume(partition, from))
    }

    fn assignments(&self) -> mpsc::Receiver<Assignment> {
        // Room for all of them to come and go at once; what does not fit waits with the member.
        let (sender, receiver) = mpsc::channel(2 * self.shared.options.counts.followed().count().max(1));
        let mut senders = lock(&self.assignment_senders);
        if senders.is_empty() {
            for topic in Topic::FOLLOWED {
                match self.member.join(Arc::clone(&self.shared), topic, sender.clone()) {
                    Ok(thread) => lock(&self.member_threads).push(thread),
                    Err(error) => self.shared.set_member_problem(topic, Some(error.to_string())),
                }
            }
        }
        senders.push(sender);
        receiver
    }

    fn leave(&self) {
        self.member.stop();
    }

    fn is_blind(&self) -> bool {
        self.shared.is_unreachable()
    }

    fn health(&self) -> Result<(), AppendError> {
        self.shared.health()
    }
}
