//! The end of the topic, read once for all who follow it, and cursors over the whole of it.
//!
//! A cursor takes from the recent records where they reach back far enough, and else from the log: so there is no moment of
//! changing over, and who is slow holds nobody up. The task ends with the last who holds the [`Tail`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_eventlog::{EventLog, LogRecord, ReadError};
use tidegate_vocab::{LogEpoch, Offset, Topic, limits};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::PARTITION;

/// Between two attempts at a log that does not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Tail {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    log: Arc<dyn EventLog>,
    recent: Mutex<Recent>,
    /// The offset behind the last record that was read; none before the log has answered.
    head: watch::Sender<Option<Offset>>,
}

/// The records from an offset on, as far as there are any.
#[derive(Default)]
struct Recent {
    from: Offset,
    records: VecDeque<LogRecord>,
}

/// What the recent records have for somebody.
enum Found {
    Records(Vec<LogRecord>),
    /// They begin here, behind what is wanted.
    Behind(Offset),
    /// What is wanted has not been read yet: a log may answer where it ends before its records come.
    AtHead,
}

impl Tail {
    /// Begins to follow. Must be called within a runtime.
    pub(super) fn follow(log: Arc<dyn EventLog>) -> Arc<Self> {
        let shared = Arc::new(Shared { log, recent: Mutex::default(), head: watch::Sender::new(None) });
        let task = tokio::spawn(Arc::clone(&shared).run()).abort_handle();
        Arc::new(Self { shared, task })
    }

    /// Reads from the start of the topic; with where it ends now.
    pub(super) async fn from_start(self: &Arc<Self>) -> Result<(Cursor, Offset, Offset), ReadError> {
        let (start, end) = self.shared.log.bounds(PARTITION).await?;
        Ok((self.cursor(start), start, end))
    }

    /// Reads what comes from now on.
    pub(super) async fn from_now(self: &Arc<Self>) -> Result<Cursor, ReadError> {
        Ok(self.cursor(self.shared.log.high_watermark(PARTITION).await?))
    }

    fn cursor(self: &Arc<Self>, next: Offset) -> Cursor {
        let head = self.shared.head.subscribe();
        Cursor { tail: Arc::clone(self), head, epoch: self.shared.log.epoch(Topic::Presence), next }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn recent(&self) -> MutexGuard<'_, Recent> {
        // Each change is whole before the lock is let go: a panic elsewhere leaves nothing half done.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>) {
        let mut next = None;
        let mut is_failing = false;
        loop {
            let before = next;
            let ended = self.consume(&mut next).await;
            is_failing &= next == before;
            match ended {
                // What is not in the log, whoever wants it reads as not being there.
                ReadError::BelowStart { .. } | ReadError::BeyondEnd { .. } => next = None,
                ReadError::Unavailable { .. } => {}
            }
            if is_failing {
                tracing::debug!(error = %ended, "presence topic cannot be read");
            } else {
                tracing::warn!(error = %ended, "presence topic cannot be read; trying again");
                is_failing = true;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Reads on until that fails.
    async fn consume(&self, next: &mut Option<Offset>) -> ReadError {
        let from = match *next {
            Some(from) => from,
            None => match self.log.high_watermark(PARTITION).await {
                Ok(end) => {
                    *self.recent() = Recent { from: end, records: VecDeque::new() };
                    end
                }
                Err(error) => return error,
            },
        };
        self.head.send_replace(Some(from));
        let mut stream = self.log.consume(PARTITION, from);
        loop {
            match stream.next().await {
                Ok(records) => {
                    let Some(last) = records.last() else { continue };
                    let behind = last.offset.next();
                    *next = Some(behind);
                    self.recent().push(records);
                    self.head.send_replace(Some(behind));
                }
                Err(error) => return error,
            }
        }
    }
}

impl Recent {
    fn push(&mut self, records: Vec<LogRecord>) {
        self.records.extend(records);
        while self.records.len() > limits::PRESENCE_RECENT_RECORDS_LIMIT {
            self.from = self.records.pop_front().map_or(self.from, |oldest| oldest.offset.next());
        }
    }

    fn find(&self, next: Offset) -> Found {
        if next < self.from {
            return Found::Behind(self.from);
        }
        let first = self.records.partition_point(|record| record.offset < next);
        let found: Vec<_> =
            self.records.iter().skip(first).take(limits::TRANSITIONS_BATCH_LIMIT).cloned().collect();
        if found.is_empty() { Found::AtHead } else { Found::Records(found) }
    }
}

/// A place in the topic. Dropping a call of [`Cursor::next`] loses nothing.
pub(super) struct Cursor {
    tail: Arc<Tail>,
    head: watch::Receiver<Option<Offset>>,
    epoch: LogEpoch,
    next: Offset,
}

impl Cursor {
    /// What is read next.
    pub(super) fn place(&self) -> Offset {
        self.next
    }

    /// The next records; waits for some. None where the log has nothing, though its offsets go on.
    pub(super) async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        let shared = Arc::clone(&self.tail.shared);
        loop {
            if shared.log.epoch(Topic::Presence) != self.epoch {
                return Err(unavailable("the topic was made anew"));
            }
            let is_followed = self.head.borrow_and_update().is_some();
            let found = if is_followed { shared.recent().find(self.next) } else { Found::AtHead };
            let (records, or_next) = match found {
                Found::Records(records) => (records, self.next),
                Found::Behind(from) => (self.read(&shared).await?, from),
                Found::AtHead => {
                    self.head.changed().await.map_err(|_| unavailable("the reader has ended"))?;
                    continue;
                }
            };
            self.next = records.last().map_or(or_next, |last| last.offset.next()).max(self.next);
            return Ok(records);
        }
    }

    async fn read(&mut self, shared: &Shared) -> Result<Vec<LogRecord>, ReadError> {
        let (rows, bytes) = (limits::TRANSITIONS_BATCH_LIMIT, limits::READ_BYTES_LIMIT);
        loop {
            match shared.log.read(PARTITION, self.next, rows, bytes).await {
                // What retention took is as if it had never been said.
                Err(ReadError::BelowStart { start }) if start > self.next => self.next = start,
                Ok(mut records) => {
                    records.truncate(rows);
                    return Ok(records);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn unavailable(reason: &str) -> ReadError {
    ReadError::Unavailable { reason: reason.into() }
}
