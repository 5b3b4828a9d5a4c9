//! Publishing over gRPC at a set rate. An event's latency counts from when it was due, whenever it could be sent.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tidegate_proto::publish::v1::item_result::Outcome;
use tidegate_proto::publish::v1::publisher_client::PublisherClient;
use tidegate_proto::publish::v1::{PublishBatchRequest, PublishRequest, publish_request, target_result};
use tidegate_proto::users::v1::users_client::UsersClient;
use tidegate_proto::users::v1::{DirectRequest, direct_request};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::clock::now_us;
use crate::fleet::Follow;
use crate::histogram::Histogram;
use crate::mark::Mark;
use crate::publisher::{Pace, due_us};
use crate::scenario::Kind;

/// Calls that are under way at once. A channel or user is of one lane, which makes one call after the other: so events of a
/// channel are in order.
const LANES: u64 = 16;
/// Events that go out in one call when they are due at once.
const BATCH_LIMIT: usize = 256;
/// Time for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// What shall be published, and where.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) routers: Vec<SocketAddr>,
    pub(super) follow: Follow,
    pub(super) targets: u64,
    pub(super) kind: Kind,
    pub(super) rate: f64,
    pub(super) bytes: usize,
    pub(super) begin_us: u64,
    pub(super) end_us: u64,
    /// A fault to be noticed: this one is said to be published, and is not.
    pub(super) planted_drop: Option<u64>,
}

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// By target: events that were accepted.
    pub(super) accepted: Vec<u64>,
    pub(super) failed: u64,
    /// What the first failure said.
    pub(super) first_failure: Option<String>,
    /// From when an event was due until it was answered.
    pub(super) acks: Histogram,
}

impl Published {
    fn merge(&mut self, other: &Self) {
        self.accepted.resize(self.accepted.len().max(other.accepted.len()), 0);
        self.accepted.iter_mut().zip(&other.accepted).for_each(|(own, others)| *own += others);
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or_else(|| other.first_failure.clone());
        self.acks.merge(&other.acks);
    }

    pub(super) fn events(&self) -> u64 {
        self.accepted.iter().sum()
    }

    fn answered(&mut self, mark: Mark, targets: u64, failure: Option<String>) {
        match failure {
            None => {
                self.accepted[(mark.seq % targets) as usize] += 1;
                self.acks.add(now_us().saturating_sub(mark.due_us));
            }
            Some(failure) => {
                self.failed += 1;
                self.first_failure.get_or_insert(failure);
            }
        }
    }
}

/// Publishes until the end, and waits for the answers.
pub(super) async fn publish(load: Load) -> anyhow::Result<Published> {
    ensure!(!load.routers.is_empty(), "no router to publish to");
    let (mut lanes, mut senders) = (JoinSet::new(), Vec::new());
    for number in 0..LANES.min(load.targets) {
        let address = load.routers[number as usize % load.routers.len()];
        let endpoint =
            Endpoint::from_shared(format!("http://{address}"))?.timeout(CALL_TIMEOUT).tcp_nodelay(true);
        let channel =
            endpoint.connect().await.with_context(|| format!("cannot connect to the API at {address}"))?;
        let (due, queue) = unbounded_channel(); // Bounded by the duration: at most an hour of events.
        senders.push(due);
        lanes.spawn(lane(load.clone(), channel, queue));
    }
    let Load { targets, rate, begin_us, end_us, .. } = load;
    let due_at = move |seq| Some(due_us(begin_us, rate, seq)).filter(|due_us| *due_us < end_us);
    let count = senders.len();
    let send = move |mark: Mark| senders[(mark.seq % targets) as usize % count].send(mark).is_ok();
    let pace = Pace::start(due_at, send)?;
    let mut all = Published { accepted: vec![0; load.targets as usize], ..Published::default() };
    while let Some(lane) = lanes.join_next().await {
        all.merge(&lane.context("a publisher's task ended")?);
    }
    pace.join()?;
    Ok(all)
}

/// Over gRPC, with a queue of its own and what is due at once in one call: `publisher` is for HTTP, one event a request.
async fn lane(load: Load, channel: Channel, mut queue: UnboundedReceiver<Mark>) -> Published {
    let mut published = Published { accepted: vec![0; load.targets as usize], ..Published::default() };
    let (mut publisher, mut users) = (PublisherClient::new(channel.clone()), UsersClient::new(channel));
    let mut marks = Vec::new();
    loop {
        marks.clear();
        if queue.recv_many(&mut marks, BATCH_LIMIT).await == 0 {
            return published;
        }
        if let Some(at) = marks.iter().position(|mark| load.planted_drop == Some(mark.seq)) {
            published.answered(marks.remove(at), load.targets, None);
        }
        match load.kind {
            Kind::Direct => direct(&load, &mut users, &marks, &mut published).await,
            Kind::Durable | Kind::Ephemeral if !marks.is_empty() => {
                batch(&load, &mut publisher, &marks, &mut published).await;
            }
            Kind::Durable | Kind::Ephemeral => {}
        }
    }
}

impl Load {
    /// The name of the channel or user that an event goes to.
    fn target(&self, seq: u64) -> (Vec<String>, Vec<String>) {
        let number = (seq % self.targets).to_string();
        let named = |pattern: &Option<String>, place: &str| {
            pattern.iter().map(|pattern| pattern.replace(place, &number)).collect::<Vec<_>>()
        };
        let channels = named(&self.follow.channel, "{c}");
        let users = if channels.is_empty() { named(&self.follow.user, "{n}") } else { Vec::new() };
        (channels, users)
    }

    /// As JSON: a string that begins with the mark.
    fn data(&self, mark: Mark) -> String {
        format!("\"{}\"", mark.data(self.bytes.saturating_sub(2)))
    }
}

async fn batch(
    load: &Load,
    publisher: &mut PublisherClient<Channel>,
    marks: &[Mark],
    published: &mut Published,
) {
    let items = marks.iter().map(|mark| {
        let (channels, users) = load.target(mark.seq);
        PublishRequest {
            channels,
            users,
            payload: Some(publish_request::Payload::Json(load.data(*mark))),
            ephemeral: load.kind == Kind::Ephemeral,
            ..PublishRequest::default()
        }
    });
    match publisher.publish_batch(PublishBatchRequest { items: items.collect() }).await {
        Ok(answer) => {
            let mut results = answer.into_inner().results.into_iter();
            for mark in marks {
                let failure = match results.next().and_then(|result| result.outcome) {
                    Some(Outcome::Response(response)) => {
                        let problems =
                            response.results.into_iter().filter_map(|result| match result.outcome {
                                Some(target_result::Outcome::Problem(problem)) => Some(problem),
                                _ => None,
                            });
                        problems.map(|problem| format!("{}: {}", problem.kind, problem.message)).next()
                    }
                    Some(Outcome::Problem(problem)) => Some(format!("{}: {}", problem.kind, problem.message)),
                    None => Some("no answer for an event".to_owned()),
                };
                published.answered(*mark, load.targets, failure);
            }
        }
        Err(status) => {
            for mark in marks {
                published.answered(*mark, load.targets, Some(status.message().to_owned()));
            }
        }
    }
}

async fn direct(load: &Load, users: &mut UsersClient<Channel>, marks: &[Mark], published: &mut Published) {
    for mark in marks {
        let request = DirectRequest {
            users: load.target(mark.seq).1,
            payload: Some(direct_request::Payload::Json(load.data(*mark))),
            ..DirectRequest::default()
        };
        let failure = users.direct(request).await.err().map(|status| status.message().to_owned());
        published.answered(*mark, load.targets, failure);
    }
}
