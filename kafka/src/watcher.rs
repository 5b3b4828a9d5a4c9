//! Looks after the log once a second: whether the topics are still the ones that the log was opened with.
//!
//! Owns the log epochs, what is wrong with the topics, and which partitions have no leader. Runs on a thread of its
//! own, for each look may wait for brokers; nobody waits for it. Between two looks it serves the events of clients
//! that nobody else polls, and replaces a producer that has failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::metadata::Metadata;
use tidegate_vocab::{LogEpoch, Topic};

use crate::native::{self, DescribeError, Described};
use crate::options::EpochSource;
use crate::producer::Producer;
use crate::queries::Queries;
use crate::readers::Readers;
use crate::shared::Shared;

/// How often it looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it does the rest.
const SERVE_INTERVAL: Duration = Duration::from_millis(50);
/// How long brokers may take to describe the topics.
pub(crate) const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long, and how soon after the look before, when a client of ours has lost all its connections.
const SUSPECT_TIMEOUT: Duration = Duration::from_secs(1);
const SUSPECT_INTERVAL: Duration = Duration::from_millis(200);
/// Looks in a row without an answer after which nobody answers.
const FAILURES_LIMIT: u32 = 2;

pub(crate) struct Watcher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queries: Arc<Queries>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) producer: Arc<Producer>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Watcher {
    pub(crate) fn run(self) {
        let mut failures = 0;
        while !self.stop.load(Ordering::Acquire) {
            let began = Instant::now();
            let suspected = self.shared.take_suspicion();
            let timeout = if suspected { SUSPECT_TIMEOUT } else { DESCRIBE_TIMEOUT };
            let heard = look(&self.shared, &self.queries, timeout).is_ok();
            let failed = if suspected { FAILURES_LIMIT } else { 1 };
            failures = if heard { 0 } else { failures + failed };
            if (heard || failures >= FAILURES_LIMIT) && self.shared.set_unreachable(!heard) {
                match heard {
                    true => tracing::info!("Kafka brokers answer again"),
                    false => tracing::error!("no Kafka broker answers"),
                }
            }
            let is_over = |interval| began.elapsed() >= interval || self.stop.load(Ordering::Acquire);
            let is_due =
                || is_over(if self.shared.is_suspected() { SUSPECT_INTERVAL } else { LOOK_INTERVAL });
            while !is_due() {
                // It belongs to no group and fetches nothing: only log lines and errors come here.
                let _ = self.queries.client().poll(SERVE_INTERVAL);
                self.producer.rebuild_if_dead();
                self.readers.cool();
            }
        }
    }
}

/// Asks for all topics and notes the answers. Returns why there was none. Blocks.
pub(crate) fn look(shared: &Shared, queries: &Queries, timeout: Duration) -> Result<(), String> {
    let client = queries.client().client();
    let answers = match shared.options.epoch_source {
        EpochSource::TopicIds => native::describe_topics(client, &shared.names, timeout),
        EpochSource::Fixed => match client.fetch_metadata(None, timeout) {
            Ok(metadata) => shared.names.iter().map(|name| without_id(&metadata, name)).collect(),
            Err(error) => return Err(error.to_string()),
        },
    };
    let mut heard = Err(String::new());
    for (topic, answer) in Topic::ALL.into_iter().zip(answers) {
        match answer {
            Ok(described) => {
                heard = Ok(());
                note(shared, topic, &described);
            }
            Err(DescribeError::Missing) => {
                heard = Ok(());
                let name = shared.name(topic);
                let problem = format!("topic {name} does not exist; run `tidegate topics apply`");
                report(shared, topic, Some(problem));
            }
            Err(DescribeError::Unknown(reason)) => {
                tracing::debug!(topic = topic.as_str(), reason, "topic could not be described");
                heard = heard.map_err(|_| reason);
            }
        }
    }
    heard
}

/// As much of a description as the oldest of all requests yields.
fn without_id(metadata: &Metadata, name: &str) -> Result<Described, DescribeError> {
    let topic = metadata.topics().iter().find(|topic| topic.name() == name).ok_or(DescribeError::Missing)?;
    let mut led = vec![false; topic.partitions().len()];
    for partition in topic.partitions() {
        let number = usize::try_from(partition.id());
        if let Some(slot) = number.ok().and_then(|number| led.get_mut(number)) {
            *slot = partition.leader() >= 0;
        }
    }
    let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
    Ok(Described { id: [0; 16], led, replicas: replicas.unwrap_or(0) })
}

fn note(shared: &Shared, topic: Topic, described: &Described) {
    let partitions = u32::try_from(described.led.len()).unwrap_or(u32::MAX);
    let wanted = shared.options.counts.of(topic);
    let epoch = LogEpoch::derive(topic, &described.id, partitions, &shared.options.epoch_salt);
    let before = shared.set_epoch(topic, epoch);
    if before != epoch && before != LogEpoch(0) {
        let topic = topic.as_str();
        tracing::error!(topic, %before, %epoch, "log epoch has changed: the topic was made anew or repartitioned");
    }
    shared.set_leaders(topic, &described.led);
    report(shared, topic, (partitions != wanted).then(|| miscounted(shared.name(topic), partitions, wanted)));
}

/// What to say, and to do, about a topic that has another number of partitions than configured.
pub(crate) fn miscounted(name: &str, partitions: u32, wanted: u32) -> String {
    format!(
        "topic {name} has {partitions} partitions and {wanted} are configured, so channels would be looked for where \
         they are not; set the count to {partitions} on every process, or make the topic anew"
    )
}

fn report(shared: &Shared, topic: Topic, problem: Option<String>) {
    if !shared.set_problem(topic, problem.clone()) {
        return;
    }
    match problem {
        Some(problem) => {
            tracing::error!(topic = topic.as_str(), problem, "topic is unusable, appends are refused")
        }
        None => tracing::info!(topic = topic.as_str(), "topic is as configured"),
    }
}
