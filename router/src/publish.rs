//! Publishing: what is asked for, whether it may be, and what became of it. The same for every door.
//!
//! A durable event is one record per target, handed to the log in the order of the targets and of the items of a
//! batch. A publish with the caller's own key also waits for the verdict of the log's order. What this file promises
//! stands in the comments of `publish.proto`.

mod check;
mod settle;
pub(crate) use check::{event_name, payload as check_payload};
pub(crate) use settle::upstream_problem;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use tidegate_vocab::{ErrorKind, Problem, TraceContext, limits};

use crate::metrics::Api;
use crate::{Router, gauge};
use check::Draft;
use settle::Begun;

/// Where an event goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The followers of a channel.
    Channel(String),
    /// All connections of a user.
    User(String),
    /// All connections there are.
    Everyone,
}

/// What an event carries, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Should be one JSON value.
    Json(Bytes),
    /// Any bytes.
    Binary(Bytes),
}

/// One event and its targets, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishRequest {
    /// Where it goes: 1 to 1,000 targets.
    pub targets: Vec<Target>,
    /// Its name; `None` means `message`.
    pub event: Option<String>,
    /// What it carries.
    pub data: Data,
    /// The caller's key; `None`: one is made.
    pub idempotency_key: Option<String>,
    /// Milliseconds after which a replay skips it.
    pub ttl_ms: Option<u64>,
    /// Skip the log.
    pub ephemeral: bool,
    /// The caller's trace, if it sent one.
    pub trace: Option<TraceContext>,
}

/// What became of an event in a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// The log has it.
    Durable {
        /// Its `pos`, or the first one's.
        pos: String,
        /// It had been published before with this key.
        duplicate: bool,
    },
    /// It skipped the log.
    Ephemeral {
        /// To how many nodes it was routed.
        routed: u32,
    },
}

/// One target's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetResult {
    /// As the request named it.
    pub target: Target,
    /// What became of it.
    pub outcome: Result<Accepted, Problem>,
}

/// What became of an event with several targets, or of one that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// In the order of the request.
    pub results: Vec<TargetResult>,
    /// The key that was used; `None` for an ephemeral event.
    pub idempotency_key: Option<String>,
}

impl Published {
    /// How many targets failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.results.iter().filter(|result| result.outcome.is_err()).count()
    }
}

/// A publish that failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct PublishError {
    /// What went wrong.
    pub problem: Problem,
    /// The key to retry with, where the outcome is not known or a retry may help.
    pub idempotency_key: Option<String>,
}

impl From<Problem> for PublishError {
    fn from(problem: Problem) -> Self {
        Self { problem, idempotency_key: None }
    }
}

impl Router {
    /// Publishes one event.
    ///
    /// # Errors
    /// What is wrong with the event itself; with a single target, also what is wrong with it or with the log.
    pub async fn publish(&self, api: Api, request: PublishRequest) -> Result<Published, PublishError> {
        let begun_at = Instant::now();
        let outcome = match self.begin_publish(request) {
            Ok(begun) => self.settle_publish(begun).await.and_then(lone_failure),
            Err(problem) => Err(problem.into()),
        };
        self.count_publish(api, &outcome);
        self.context.metrics.answered(api, begun_at.elapsed());
        outcome
    }

    /// Publishes several events in order; one result per item, in the same order. Goes on after an item that failed:
    /// an item that could not even be parsed comes as the `Err` it was refused with.
    ///
    /// # Errors
    /// When there are no items or too many, or too many targets in all: nothing was published.
    pub async fn publish_batch(
        &self,
        api: Api,
        items: Vec<Result<PublishRequest, Problem>>,
    ) -> Result<Vec<Result<Published, PublishError>>, Problem> {
        let begun_at = Instant::now();
        check::batch_size(&items).inspect_err(|problem| {
            self.context.metrics.published(api, Err(problem.kind));
        })?;
        self.context.metrics.batch_items.observe(gauge(items.len() as u64) as f64);
        // All are handed to the log here, in order, before the first answer is waited for.
        let begun: Vec<_> =
            items.into_iter().map(|item| item.and_then(|request| self.begin_publish(request))).collect();
        let settled = join_all(begun.into_iter().map(async |begun| match begun {
            Ok(begun) => self.settle_publish(begun).await.and_then(lone_failure),
            Err(problem) => Err(problem.into()),
        }))
        .await;
        settled.iter().for_each(|outcome| self.count_publish(api, outcome));
        self.context.metrics.answered(api, begun_at.elapsed());
        Ok(settled)
    }

    fn begin_publish(&self, request: PublishRequest) -> Result<Begun, Problem> {
        if *self.closing.borrow() {
            return Err(Problem::new(ErrorKind::Draining, "the router shuts down").retry_after_ms(1_000));
        }
        Ok(self.hand_over(Draft::check(request)?))
    }

    async fn settle_publish(&self, begun: Begun) -> Result<Published, PublishError> {
        let deadline = Duration::from_millis(self.context.config.publish_timeout_ms);
        Ok(self.settle(begun, tokio::time::Instant::now() + deadline).await)
    }

    fn count_publish(&self, api: Api, outcome: &Result<Published, PublishError>) {
        let metrics = &self.context.metrics;
        match outcome {
            Ok(published) => {
                let failed = published.results.iter().find_map(|result| result.outcome.as_ref().err());
                metrics.published(api, failed.map_or(Ok(()), |problem| Err(problem.kind)));
            }
            Err(error) => metrics.published(api, Err(error.problem.kind)),
        }
    }
}

/// The failure of a publish with one target is the call's.
fn lone_failure(published: Published) -> Result<Published, PublishError> {
    match published.results.as_slice() {
        [TargetResult { outcome: Err(problem), .. }] => {
            let named = problem.kind.is_retryable();
            Err(PublishError {
                problem: problem.clone(),
                idempotency_key: published.idempotency_key.filter(|_| named),
            })
        }
        _ => Ok(published),
    }
}

const _: () = assert!(limits::BATCH_ITEMS_LIMIT <= limits::APPEND_QUEUE_LIMIT);
