//! Reading a bounded piece of a partition: history, the tail of a new owner, what a slow node missed.
//!
//! Owns a few consumers that belong to no group, made when first needed. A read takes one, on the blocking pool;
//! one that is still at the right place of the right partition goes on without asking the broker anything. A
//! partition is read by one at a time. A consumer that is not needed for two seconds stops fetching.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tidegate_eventlog::{LogRecord, ReadError};
use tidegate_vocab::{Offset, PartitionId, limits};
use tokio::sync::Semaphore;

use crate::native;
use crate::observer::Observer;
use crate::queries::Queries;
use crate::records;
use crate::shared::{Shared, lock, unreadable};
use crate::threads::Detached;
use crate::turns::Turns;

/// Reads that may run at once, each on a thread with a consumer of its own.
const READERS_LIMIT: usize = 8;
/// How long one read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reader waits, its turn included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// A consumer that was not needed for so long stops fetching.
const WARM_TIME: Duration = Duration::from_secs(2);

/// What to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) partition: PartitionId,
    pub(crate) from: Offset,
    pub(crate) max_rows: usize,
    pub(crate) max_bytes: usize,
}

/// The pool.
pub(crate) struct Readers {
    shared: Arc<Shared>,
    queries: Arc<Queries>,
    idle: Mutex<Vec<Reader>>,
    slots: Arc<Semaphore>,
    turns: Turns,
}

impl Readers {
    pub(crate) fn new(shared: Arc<Shared>, queries: Arc<Queries>) -> Arc<Self> {
        let turns = Turns::new(shared.options.counts);
        let slots = Arc::new(Semaphore::new(READERS_LIMIT));
        Arc::new(Self { shared, queries, idle: Mutex::default(), slots, turns })
    }

    pub(crate) async fn read(self: &Arc<Self>, piece: Piece) -> Result<Vec<LogRecord>, ReadError> {
        self.shared.readable(piece.partition)?;
        let reading = async {
            let turn = self.turns.take(piece.partition).await;
            let slot = Arc::clone(&self.slots).acquire_owned().await;
            let readers = Arc::clone(self);
            let rows = tokio::task::spawn_blocking(move || {
                let _held = (turn, slot);
                readers.read_now(piece)
            });
            rows.await.unwrap_or_else(|error| Err(unreadable(format!("the read did not run: {error}"))))
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, reading).await;
        answer.unwrap_or_else(|_| Err(unreadable("brokers did not answer in time")))
    }

    fn read_now(&self, piece: Piece) -> Result<Vec<LogRecord>, ReadError> {
        let mut reader = self.take(piece).map_err(|error| unreadable(error.to_string()))?;
        let rows = reader.read(&self.queries, self.shared.name(piece.partition.topic), piece);
        reader.used = Instant::now();
        let mut idle = lock(&self.idle);
        if idle.len() < READERS_LIMIT && !self.shared.is_closed() {
            idle.push(reader);
        }
        rows
    }

    /// An idle reader, best one that is there already, worst a new one.
    fn take(&self, piece: Piece) -> KafkaResult<Reader> {
        let mut idle = lock(&self.idle);
        let wanted = Some((piece.partition, piece.from));
        let best = idle.iter().position(|reader| reader.warm == wanted);
        // Otherwise the one least likely to be wanted where it is.
        let best = best.or_else(|| idle.iter().position(|reader| reader.warm.is_none()));
        let best = best.or_else(|| (idle.len() >= READERS_LIMIT).then_some(0));
        match best {
            Some(index) => Ok(idle.remove(index)),
            None => {
                drop(idle);
                Reader::new(&self.shared)
            }
        }
    }

    /// Lets idle readers hear what librdkafka has to say, and stops those that were not needed for a while.
    pub(crate) fn cool(&self) {
        for reader in lock(&self.idle).iter_mut() {
            if reader.used.elapsed() > WARM_TIME {
                reader.stop();
                let _ = reader.consumer.poll(Duration::ZERO);
            }
        }
    }

    /// Closes the consumers that nobody uses now; the others are closed when their reads are done.
    pub(crate) fn close(&self) {
        let idle = std::mem::take(&mut *lock(&self.idle));
        drop(idle);
    }
}

struct Reader {
    consumer: Detached<BaseConsumer<Observer>>,
    /// Where it fetches, and what it yields next.
    warm: Option<(PartitionId, Offset)>,
    used: Instant,
}

