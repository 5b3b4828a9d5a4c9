//! One backend's read: all upstream partitions merged, each in its own order, with a token after every message.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tidegate_eventlog::{BoxFuture, LogRecord, ReadError, RecordStream};
use tidegate_vocab::{ErrorKind, Offset, PartitionId, Position, Problem, Topic};

use super::token::ResumeToken;
use super::{ReadMessage, Reading};
use crate::Router;
use crate::context::Context;

/// Between two attempts at a log that does not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// From where a backend reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    /// From the first message that the log has.
    Start,
    /// From now on.
    Now,
    /// From where an earlier read had got to.
    Resume(ResumeToken),
}

/// What a read comes upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamItem {
    /// What a client said, and where that stands.
    Message(ReadMessage, Position),
    /// Messages of a partition in `[from, upto)` will not come.
    Lost {
        /// The partition's number.
        partition: u32,
        /// The first offset that is gone.
        from: Offset,
        /// The first offset that is not.
        upto: Offset,
        /// `expired`, `unreadable` or `epoch`.
        reason: &'static str,
    },
}

/// An item, or only a new token, and the token that covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamUpdate {
    /// The item.
    pub item: Option<UpstreamItem>,
    /// Everything up to and with it.
    pub resume: ResumeToken,
}

/// See the module. [`UpstreamReader::next`] never ends by itself.
pub struct UpstreamReader {
    context: Arc<Context>,
    token: ResumeToken,
    ready: VecDeque<(u32, Step)>,
    pending: FuturesUnordered<BoxFuture<'static, Came>>,
    greeted: bool,
}

/// A partition's answer, with its source for the next question.
type Came = (u32, Source, Result<Vec<LogRecord>, ReadError>);

/// The records of one partition; opened anew after an error.
type Source = Option<Box<dyn RecordStream>>;

/// What waits to be handed out of one partition.
enum Step {
    Record(LogRecord),
    /// Told before anything else of the partition.
    Lost {
        from: Offset,
        upto: Offset,
        reason: &'static str,
    },
    /// All records before it were handed out: ask for the next.
    Ask(Source),
}

impl Router {
    /// Opens a read of what clients say.
    ///
    /// # Errors
    /// When the log does not answer, or the token is ahead of it.
    pub async fn read_upstream(&self, from: ReadFrom) -> Result<UpstreamReader, Problem> {
        let context = Arc::clone(&self.context);
        let count = context.log.counts().of(Topic::Upstream);
        let epoch = context.log.epoch(Topic::Upstream);
        let mut token = ResumeToken { epoch, next: Vec::with_capacity(count as usize) };
        let mut ready = VecDeque::new();
        for number in 0..count {
            let id = PartitionId { topic: Topic::Upstream, number };
            let start = context.log.start(id).await.map_err(unavailable)?;
            let next = match &from {
                ReadFrom::Start => start,
                ReadFrom::Now => context.log.high_watermark(id).await.map_err(unavailable)?,
                ReadFrom::Resume(old) if old.epoch != epoch => {
                    let from = old.next.get(number as usize).copied().unwrap_or_default();
                    ready.push_back((number, Step::Lost { from, upto: start, reason: "epoch" }));
                    start
                }
                ReadFrom::Resume(old) => {
                    let next = *old.next.get(number as usize).ok_or_else(not_ours)?;
                    if next > context.log.high_watermark(id).await.map_err(unavailable)? {
                        return Err(not_ours());
                    }
                    next
                }
            };
            token.next.push(next);
            ready.push_back((number, Step::Ask(None)));
        }
        Ok(UpstreamReader { context, token, ready, pending: FuturesUnordered::new(), greeted: false })
    }
}

