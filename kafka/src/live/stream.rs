//! One consumption of one partition.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use tidegate_eventlog::{BoxFuture, LogRecord, ReadError, RecordStream};
use tidegate_vocab::{Offset, PartitionId, limits};
use tokio::sync::{Notify, oneshot};

use super::{Command, Lane, Live, Queue};
use crate::records;
use crate::shared::unreadable;

/// How often a stream looks by itself whether something came or the log was closed: a wake-up that got lost costs
/// no more than this.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long an assignment that the broker called out of range, and that is not, waits before the next attempt.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How many such attempts there are before the consumer is told.
const RETRIES_LIMIT: u32 = 20;

/// Its place moves only when rows are handed out, and nothing is awaited between taking them from librdkafka and
/// handing them out: dropping a `next` loses nothing.
pub(crate) struct Stream {
    live: Arc<Live>,
    partition: PartitionId,
    next: Offset,
    source: Source,
    /// Met behind rows that had to be handed out first.
    failure: Option<Failure>,
    retries: u32,
}

enum Source {
    /// Nothing is assigned.
    None,
    Assigning {
        lane: Lane,
        wake: Arc<Notify>,
        reply: oneshot::Receiver<Result<Queue, String>>,
    },
    Open {
        lane: Lane,
        wake: Arc<Notify>,
        queue: Queue,
    },
    /// Nothing is assigned, and the last assignment was refused: is the offset below the start or beyond the end?
    OutOfRange,
}

/// Why an assignment yields no more.
enum Failure {
    OutOfRange,
    Failed(String),
}

impl Stream {
    pub(super) fn new(live: Arc<Live>, partition: PartitionId, from: Offset) -> Self {
        let mut stream =
            Self { live, partition, next: from, source: Source::None, failure: None, retries: 0 };
        // At once and not at the first `next`: what is fetched until then need not be waited for.
        let _ = stream.assign();
        stream
    }

    fn assign(&mut self) -> Result<(), ReadError> {
        self.live.shared.known(self.partition).map_err(unreadable)?;
        let lane = self.live.lane_for(self.partition).map_err(unreadable)?;
        let wake = Arc::new(Notify::new());
        let (reply, replied) = oneshot::channel();
        let command =
            Command::Assign { partition: self.partition, from: self.next, wake: Arc::clone(&wake), reply };
        // A lane that is gone has dropped the reply: that is found out below.
        let _ = lane.commands.send(command);
        self.source = Source::Assigning { lane, wake, reply: replied };
        Ok(())
    }

    /// Gives back what is assigned.
    fn release(&mut self) {
        match std::mem::replace(&mut self.source, Source::None) {
            Source::None | Source::OutOfRange => {}
            Source::Assigning { lane, mut reply, .. } => {
                let queue = reply.try_recv().ok().and_then(Result::ok);
                // From here on the lane finds nobody to give the queue to.
                drop(reply);
                lane.release(self.partition, queue);
            }
            Source::Open { lane, queue, .. } => lane.release(self.partition, Some(queue)),
        }
    }

    fn give_up(&mut self, failure: Failure) -> Result<(), ReadError> {
        self.release();
        match failure {
            Failure::OutOfRange => {
                self.source = Source::OutOfRange;
                Ok(())
            }
            Failure::Failed(reason) => Err(unreadable(reason)),
        }
    }

    async fn next_rows(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        loop {
            match &mut self.source {
                Source::None => self.assign()?,
                Source::Assigning { lane, wake, reply } => {
                    let replied = reply.await;
                    let (lane, wake) = (lane.clone(), Arc::clone(wake));
                    match replied {
                        Ok(Ok(queue)) => self.source = Source::Open { lane, wake, queue },
                        Ok(Err(reason)) => {
                            self.release();
                            return Err(unreadable(reason));
                        }
                        Err(_) => {
                            self.release();
                            return Err(unreadable("the log is closed"));
                        }
                    }
                }
                Source::Open { wake, queue, .. } => {
                    if self.failure.is_none() {
                        let (rows, failure) = drain(queue, self.next);
                        self.failure = failure;
                        if let Some(last) = rows.last() {
                            self.retries = 0;
                            self.next = last.offset.next();
                            return Ok(rows);
                        }
                    }
                    if let Some(failure) = self.failure.take() {
                        self.give_up(failure)?;
                    } else if self.live.shared.is_closed() {
                        return Err(unreadable("the log is closed"));
                    } else {
                        let _ = tokio::time::timeout(LOOK_INTERVAL, wake.notified()).await;
                    }
                }
                Source::OutOfRange => {
                    self.live.queries.range(self.partition).await?.check(self.next)?;
                    // The broker has changed its mind, or its leader: a new one learns the end a moment later.
                    tokio::time::sleep(RETRY_DELAY).await;
                    self.retries += 1;
                    self.source = Source::None;
                    if self.retries > RETRIES_LIMIT {
                        self.retries = 0;
                        return Err(unreadable("brokers disagree on where the log begins and ends"));
                    }
                }
            }
        }
    }
}

/// Takes what is there, up to the bounds of one step.
fn drain(queue: &Queue, from: Offset) -> (Vec<LogRecord>, Option<Failure>) {
    let mut rows: Vec<LogRecord> = Vec::new();
    let mut bytes = 0;
    while rows.len() < limits::READ_ROWS_LIMIT && bytes < limits::READ_BYTES_LIMIT {
        match queue.poll(Duration::ZERO) {
            None => break,
            Some(Ok(message)) => {
                let record = records::record(&message);
                // Below is only what an earlier assignment had fetched.
                if record.offset >= from {
                    bytes += records::weight(&record);
                    rows.push(record);
                }
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset) => return (rows, Some(Failure::OutOfRange)),
                Some(code) if records::ends_reading(code) => {
                    return (rows, Some(Failure::Failed(error.to_string())));
                }
                // The connection: librdkafka goes on by itself.
                _ => {}
            },
        }
    }
    (rows, None)
}

impl RecordStream for Stream {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<LogRecord>, ReadError>> {
        Box::pin(self.next_rows())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.release();
    }
}
