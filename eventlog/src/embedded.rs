//! The embedded log: what `tidegate dev` appends to, on one machine's disk.
//!
//! Owns two keyspaces of the store: records by (topic, partition, offset), and what the directory says about
//! itself. One thread appends (`log-writer`), one forgets (`log-keeper`); reads run on the caller's threads.
//! Invariants: offsets of a partition are dense and never go back, not even when retention has emptied it;
//! nobody is shown or told of a record before it is synced; a record's time never falls within its partition.
//! Does not replicate, and does not know what a record means.

mod codec;
mod disk;
mod failure;
mod keeper;
mod meta;
mod options;
mod reader;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace};
use tidegate_vocab::{LogEpoch, Offset, PartitionCounts, PartitionId, Topic, limits};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::codec::is_record_key;
use self::keeper::{Keeper, Stop};
pub use self::options::{Clock, EmbeddedOptions, OpenError, RetentionMs};
use self::reader::Stream;
use self::shared::{Partition, Shared};
use self::writer::{Pending, Tail, Writer};
use crate::{
    AppendError, Appended, Assignment, BoxFuture, EventLog, LogRecord, NewRecord, ReadError, RecordStream,
    store,
};

/// Bytes that may wait for the writer, all callers together: the queue's limit alone would allow 512 MiB.
const QUEUED_BYTES_LIMIT: usize = 64 * 1024 * 1024;
/// Headers of one record: their number is stored in a byte.
const HEADERS_LIMIT: usize = u8::MAX as usize;
/// Bytes of one record, key, value and headers.
const RECORD_BYTES_LIMIT: usize = 8 * 1024 * 1024;
/// After this an append is answered as indeterminate: the store may never come back to it.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long closing waits for the threads.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The embedded log. Closed when dropped.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    /// None once closed.
    queue: RwLock<Option<mpsc::Sender<Pending>>>,
    stop: Arc<Stop>,
    threads: Mutex<Vec<(JoinHandle<()>, Ended)>>,
    assignments_taken: AtomicBool,
    /// Keeps the receivers of [`EventLog::assignments`] open.
    assignment_senders: Mutex<Vec<mpsc::Sender<Assignment>>>,
}

impl EmbeddedLog {
    /// Opens the log in `database` and starts its threads. Blocks on the disk.
    ///
    /// # Errors
    /// Refuses a directory of another format or with other partition counts, and says what to do.
    pub fn open(database: Database, options: EmbeddedOptions) -> Result<Arc<Self>, OpenError> {
        let records = store::open_keyspace(&database, "log_records")?;
        let meta = store::open_keyspace(&database, "log_meta")?;
        let topics = meta::open(&database, &meta, &options.counts)?;
        let mut partitions = Vec::new();
        let mut tails = Vec::new();
        for topic in Topic::ALL {
            for number in 0..options.counts.of(topic) {
                let id = PartitionId { topic, number };
                let (start, tail) = recover(&records, &meta, id)?;
                partitions.push(Partition::new(id, start, tail.next));
                tails.push(tail);
            }
        }
        let newest_ms = tails.iter().map(|tail| tail.time_ms).max().unwrap_or(0);
        let shared = Arc::new(Shared::new(database, records, meta, topics, partitions, options, newest_ms));
        let (queue, waiting) = mpsc::channel(limits::APPEND_QUEUE_LIMIT);
        let stop = Arc::new(Stop::default());
        let writer = Writer::new(Arc::clone(&shared), waiting, tails);
        let keeper = Keeper::new(Arc::clone(&shared), Arc::clone(&stop));
        let log = Self {
            shared,
            queue: RwLock::new(Some(queue)),
            stop,
            threads: Mutex::default(),
            assignments_taken: AtomicBool::new(false),
            assignment_senders: Mutex::default(),
        };
        log.spawn("log-writer", move || writer.run())?;
        log.spawn("log-keeper", move || keeper.run())?;
        Ok(Arc::new(log))
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let (running, ended) = std::sync::mpsc::sync_channel(0);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                // Dropped at the end, also by a panic: that is what whoever closes the log waits for.
                let _running: std::sync::mpsc::SyncSender<()> = running;
                work();
            })
            .map_err(OpenError::Thread)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push((thread, ended));
        Ok(())
    }

    /// Takes no more appends, answers those that wait, syncs, ends the streams and stops the threads; blocks until
    /// then, at most 10 s. Done by `drop` too; a second call does nothing. The directory can be opened again once
    /// every stream is dropped as well.
    pub fn close(&self) {
        let queue = self.queue.write().unwrap_or_else(PoisonError::into_inner).take();
        if queue.is_none() {
            return;
        }
        drop(queue);
        self.stop.stop();
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for (thread, ended) in threads {
            join(thread, &ended, deadline);
        }
        if let Err(error) = self.shared.database.persist(fjall::PersistMode::SyncAll) {
            tracing::error!(%error, "store could not be synced when the log was closed");
        }
        self.shared.partitions.iter().for_each(Partition::close);
    }

    fn enqueue(&self, partition: PartitionId, record: NewRecord) -> Result<Answer, AppendError> {
        let unavailable = |reason: String| AppendError::Unavailable { reason };
        let index = self
            .shared
            .index(partition)
            .ok_or_else(|| unavailable(format!("there is no partition {partition}")))?;
        let bytes = record.bytes();
        if record.key.len() > usize::from(u16::MAX) || bytes > RECORD_BYTES_LIMIT {
            return Err(unavailable(format!("a record of {bytes} bytes is too large")));
        }
        if record.headers.len() > HEADERS_LIMIT {
            return Err(unavailable(format!("a record has at most {HEADERS_LIMIT} headers")));
        }
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or_else(|| unavailable("the log is closed".into()))?;
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let (answer, answered) = oneshot::channel();
        let sent = if queued > QUEUED_BYTES_LIMIT {
            Err(AppendError::Busy)
        } else {
            queue.try_send(Pending { index, record, answer }).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => AppendError::Busy,
                mpsc::error::TrySendError::Closed(_) => unavailable("the log's writer has ended".into()),
            })
        };
        if let Err(error) = sent {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(error);
        }
        Ok(answered)
    }
}

