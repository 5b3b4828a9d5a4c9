//! A log that fails when told to; otherwise the embedded one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use prost::Message as _;
use tidegate_eventlog::embedded::EmbeddedLog;
use tidegate_eventlog::{
    AppendError, Appended, Assignment, BoxFuture, EventLog, LogRecord, NewRecord, ReadError, RecordStream,
};
use tidegate_proto::log::v1::{self as proto, record::Body};
use tidegate_vocab::{LogEpoch, Offset, PartitionCounts, PartitionId, Topic};

/// So often others go on while a slow append does not.
const A_MOMENT: usize = 200;

#[derive(Clone)]
pub(crate) enum AppendFault {
    Fails(AppendError),
    NeverAnswers,
    /// Appends it twice and answers where it is last, as a producer that repeats an attempt which had been written.
    Repeats,
    /// Appends it, answers a moment later, and notes whose presence is on its way together.
    Slow,
}

/// Whose presence records are on their way.
#[derive(Default)]
pub(crate) struct OnTheirWay {
    now: BTreeMap<Vec<u8>, usize>,
    /// Different members' at the same time, at most.
    pub(crate) most: usize,
    /// All there were.
    pub(crate) ever: BTreeSet<Vec<u8>>,
}

impl OnTheirWay {
    fn begin(&mut self, emitter: &[u8]) {
        *self.now.entry(emitter.to_vec()).or_default() += 1;
        self.most = self.most.max(self.now.len());
        self.ever.insert(emitter.to_vec());
    }

    fn end(&mut self, emitter: &[u8]) {
        let count = self.now.get_mut(emitter).expect("it began");
        *count -= 1;
        if *count == 0 {
            self.now.remove(emitter);
        }
    }
}

fn emitter_of(record: &NewRecord) -> Vec<u8> {
    match proto::Record::decode(record.value.clone()).expect("a record").body {
        Some(Body::Presence(presence)) => presence.emitter.to_vec(),
        _ => Vec::new(),
    }
}

#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) append: Mutex<Option<AppendFault>>,
    pub(crate) on_their_way: Arc<Mutex<OnTheirWay>>,
    pub(crate) unreadable: AtomicBool,
    /// Added to the epoch.
    pub(crate) epoch: AtomicU64,
    pub(crate) unhealthy: AtomicBool,
    /// Of every partition: what lies below is gone, as if retention had taken it.
    pub(crate) start: AtomicU64,
    /// Of every partition: the offset before this holds no record, as the mark of a foreign transaction. 0 for none.
    pub(crate) mark_before: AtomicU64,
    /// Tells the router what it owns, besides what the log says.
    pub(crate) assign: Mutex<Option<tokio::sync::mpsc::Sender<Assignment>>>,
}

pub(crate) struct FaultyLog {
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) faults: Arc<Faults>,
}

fn down() -> ReadError {
    ReadError::Unavailable { reason: "told to fail".into() }
}

impl EventLog for FaultyLog {
    fn counts(&self) -> PartitionCounts {
        self.log.counts()
    }

    fn epoch(&self, topic: Topic) -> LogEpoch {
        LogEpoch(self.log.epoch(topic).0.wrapping_add(self.faults.epoch.load(Ordering::SeqCst)))
    }

    fn append_record(
        &self,
        partition: PartitionId,
        record: NewRecord,
    ) -> BoxFuture<'static, Result<Appended, AppendError>> {
        match self.faults.append.lock().expect("lock").clone() {
            None => self.log.append_record(partition, record),
            Some(AppendFault::Fails(error)) => Box::pin(async move { Err(error) }),
            Some(AppendFault::NeverAnswers) => {
                drop(self.log.append_record(partition, record));
                Box::pin(std::future::pending())
            }
            Some(AppendFault::Slow) => {
                let (emitter, on_their_way) = (emitter_of(&record), Arc::clone(&self.faults.on_their_way));
                on_their_way.lock().expect("lock").begin(&emitter);
                let appending = self.log.append_record(partition, record);
                Box::pin(async move {
                    let appended = appending.await;
                    for _ in 0..A_MOMENT {
                        tokio::task::yield_now().await;
                    }
                    on_their_way.lock().expect("lock").end(&emitter);
                    appended
                })
            }
            Some(AppendFault::Repeats) => {
                let first = self.log.append_record(partition, record.clone());
                let last = self.log.append_record(partition, record);
                Box::pin(async move {
                    first.await?;
                    Ok(Appended { may_repeat: true, ..last.await? })
                })
            }
        }
    }

    fn start(&self, partition: PartitionId) -> BoxFuture<'_, Result<Offset, ReadError>> {
        Box::pin(async move {
            let start = self.log.start(partition).await?;
            Ok(start.max(Offset(self.faults.start.load(Ordering::SeqCst))))
        })
    }

    fn high_watermark(&self, partition: PartitionId) -> BoxFuture<'_, Result<Offset, ReadError>> {
        self.log.high_watermark(partition)
    }

    fn offset_at(&self, partition: PartitionId, time_ms: u64) -> BoxFuture<'_, Result<Offset, ReadError>> {
        self.log.offset_at(partition, time_ms)
    }

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        max_rows: usize,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<LogRecord>, ReadError>> {
        let start = Offset(self.faults.start.load(Ordering::SeqCst));
        if from < start {
            return Box::pin(async move { Err(ReadError::BelowStart { start }) });
        }
        let mark = self.faults.mark_before.load(Ordering::SeqCst);
        let reading = self.log.read(partition, from, max_rows, max_bytes);
        Box::pin(async move {
            let mut rows = reading.await?;
            rows.retain(|row| row.offset.next().0 != mark);
            Ok(rows)
        })
    }

    fn consume(&self, partition: PartitionId, from: Offset) -> Box<dyn RecordStream> {
        Box::new(FaultyStream { inner: self.log.consume(partition, from), faults: Arc::clone(&self.faults) })
    }

    fn assignments(&self) -> tokio::sync::mpsc::Receiver<Assignment> {
        let mut inner = self.log.assignments();
        let (sender, receiver) = tokio::sync::mpsc::channel(256);
        *self.faults.assign.lock().expect("lock") = Some(sender.clone());
        tokio::spawn(async move {
            while let Some(assignment) = inner.recv().await {
                if sender.send(assignment).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    fn health(&self) -> Result<(), AppendError> {
        if self.faults.unhealthy.load(Ordering::SeqCst) {
            return Err(AppendError::Unavailable { reason: "told to fail".into() });
        }
        self.log.health()
    }
}

struct FaultyStream {
    inner: Box<dyn RecordStream>,
    faults: Arc<Faults>,
}

impl RecordStream for FaultyStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<LogRecord>, ReadError>> {
        Box::pin(async move {
            let records = self.inner.next().await?;
            // The records are lost with this stream: a reader has to ask for them anew.
            if self.faults.unreadable.load(Ordering::SeqCst) { Err(down()) } else { Ok(records) }
        })
    }
}
