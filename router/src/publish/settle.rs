//! From a checked publish to its answer: hand over in order, then wait for the log and its verdict.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use tidegate_eventlog::{AppendError, Appended, BoxFuture, Headers, NewRecord};
use tidegate_link::{Routed, RouterLink, Settled};
use tidegate_vocab::{Channel, ErrorKind, Event, Offset, PartitionId, Position, Problem, TraceContext};
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use super::check::Draft;
use super::{Accepted, Published, Target, TargetResult};
use crate::Router;
use crate::partition::{Command, PartitionHandle, Phase};

/// How long to wait before a retry when the log refuses, in milliseconds.
const LOG_RETRY_MS: u64 = 1_000;
/// How long to wait before a retry when a queue is full, in milliseconds.
const QUEUE_RETRY_MS: u64 = 100;
/// How long an event that is in the log, perhaps twice, waits to hear where it is first.
const PLACE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait for another owner before asking again.
const VERDICT_AGAIN: Duration = Duration::from_millis(200);

/// A publish on its way.
pub(super) struct Begun {
    targets: Vec<(Target, Handed)>,
    /// None for an ephemeral event.
    key: Option<String>,
    own_key: bool,
}

/// What was handed over for one target.
enum Handed {
    Refused(Problem),
    ToLog(PartitionId, BoxFuture<'static, Result<Appended, AppendError>>),
    ToOwner(oneshot::Receiver<Option<usize>>),
    ToPeer(BoxFuture<'static, Result<Routed, Problem>>),
}

impl Router {
    /// Hands the event over, target by target, without waiting.
    pub(super) fn hand_over(&self, draft: Draft) -> Begun {
        let value = if draft.ephemeral { Bytes::new() } else { draft.event.encode() };
        let mut targets = Vec::with_capacity(draft.targets.len());
        for (target, channel) in draft.targets {
            let handed = match channel {
                Err(problem) => Handed::Refused(problem),
                Ok(channel) if draft.ephemeral => self.hand_to_owner(channel, &draft.event, draft.trace),
                Ok(channel) => {
                    let partition = self.context.log.counts().partition_of(&channel);
                    let key = Bytes::copy_from_slice(channel.as_str().as_bytes());
                    let span = draft.trace.map_or_else(Span::none, |trace| {
                        tidegate_telemetry::append_span(Some(trace), &partition.to_string())
                    });
                    let headers = trace_headers(tidegate_telemetry::context_of(&span, draft.trace));
                    let record = NewRecord { key, value: value.clone(), headers };
                    Handed::ToLog(partition, spanned(self.context.log.append_record(partition, record), span))
                }
            };
            targets.push((target, handed));
        }
        let key = (!draft.ephemeral).then_some(draft.event.idempotency_key);
        Begun { targets, key, own_key: draft.own_key }
    }

    fn hand_to_owner(
        &self,
        channel: Channel,
        draft: &crate::record::EventDraft,
        trace: Option<TraceContext>,
    ) -> Handed {
        let event = Arc::new(Event {
            channel,
            name: draft.name.clone(),
            payload: draft.payload.clone(),
            time_ms: self.context.clock.now_ms(),
            offset: None,
            expires_ms: None,
            trace,
        });
        let partition = self.context.log.counts().partition_of(&event.channel);
        if let Some(owner) = self.peer_that_owns(partition) {
            return Handed::ToPeer(owner.ephemeral(event));
        }
        match self.hand_to_own_partition(event) {
            Ok(answered) => Handed::ToOwner(answered),
            Err(problem) => Handed::Refused(problem),
        }
    }

    /// The answer is none when the partition is not served here.
    pub(crate) fn hand_to_own_partition(
        &self,
        event: Arc<Event>,
    ) -> Result<oneshot::Receiver<Option<usize>>, Problem> {
        let partition = self.context.log.counts().partition_of(&event.channel);
        let (answer, answered) = oneshot::channel();
        match self.mailbox(partition).map(|mailbox| mailbox.try_send(Command::Ephemeral(event, answer))) {
            // Not owned here: the sender is dropped, and the answer says so.
            None | Some(Ok(()) | Err(mpsc::error::TrySendError::Closed(_))) => Ok(answered),
            Some(Err(mpsc::error::TrySendError::Full(_))) => {
                let problem = Problem::new(ErrorKind::Overloaded, "too much waits for the partition");
                Err(problem.retry_after_ms(QUEUE_RETRY_MS))
            }
        }
    }

    /// Waits for every target's outcome, all at once.
    pub(super) async fn settle(&self, begun: Begun, deadline: tokio::time::Instant) -> Published {
        let (key, own_key) = (begun.key, begun.own_key);
        let named = key.as_deref().unwrap_or_default();
        let results = join_all(begun.targets.into_iter().map(async |(target, handed)| {
            let outcome = match handed {
                Handed::Refused(problem) => Err(problem),
                Handed::ToOwner(answered) => Ok(routed(answered, deadline).await),
                Handed::ToPeer(answered) => Ok(routed_by_peer(answered, deadline).await),
                Handed::ToLog(partition, append) => {
                    let settling = self.settle_durable(partition, append, own_key, named);
                    match tokio::time::timeout_at(deadline, settling).await {
                        Ok(outcome) => outcome,
                        Err(_) => Err(indeterminate(named)),
                    }
                }
            };
            TargetResult { target, outcome }
        }))
        .await;
        Published { results, idempotency_key: key }
    }

    async fn settle_durable(
        &self,
        partition: PartitionId,
        append: BoxFuture<'static, Result<Appended, AppendError>>,
        own_key: bool,
        key: &str,
    ) -> Result<Accepted, Problem> {
        let begun_at = Instant::now();
        let appended = append.await;
        self.context.metrics.append_seconds.observe(begun_at.elapsed().as_secs_f64());
        let Appended { offset, may_repeat, .. } = appended.map_err(|error| append_problem(&error, key))?;
        // The epoch is asked for after the append: a log that was changed in between has another one.
        let pos = |offset: Offset| {
            Position::new(self.context.log.epoch(partition.topic), partition, offset).to_string()
        };
        if !own_key {
            let first = if may_repeat { self.first_place(partition, offset).await } else { offset };
            return Ok(Accepted::Durable { pos: pos(first), duplicate: false });
        }
        match self.verdict(partition, offset).await {
            Some(Settled::Fresh) => Ok(Accepted::Durable { pos: pos(offset), duplicate: false }),
            Some(Settled::DuplicateOf(first)) => {
                self.context.metrics.idempotent_hits.inc();
                Ok(Accepted::Durable { pos: pos(first), duplicate: true })
            }
            Some(Settled::Conflict) => {
                self.context.metrics.idempotent_conflicts.inc();
                let detail = format!("idempotency key {key:?} was used with another event; take a new key");
                Err(Problem::new(ErrorKind::Conflict, detail))
            }
            Some(Settled::Unreadable) => {
                Err(Problem::new(ErrorKind::Internal, "the record could not be read back"))
            }
            None => Err(indeterminate(key)),
        }
    }

    /// Where a record is first, if the log has it more than once. It is acked either way: without an owner that tells
    /// in time, its last place is as good as is known.
    async fn first_place(&self, partition: PartitionId, offset: Offset) -> Offset {
        match tokio::time::timeout(PLACE_TIMEOUT, self.verdict(partition, offset)).await {
            Ok(Some(Settled::DuplicateOf(first))) => first,
            _ => offset,
        }
    }

    /// The verdict of a record, once its owner has consumed it; asked of the next owner when one goes. None only when
    /// the caller is to give up: whoever calls bounds the time.
    async fn verdict(&self, partition: PartitionId, offset: Offset) -> Option<Settled> {
        loop {
            let changed = self.peers.changed();
            let settled = match self.peer_that_owns(partition) {
                Some(owner) => owner.resolve(partition, offset).await.ok(),
                None => self.local_verdict(partition, offset).await,
            };
            if settled.is_some() || !self.peers.is_cluster() {
                return settled;
            }
            // Nobody owns it now, or the owner went: the next one knows as well.
            let _ = tokio::time::timeout(VERDICT_AGAIN, changed).await;
        }
    }

    /// The same, of a partition that is owned here.
    pub(crate) async fn local_verdict(&self, partition: PartitionId, offset: Offset) -> Option<Settled> {
        let (answer, answered) = oneshot::channel();
        self.mailbox(partition)?.send(Command::Resolve(offset, answer)).await.ok()?;
        answered.await.ok()
    }

    fn peer_that_owns(&self, partition: PartitionId) -> Option<Arc<dyn RouterLink>> {
        let serves = |partition: &PartitionHandle| partition.status.phase() == Phase::Serving;
        let is_ours = self.state().partitions.get(&partition).is_some_and(serves);
        if is_ours { None } else { self.peers.owner(partition) }
    }

    fn mailbox(&self, partition: PartitionId) -> Option<mpsc::Sender<Command>> {
        self.state().partitions.get(&partition).map(|partition| partition.mailbox.clone())
    }
}

/// The span ends with the append.
fn spanned<T: Send + 'static>(append: BoxFuture<'static, T>, span: Span) -> BoxFuture<'static, T> {
    if span.is_none() {
        return append;
    }
    Box::pin(async move {
        let appended = append.await;
        drop(span);
        appended
    })
}