/// Hears nothing and is disconnected when the thread ends.
type Ended = std::sync::mpsc::Receiver<()>;
type Answer = oneshot::Receiver<Result<Appended, AppendError>>;

/// Where a partition starts and goes on, from what is stored of it.
fn recover(records: &Keyspace, meta: &Keyspace, id: PartitionId) -> Result<(u64, Tail), OpenError> {
    let bounds = meta::bounds(meta, id)?;
    let all = codec::record_key(id, 0)..=codec::record_key(id, u64::MAX);
    let Some(last) = records.range(all).next_back() else {
        return Ok((bounds.start, Tail { next: bounds.next, time_ms: bounds.time_ms }));
    };
    let (key, value) = last.into_inner()?;
    let damaged = |_| OpenError::Damaged { what: "last record of a partition" };
    let next = codec::offset_of(&key).map_err(damaged)? + 1;
    let time_ms = codec::time_of(&value).map_err(damaged)?;
    // It may be one that is forgotten and not yet gone from the store: then the bounds know better.
    let tail = Tail { next: next.max(bounds.next), time_ms: time_ms.max(bounds.time_ms) };
    Ok((bounds.start, tail))
}

/// The standard library joins without a deadline, and a store whose background work died may never return.
fn join(thread: JoinHandle<()>, ended: &Ended, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    if ended.recv_timeout(left) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        tracing::error!(thread = thread.thread().name(), "log thread did not end in time");
        return;
    }
    if let Err(_panic) = thread.join() {
        tracing::error!("log thread has panicked");
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl EventLog for EmbeddedLog {
    fn counts(&self) -> PartitionCounts {
        self.shared.counts
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
        let queued = self.enqueue(partition, record);
        Box::pin(async move {
            let indeterminate = |reason: &str| AppendError::Indeterminate { reason: reason.into() };
            match tokio::time::timeout(APPEND_TIMEOUT, queued?).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(indeterminate("the log's writer has ended")),
                Err(_) => Err(indeterminate("the log did not answer in 5 s")),
            }
        })
    }

    fn start(&self, partition: PartitionId) -> BoxFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async move { Ok(Offset(self.shared.known(partition)?.start())) })
    }

    fn high_watermark(&self, partition: PartitionId) -> BoxFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async move { Ok(Offset(self.shared.known(partition)?.high_watermark())) })
    }

    fn offset_at(&self, partition: PartitionId, time_ms: u64) -> BoxFuture<'_, Result<Offset, ReadError>> {
        Box::pin(reader::offset_at(Arc::clone(&self.shared), partition, time_ms))
    }

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        max_rows: usize,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<LogRecord>, ReadError>> {
        Box::pin(reader::read(Arc::clone(&self.shared), partition, from, max_rows, max_bytes))
    }

    fn consume(&self, partition: PartitionId, from: Offset) -> Box<dyn RecordStream> {
        Box::new(Stream::new(Arc::clone(&self.shared), partition, from))
    }

    fn assignments(&self) -> mpsc::Receiver<Assignment> {
        let mine: Vec<_> = self.shared.counts.followed().collect();
        let (sender, receiver) = mpsc::channel(mine.len().max(1));
        if !self.assignments_taken.swap(true, Ordering::SeqCst) {
            for partition in mine {
                // invariant: the channel has room for every followed partition and was made just now
                let _ = sender.try_send(Assignment::Assigned(partition));
            }
        }
        self.assignment_senders.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    fn health(&self) -> Result<(), AppendError> {
        self.shared.health()
    }
}