impl UpstreamReader {
    /// The next update; the first carries only the token. Cancel-safe: a dropped call loses nothing.
    ///
    /// # Errors
    /// When a record needs a newer router: nobody here can read on.
    pub async fn next(&mut self) -> Result<UpstreamUpdate, Problem> {
        if !self.greeted {
            self.greeted = true;
            return Ok(self.update(None));
        }
        loop {
            while let Some((number, step)) = self.ready.pop_front() {
                if let Some(item) = self.take_step(number, step)? {
                    return Ok(self.update(Some(item)));
                }
            }
            if let Some((number, source, records)) = self.pending.next().await {
                self.records_came(number, source, records);
            }
        }
    }

    fn update(&self, item: Option<UpstreamItem>) -> UpstreamUpdate {
        UpstreamUpdate { item, resume: self.token.clone() }
    }

    fn take_step(&mut self, number: u32, step: Step) -> Result<Option<UpstreamItem>, Problem> {
        let partition = PartitionId { topic: Topic::Upstream, number };
        match step {
            Step::Ask(source) => {
                self.ask(partition, source);
                Ok(None)
            }
            Step::Lost { from, upto, reason } => {
                self.pass(number, upto);
                Ok(Some(UpstreamItem::Lost { partition: number, from, upto, reason }))
            }
            Step::Record(record) => match super::read(&record) {
                Reading::Message(message) => {
                    self.pass(number, record.offset.next());
                    let position = Position::new(self.token.epoch, partition, record.offset);
                    Ok(Some(UpstreamItem::Message(message, position)))
                }
                Reading::Unreadable => {
                    let (from, upto) = (record.offset, record.offset.next());
                    self.pass(number, upto);
                    tracing::error!(%partition, offset = %from, "upstream record is not readable");
                    Ok(Some(UpstreamItem::Lost { partition: number, from, upto, reason: "unreadable" }))
                }
                Reading::UnknownVersion(version) => {
                    tracing::error!(%partition, version, "upstream record needs a newer router");
                    self.ready.push_front((number, Step::Record(record)));
                    Err(Problem::new(ErrorKind::Internal, "a record needs a newer router to be read"))
                }
            },
        }
    }

    fn pass(&mut self, number: u32, next: Offset) {
        if let Some(known) = self.token.next.get_mut(number as usize) {
            *known = (*known).max(next);
        }
    }

    fn ask(&mut self, partition: PartitionId, source: Source) {
        let from = self.token.next.get(partition.number as usize).copied().unwrap_or_default();
        let mut records = source.unwrap_or_else(|| self.context.log.consume(partition, from));
        self.pending.push(Box::pin(async move {
            let came = records.next().await;
            if let Err(ReadError::Unavailable { .. }) = &came {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            (partition.number, Some(records), came)
        }));
    }

    fn records_came(&mut self, number: u32, source: Source, records: Result<Vec<LogRecord>, ReadError>) {
        match records {
            Ok(records) => {
                self.ready.extend(records.into_iter().map(|record| (number, Step::Record(record))));
                self.ready.push_back((number, Step::Ask(source)));
            }
            Err(ReadError::Unavailable { .. }) => self.ready.push_back((number, Step::Ask(None))),
            Err(ReadError::BelowStart { start }) => self.lose(number, start, "expired"),
            Err(ReadError::BeyondEnd { end }) => {
                // The log was cut back: what comes next takes offsets that were read before.
                if let Some(known) = self.token.next.get_mut(number as usize) {
                    *known = end;
                }
                self.lose(number, end, "epoch");
            }
        }
    }

    fn lose(&mut self, number: u32, upto: Offset, reason: &'static str) {
        let from = self.token.next.get(number as usize).copied().unwrap_or_default();
        self.ready.push_back((number, Step::Lost { from, upto, reason }));
        self.ready.push_back((number, Step::Ask(None)));
    }
}

fn unavailable(error: ReadError) -> Problem {
    tracing::warn!(%error, "upstream log does not answer");
    Problem::new(ErrorKind::LogUnavailable, "the log cannot be read now").retry_after_ms(1_000)
}

fn not_ours() -> Problem {
    Problem::new(ErrorKind::BadRequest, "resume token is ahead of the log or of another one")
}