impl Reader {
    fn new(shared: &Arc<Shared>) -> KafkaResult<Self> {
        let mut config = shared.options.reader("reader");
        config
            .set("enable.partition.eof", "true")
            // A read of another partition waits for at most this, when the one before was at its end.
            .set("fetch.wait.max.ms", "20")
            .set("queued.min.messages", "2000")
            .set("queued.max.messages.kbytes", "2048")
            .set("max.partition.fetch.bytes", "1048576");
        let consumer = shared.options.finish(config).create_with_context(Observer::new(shared, "reader"))?;
        Ok(Self { consumer: Detached::new(consumer), warm: None, used: Instant::now() })
    }

    fn read(&mut self, queries: &Queries, name: &str, piece: Piece) -> Result<Vec<LogRecord>, ReadError> {
        let mut rows = Rows::new(piece);
        if self.warm == Some((piece.partition, piece.from)) {
            // What was fetched already is enough of an answer.
            while !rows.is_full() {
                let Some(Ok(message)) = self.consumer.poll(Duration::ZERO) else { break };
                rows.push(records::record(&message));
            }
            if !rows.all.is_empty() {
                self.warm = Some((piece.partition, rows.next));
                return Ok(rows.all);
            }
        }
        self.stop();
        let range = queries.range_now(piece.partition)?;
        range.check(piece.from)?;
        if piece.from.0 == range.end {
            return Ok(rows.all);
        }
        let assignment = records::at(name, piece.partition.number, Some(piece.from));
        self.consumer.assign(&assignment).map_err(|error| unreadable(error.to_string()))?;
        let is_at_end = self.fill(&mut rows, range.end);
        match is_at_end {
            Ok(false) => self.warm = Some((piece.partition, rows.next)),
            Ok(true) => {
                let number = i32::try_from(piece.partition.number).unwrap_or(i32::MAX);
                let seen = native::fetched_high_watermark(self.consumer.client(), name, number);
                self.stop_fetching();
                // A broker that was deposed and does not know it yet ends sooner: what it lacks is not gone.
                if rows.next.0 < range.end && seen.is_none_or(|seen| seen < range.end) {
                    return Err(unreadable("the broker that was read from is behind the one that was asked"));
                }
            }
            Err(AfterError::OutOfRange) => {
                self.stop_fetching();
                queries.range_now(piece.partition)?.check(piece.from)?;
                return Err(unreadable("brokers disagree on where the log begins and ends"));
            }
            Err(AfterError::Failed(error)) => {
                self.stop_fetching();
                return Err(error);
            }
        }
        Ok(rows.all)
    }

    /// Takes what comes until there is enough, or nothing more. Returns whether that was the end.
    fn fill(&mut self, rows: &mut Rows, end: u64) -> Result<bool, AfterError> {
        let deadline = Instant::now() + READ_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AfterError::Failed(unreadable("brokers sent no records in time")));
            }
            match self.consumer.poll(left.min(Duration::from_millis(100))) {
                None => {}
                Some(Ok(message)) => rows.push(records::record(&message)),
                // Also where only marks of transactions are left, which are no records.
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(true),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::AutoOffsetReset) => return Err(AfterError::OutOfRange),
                    Some(code) if records::ends_reading(code) => {
                        return Err(AfterError::Failed(unreadable(error.to_string())));
                    }
                    _ => {}
                },
            }
            if rows.next.0 >= end {
                return Ok(true);
            }
            if rows.is_full() {
                return Ok(false);
            }
        }
    }

    fn stop(&mut self) {
        if self.warm.is_some() {
            self.stop_fetching();
        }
    }

    fn stop_fetching(&mut self) {
        self.warm = None;
        if let Err(error) = self.consumer.unassign() {
            tracing::warn!(%error, "Kafka reader could not be stopped");
        }
    }
}

enum AfterError {
    OutOfRange,
    Failed(ReadError),
}

/// The rows of one answer, bounded.
struct Rows {
    all: Vec<LogRecord>,
    bytes: usize,
    next: Offset,
    max_rows: usize,
    max_bytes: usize,
}

impl Rows {
    fn new(piece: Piece) -> Self {
        let max_rows = piece.max_rows.clamp(1, limits::READ_ROWS_LIMIT * 4);
        Self { all: Vec::new(), bytes: 0, next: piece.from, max_rows, max_bytes: piece.max_bytes }
    }

    fn push(&mut self, record: LogRecord) {
        // What an earlier assignment had fetched does not belong here.
        if record.offset >= self.next {
            self.bytes += records::weight(&record);
            self.next = record.offset.next();
            self.all.push(record);
        }
    }

    fn is_full(&self) -> bool {
        self.all.len() >= self.max_rows || (self.bytes >= self.max_bytes && !self.all.is_empty())
    }
}
