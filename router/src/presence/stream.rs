//! One member: what it says is appended in order, and all that the topic has is told to it.
//!
//! A failed append ends the stream: the member gives out again what it has not read back, in its order and with the same
//! numbers. So nothing is kept here for a log that does not take it, and what is in doubt is said twice. What other members say
//! meanwhile waits for its turn: until the append has failed, for each member whose turn is before theirs.

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
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::tail::{Cursor, Tail};
use super::{PARTITION, Read, read, record_of};
use crate::context::Context;
use crate::record::DeadReason;

/// Between the end of a stream and the next.
const PAUSE: Duration = Duration::from_millis(250);
/// A member's first word waits so long for further ones: a record that comes alone costs Kafka, every router that watches and
/// every member as much as fifty do, and nobody's presence is known to the hundredth of a second.
const GATHERING: Duration = Duration::from_millis(20);
/// Time in which a member takes the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that may wait for HTTP/2 to take them.
const REQUESTS: usize = 2;

/// The stream to one member, opened anew whenever it ends.
pub(super) struct MemberStream {
    pub(super) context: Arc<Context>,
    pub(super) tail: Arc<Tail>,
    /// Whoever holds it appends.
    pub(super) turns: Arc<Mutex<()>>,
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
    cursor: Cursor,
    /// Where the topic ended when the reading began.
    until: Offset,
    is_caught_up: bool,
}

/// Where a reading stands, and where the topic begins and ends.
type Beginning = BoxFuture<'static, Result<(Cursor, Offset, Offset), ReadError>>;

/// One stream.
struct Session<'a> {
    context: &'a Context,
    tail: &'a Arc<Tail>,
    turns: &'a Arc<Mutex<()>>,
    /// The number of the reading that the member asked for.
    number: Option<u64>,
    /// It, until Kafka has said where the topic begins and ends: a branch of its own, so that whoever has the turn goes on.
    beginning: Option<Beginning>,
    reading: Option<Reading>,
    /// Not appended yet.
    said: Vec<Transition>,
    appending: FuturesOrdered<BoxFuture<'static, (&'static str, Result<Appended, AppendError>)>>,
}

/// Members append in turns, each all that it has said since its last: librdkafka spins on a core for as long as more than five
/// records of a partition are in flight and further ones wait, and there is one partition.
enum Turn {
    Waiting(BoxFuture<'static, OwnedMutexGuard<()>>),
    /// Until everything is in the log.
    Taken(#[expect(dead_code, reason = "held until it is dropped")] OwnedMutexGuard<()>),
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
        let (context, tail, turns) = (&*self.context, &self.tail, &self.turns);
        let (said, appending) = (Vec::new(), FuturesOrdered::new());
        let (number, beginning, reading) = (None, None, None);
        let session = Session { context, tail, turns, number, beginning, reading, said, appending };
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
        let (mut outgoing, mut turn) = (Some(PresenceRequest::default()), None);
        loop {
            let has_room = self.said.len() + self.appending.len() < limits::PRESENCE_APPENDS_IN_FLIGHT_LIMIT;
            if turn.is_none() && !self.said.is_empty() {
                turn = Some(Turn::Waiting(Box::pin(next_turn(Arc::clone(self.turns)))));
            }
            tokio::select! {
                response = responses.message(), if has_room => {
                    let Some(response) = response? else { return Ok(()) };
                    if self.hear(response) {
                        outgoing = None;
                    }
                }
                begun = begun(&mut self.beginning) => {
                    self.begin(begun?);
                    outgoing = self.tell(&[])?;
                }
                taken = taken(&mut turn) => {
                    self.append();
                    // What is malformed is not on its way to the log.
                    turn = (!self.appending.is_empty()).then_some(Turn::Taken(taken));
                }
                Some((state, outcome)) = self.appending.next() => {
                    self.context.metrics.presence_appended(state, outcome.as_ref().map(|_| ()));
                    outcome?;
                    if self.appending.is_empty() {
                        turn = None;
                    }
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

    /// Takes what the member says to be appended. Says whether it asks for another reading: what was to be told of the last one
    /// is void then.
    fn hear(&mut self, response: PresenceResponse) -> bool {
        self.said.extend(response.transitions);
        if self.number == Some(response.reading) {
            return false;
        }
        let tail = Arc::clone(self.tail);
        (self.number, self.reading) = (Some(response.reading), None);
        self.beginning = Some(Box::pin(async move { tail.from_start().await }));
        true
    }

    fn begin(&mut self, (cursor, start, until): (Cursor, Offset, Offset)) {
        let span = i64::try_from(until.0.saturating_sub(start.0)).unwrap_or(i64::MAX);
        self.context.metrics.presence_records.set(span);
        self.beginning = None;
        self.reading = Some(Reading { cursor, until, is_caught_up: false });
    }

    /// Appends all that the member has said meanwhile, together.
    fn append(&mut self) {
        for transition in self.said.drain(..) {
            let Some((record, state)) = record_of(&transition) else {
                // It stays in flight at the member, which only we can tell.
                let subject = transition.subject.escape_debug().to_string();
                tracing::error!(subject, "transition is malformed");
                continue;
            };
            let appending = self.context.log.append_record(PARTITION, record);
            self.appending.push_back(Box::pin(async move { (state, appending.await) }));
        }
    }

    /// What the member is told of these records, and whether they are the last there were.
    fn tell(&mut self, records: &[LogRecord]) -> Result<Option<PresenceRequest>, EndError> {
        let (Some(number), Some(reading)) = (self.number, &mut self.reading) else { return Ok(None) };
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
        let request = PresenceRequest { reading: number, records: told, caught_up };
        Ok((caught_up || !request.records.is_empty()).then_some(request))
    }
}

/// A turn of ours, a moment after the first word.
async fn next_turn(turns: Arc<Mutex<()>>) -> OwnedMutexGuard<()> {
    tokio::time::sleep(GATHERING).await;
    turns.lock_owned().await
}

/// The turn, once it is ours; never where none is waited for.
async fn taken(turn: &mut Option<Turn>) -> OwnedMutexGuard<()> {
    match turn {
        Some(Turn::Waiting(waiting)) => waiting.await,
        Some(Turn::Taken(_)) | None => pending().await,
    }
}

/// A reading, once it begins; never where none was asked for.
async fn begun(beginning: &mut Option<Beginning>) -> Result<(Cursor, Offset, Offset), ReadError> {
    match beginning {
        Some(beginning) => beginning.await,
        None => pending().await,
    }
}

/// The next records of a reading; never any without one.
async fn next(reading: &mut Option<Reading>) -> Result<Vec<LogRecord>, ReadError> {
    match reading {
        Some(reading) => reading.cursor.next().await,
        None => pending().await,
    }
}