fn trace_headers(trace: Option<TraceContext>) -> Headers {
    let header = trace.map(|trace| (TraceContext::HEADER.to_owned(), trace.to_string().into_bytes().into()));
    header.into_iter().collect()
}

/// At most once: an owner that does not answer in time, or is not here, routed nothing that we know of.
async fn routed(answered: oneshot::Receiver<Option<usize>>, deadline: tokio::time::Instant) -> Accepted {
    let routed = match tokio::time::timeout_at(deadline, answered).await {
        Ok(Ok(Some(nodes))) => nodes,
        Ok(Ok(None) | Err(_)) | Err(_) => 0,
    };
    Accepted::Ephemeral { routed: u32::try_from(routed).unwrap_or(u32::MAX) }
}

async fn routed_by_peer(
    answered: BoxFuture<'static, Result<Routed, Problem>>,
    deadline: tokio::time::Instant,
) -> Accepted {
    match tokio::time::timeout_at(deadline, answered).await {
        Ok(Ok(Routed::Nodes(routed))) => Accepted::Ephemeral { routed },
        Ok(Ok(Routed::NotOwner) | Err(_)) | Err(_) => Accepted::Ephemeral { routed: 0 },
    }
}

fn indeterminate(key: &str) -> Problem {
    let detail = format!("the outcome is not known; retry with idempotency key {key}");
    Problem::new(ErrorKind::Indeterminate, detail).retry_after_ms(LOG_RETRY_MS)
}

/// What a refused append means to the caller. Reasons are for operators and stay in the log line.
fn append_problem(error: &AppendError, key: &str) -> Problem {
    tracing::warn!(%error, "append was not answered with a place");
    match error {
        AppendError::Unavailable { .. } => {
            Problem::new(ErrorKind::LogUnavailable, "the log does not take appends now; nothing was accepted")
                .retry_after_ms(LOG_RETRY_MS)
        }
        AppendError::Busy => Problem::new(ErrorKind::Overloaded, "too many appends wait for the log")
            .retry_after_ms(QUEUE_RETRY_MS),
        AppendError::Full { .. } => {
            Problem::new(ErrorKind::StorageFull, "the log's storage is full; nothing was accepted")
                .retry_after_ms(LOG_RETRY_MS)
        }
        AppendError::Indeterminate { .. } => indeterminate(key),
    }
}

/// As above, for what has no key to name.
pub(crate) fn upstream_problem(error: &AppendError) -> Problem {
    let mut problem = append_problem(error, "");
    if problem.kind == ErrorKind::Indeterminate {
        problem.detail = "the outcome is not known; send it again with the same seq".into();
    }
    problem
}
