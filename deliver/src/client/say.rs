//! The one stream on which a node's messages go to a router.
//!
//! Messages leave in the order in which they were queued. When the stream breaks, or an answer is overdue, everything
//! that was queued by then completes with `draining` and nothing of it is sent again from here: the caller decides who
//! gets the unacknowledged tail, in order (TENURES, rule 16).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{Stream, stream};
use tidegate_link::UpstreamMessage;
use tidegate_proto::deliver::v1 as wire;
use tidegate_vocab::{Position, Problem, limits};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Streaming;

use super::Client;
use crate::metrics::{Metrics, Side};
use crate::{CALL_TIMEOUT, convert};

/// Requests that may wait between this task and the HTTP/2 stream.
const REQUESTS_LIMIT: usize = 64;
/// How often overdue answers are looked for.
const TICK: Duration = Duration::from_millis(250);

type Answer = oneshot::Sender<Result<Position, Problem>>;

/// A message and where its answer goes.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) message: UpstreamMessage,
    pub(super) done: Answer,
}

/// See the module. Ends with its `Remote`.
pub(super) struct SayTask {
    client: Client,
    said: mpsc::Receiver<Said>,
    metrics: Metrics,
    waiting: BTreeMap<u64, (Instant, Answer)>,
    last: u64,
}

impl SayTask {
    pub(super) fn new(client: Client, said: mpsc::Receiver<Said>, metrics: Metrics) -> Self {
        Self { client, said, metrics, waiting: BTreeMap::new(), last: 0 }
    }

    /// Opens a stream when there is something to say, and keeps it for as long as it lasts.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.said.recv().await {
            let (requests, to_send) = mpsc::channel(REQUESTS_LIMIT);
            let opening = tokio::time::timeout(CALL_TIMEOUT, self.client.say(outgoing(to_send)));
            match opening.await {
                Ok(Ok(response)) => {
                    let _open = self.metrics.stream(Side::Node, "say");
                    if let Ok(permit) = requests.reserve().await {
                        self.send(permit, first);
                        self.stream(&requests, response.into_inner()).await;
                    } else {
                        drop(first.done.send(Err(convert::cut())));
                    }
                }
                Ok(Err(status)) => self.refuse(first, &convert::problem(&status)),
                Err(_) => self.refuse(first, &convert::unreachable()),
            }
            self.cut();
        }
    }

    /// Until the stream breaks, an answer is overdue, or nobody has anything to say any more.
    async fn stream(
        &mut self,
        requests: &mpsc::Sender<wire::SayRequest>,
        mut responses: Streaming<wire::SayResponse>,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_over = false;
        while !(is_over && self.waiting.is_empty()) {
            let has_room = !is_over && self.waiting.len() < limits::SAY_IN_FLIGHT_LIMIT;
            tokio::select! {
                response = responses.message() => match response {
                    Ok(Some(response)) => self.answered(response),
                    Ok(None) => return tracing::debug!("router ended the say stream"),
                    Err(status) => {
                        return tracing::debug!(code = ?status.code(), message = status.message(), "say stream broke");
                    }
                },
                next = next(&mut self.said, requests), if has_room => match next {
                    Some((permit, said)) => self.send(permit, said),
                    None => is_over = true, // The answers that are due still come.
                },
                _ = ticks.tick() => {
                    let oldest = self.waiting.first_key_value();
                    if oldest.is_some_and(|(_, (sent, _))| sent.elapsed() > CALL_TIMEOUT) {
                        return tracing::warn!("router leaves messages unanswered; its stream is closed");
                    }
                }
            }
        }
    }

    fn send(&mut self, permit: mpsc::Permit<'_, wire::SayRequest>, said: Said) {
        self.last += 1;
        self.waiting.insert(self.last, (Instant::now(), said.done));
        permit.send(convert::say_to_wire(self.last, said.message));
    }

    fn answered(&mut self, response: wire::SayResponse) {
        if let Some((_, done)) = self.waiting.remove(&response.number) {
            // Whoever asked may have given up.
            drop(done.send(convert::answer_from_wire(response.outcome)));
        }
    }

    /// The stream could not be had. A refusal that a retry does not mend is said as it is.
    fn refuse(&mut self, first: Said, problem: &Problem) {
        let problem = if problem.kind.is_retryable() { convert::cut() } else { problem.clone() };
        drop(first.done.send(Err(problem)));
    }

    /// Completes whatever waits for an answer, and what was queued behind it: it must not overtake.
    fn cut(&mut self) {
        for (_, done) in std::mem::take(&mut self.waiting).into_values() {
            drop(done.send(Err(convert::cut())));
        }
        while let Ok(said) = self.said.try_recv() {
            drop(said.done.send(Err(convert::cut())));
        }
    }
}

/// The next message, once the stream takes one. Cancel-safe: nothing is awaited with a message in hand.
async fn next<'a>(
    said: &mut mpsc::Receiver<Said>,
    requests: &'a mpsc::Sender<wire::SayRequest>,
) -> Option<(mpsc::Permit<'a, wire::SayRequest>, Said)> {
    let permit = requests.reserve().await.ok()?;
    Some((permit, said.recv().await?))
}

fn outgoing(
    requests: mpsc::Receiver<wire::SayRequest>,
) -> impl Stream<Item = wire::SayRequest> + Send + 'static {
    stream::unfold(requests, |mut requests| async { Some((requests.recv().await?, requests)) })
}
