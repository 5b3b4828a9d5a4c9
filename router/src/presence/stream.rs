//! One member: what it says is appended in order, and all that the topic has is told to it.
//!
//! A failed append ends the stream: the member gives out again what it has not read back, in its order and with the same
//! numbers. So nothing waits here for a log that does not take it, and what is in doubt is said twice.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use prometheus::IntGauge;
use tidegate_eventlog::{AppendError, Appended, LogRecord, ReadError};
use tidegate_proto::registry::v1::{PresenceRequest, PresenceResponse, Transition};
use tidegate_registry::{Key, MemberId, client};
use tidegate_vocab::{Offset, limits};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::tail::{Cursor, Tail};
use super::{PARTITION, Read, read, record_of};
use crate::context::Context;
use crate::record::DeadReason;

/// Between the end of a stream and the next.
const PAUSE: Duration = Duration::from_millis(250);
/// Time in which a member takes the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that may wait for HTTP/2 to take them.
const REQUESTS: usize = 2;

/// The stream to one member, opened anew whenever it ends.
pub(super) struct MemberStream {
    pub(super) context: Arc<Context>,
    pub(super) tail: Arc<Tail>,
    pub(super) member: MemberId,
    pub(super) address: String,
    pub(super) key: Option<Key>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum EndError {
    #[error("`{0}` is no address")]
    Address(String),
    #[error("member does not answer in time")]
    Timeout,
    #[error("{}: {}", .0.code(), .0.message())]
    Refused(#[from] Status),
    #[error("{0}")]
    Append(#[from] AppendError),
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("a presence record of version {0} needs a newer router")]
    UnknownVersion(u32),
}

/// Counts an open stream for as long as it lives.
struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One reading of the topic, as a member asked for it.
struct Reading {
    number: u64,
    cursor: Cursor,
    /// Where the topic ended when the reading began.
    until: Offset,
    is_caught_up: bool,
}

/// One stream.
struct Session<'a> {
    context: &'a Context,
    tail: &'a Arc<Tail>,
    reading: Option<Reading>,
    appending: FuturesOrdered<BoxFuture<'static, (&'static str, Result<Appended, AppendError>)>>,
}

impl MemberStream {
    /// Runs until it is aborted.
    pub(super) async fn run(self) {
        let member = self.member.0;
        let mut is_failing = false;
        loop {
            match self.speak().await {
                Ok(()) => is_failing = false,
                Err(error) if is_failing => tracing::debug!(member, %error, "presence stream ended"),
                Err(error) => {
                    tracing::warn!(member, address = self.address, %error, "presence stream ended; trying again");
                    is_failing = true;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Opens a stream and keeps it until either side ends it.
    async fn speak(&self) -> Result<(), EndError> {
        let client = client::connect(&self.address, self.key.clone());
        let mut client = client.ok_or_else(|| EndError::Address(self.address.clone()))?;
        let (requests, to_send) = mpsc::channel(REQUESTS);
        let opening = tokio::time::timeout(OPEN_TIMEOUT, client.presence(ReceiverStream::new(to_send)));
        let mut responses = opening.await.map_err(|_| EndError::Timeout)??.into_inner();
        self.context.metrics.presence_streams.inc();
        let _open = Open(self.context.metrics.presence_streams.clone());
        tracing::info!(member = self.member.0, "presence stream opened");
        let (context, tail) = (&*self.context, &self.tail);
        let session = Session { context, tail, reading: None, appending: FuturesOrdered::new() };
        session.run(requests, &mut responses).await
    }
}

impl Session<'_> {
    async fn run(
        mut self,
        requests: mpsc::Sender<PresenceRequest>,
        responses: &mut Streaming<PresenceResponse>,
    ) -> Result<(), EndError> {
        // The member asks for a reading in its first answer.
        let mut outgoing = Some(PresenceRequest::default());
        loop {
            let has_room = self.appending.len() < limits::PRESENCE_APPENDS_IN_FLIGHT_LIMIT;
            tokio::select! {
                response = responses.message(), if has_room => {
                    let Some(response) = response? else { return Ok(()) };
                    if let Some(first) = self.hear(response).await? {
                        outgoing = first;
                    }
                }
                Some((state, outcome)) = self.appending.next() => {
                    self.context.metrics.presence_appended(state, outcome.as_ref().map(|_| ()));
                    outcome?;
                }
                records = next(&mut self.reading), if outgoing.is_none() => outgoing = self.tell(&records?)?,
                room = requests.reserve(), if outgoing.is_some() => {
                    let Ok(room) = room else { return Ok(()) };
                    if let Some(request) = outgoing.take() {
                        room.send(request);
                    }
                }
            }
        }
    }

    /// Appends what the member says. Where it asks for another reading, what was to be told of the last one is void: answers
    /// with what is to be told first.
    async fn hear(
        &mut self,
        response: PresenceResponse,
    ) -> Result<Option<Option<PresenceRequest>>, EndError> {
        for transition in &response.transitions {
            self.append(transition);
        }
        if self.reading.as_ref().is_some_and(|reading| reading.number == response.reading) {
            return Ok(None);
        }
        let (cursor, start, until) = self.tail.from_start().await?;
        let span = i64::try_from(until.0.saturating_sub(start.0)).unwrap_or(i64::MAX);
        self.context.metrics.presence_records.set(span);
        self.reading = Some(Reading { number: response.reading, cursor, until, is_caught_up: false });
        Ok(Some(self.tell(&[])?))
    }

    fn append(&mut self, transition: &Transition) {
        let Some((record, state)) = record_of(transition) else {
            // It stays in flight at the member, which only we can tell.
            tracing::error!(
                subject = transition.subject.escape_debug().to_string(),
                "transition is malformed"
            );
            return;
        };
        let appending = self.context.log.append_record(PARTITION, record);
        self.appending.push_back(Box::pin(async move { (state, appending.await) }));
    }

    /// What the member is told of these records, and whether they are the last there were.
    fn tell(&mut self, records: &[LogRecord]) -> Result<Option<PresenceRequest>, EndError> {
        let Some(reading) = &mut self.reading else { return Ok(None) };
        let mut told = Vec::with_capacity(records.len());
        for record in records {
            match read(record) {
                Read::Transition(transition) => told.push(transition),
                Read::Tombstone => {}
                Read::Malformed => {
                    tracing::error!(offset = %record.offset, "presence record is a dead letter");
                    self.context.metrics.dead_letter(DeadReason::Malformed);
                }
                // Nobody may go on past it: a newer router has to hold the streams.
                Read::UnknownVersion(version) => return Err(EndError::UnknownVersion(version)),
            }
        }
        let caught_up = !reading.is_caught_up && reading.cursor.place() >= reading.until;
        reading.is_caught_up |= caught_up;
        let request = PresenceRequest { reading: reading.number, records: told, caught_up };
        Ok((caught_up || !request.records.is_empty()).then_some(request))
    }
}

/// The next records of a reading; never any without one.
async fn next(reading: &mut Option<Reading>) -> Result<Vec<LogRecord>, ReadError> {
    match reading {
        Some(reading) => reading.cursor.next().await,
        None => pending().await,
    }
}
