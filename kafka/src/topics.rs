//! The topics as they have to be: what is wrong with the ones that exist, and making those that do not.
//!
//! Never deletes a topic or a record, never changes a number of partitions, never shortens a retention.

mod settings;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_vocab::Topic;

use self::settings::Settings;
use crate::native::{self, DescribeError, Described};
use crate::observer::Observer;
use crate::options::KafkaOptions;
use crate::shared::Shared;
use crate::watcher::miscounted;

/// How long brokers may take for one answer.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a topic that was just made may take to be known to all brokers.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

/// What is wrong with a topic that there is not, or not yet as the asked broker knows.
pub(crate) const MISSING: &str = "does not exist";

/// What the topics are to be like, their partitions apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Copies of each partition.
    pub replication: u32,
    /// Copies that a record must have before it is acknowledged.
    pub min_isr: u32,
    /// How long records are kept at least, milliseconds, by topic: events, inbox, upstream, control, dead, presence. Of no
    /// meaning for topics that are compacted.
    pub retention_ms: [u64; Topic::COUNT],
    /// Bytes of the largest record.
    pub message_bytes_limit: u32,
}

impl Default for TopicSpec {
    fn default() -> Self {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        Self {
            replication: 3,
            min_isr: 2,
            retention_ms: [DAY_MS, 7 * DAY_MS, DAY_MS, 30 * DAY_MS, 7 * DAY_MS, 0],
            message_bytes_limit: 1_048_588,
        }
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Promises would be broken: the log is not opened.
    Error,
    /// It works, and less well than it could.
    Warning,
}

/// Something wrong with a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Kafka's name of the topic.
    pub topic: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "topic {}: {}; {}", self.topic, self.problem, self.fix)
    }
}

/// Why topics could be neither checked nor made.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// The options are refused by librdkafka.
    #[error("Kafka options are refused: {0}")]
    Options(String),
    /// No broker answered.
    #[error(
        "Kafka brokers at {bootstrap} do not answer: {reason}; start them, or name others with --bootstrap"
    )]
    Unreachable {
        /// Which brokers.
        bootstrap: String,
        /// For operators.
        reason: String,
    },
    /// The brokers refused.
    #[error("Kafka refuses to {action}: {reason}")]
    Refused {
        /// What was asked.
        action: String,
        /// Their reason.
        reason: String,
    },
}

/// What [`apply`] did, and what it left to others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// A line for each change.
    pub done: Vec<String>,
    /// What is still wrong.
    pub left: Vec<Finding>,
}

/// Looks at all topics.
///
/// # Errors
/// When brokers do not answer or do not let us look.
pub async fn check(options: &KafkaOptions) -> Result<Vec<Finding>, TopicsError> {
    Admin::new(options)?.check().await
}

/// Makes the topics that are missing and corrects settings that can be corrected without losing anything.
///
/// # Errors
/// When brokers do not answer or refuse.
pub async fn apply(options: &KafkaOptions) -> Result<Applied, TopicsError> {
    let admin = Admin::new(options)?;
    let mut done = Vec::new();
    for (topic, described) in Topic::ALL.into_iter().zip(admin.describe().await?) {
        match described {
            Some(_) => done.extend(admin.correct(topic).await?),
            None => done.push(admin.create(topic).await?),
        }
    }
    // What was just made may be unknown to some brokers for a moment, and without settings for another.
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    loop {
        let left = admin.check().await?;
        let is_settled = left.iter().all(|finding| finding.severity != Severity::Error);
        if is_settled || done.is_empty() || Instant::now() > deadline {
            return Ok(Applied { done, left });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Admin {
    shared: Arc<Shared>,
    client: Arc<AdminClient<Observer>>,
}

impl Admin {
    fn new(options: &KafkaOptions) -> Result<Self, TopicsError> {
        let shared = Arc::new(Shared::new(options.clone()));
        let config = options.finish(options.client("admin"));
        let client = config.create_with_context(Observer::new(&shared, "admin"));
        let client = client.map_err(|error| TopicsError::Options(error.to_string()))?;
        Ok(Self { shared, client: Arc::new(client) })
    }

    fn options(&self) -> &KafkaOptions {
        &self.shared.options
    }

    fn unreachable(&self, reason: impl Into<String>) -> TopicsError {
        TopicsError::Unreachable { bootstrap: self.options().bootstrap.clone(), reason: reason.into() }
    }

    /// None for a topic that there is not.
    async fn describe(&self) -> Result<[Option<Described>; Topic::COUNT], TopicsError> {
        let (client, shared) = (Arc::clone(&self.client), Arc::clone(&self.shared));
        let asking = move || native::describe_topics(client.inner(), &shared.names, ADMIN_TIMEOUT);
        let answers = tokio::task::spawn_blocking(asking).await;
        let answers = answers.map_err(|error| self.unreachable(error.to_string()))?;
        let mut described = [const { None }; Topic::COUNT];
        for (slot, answer) in described.iter_mut().zip(answers) {
            *slot = match answer {
                Ok(described) => Some(described),
                Err(DescribeError::Missing) => None,
                Err(DescribeError::Unknown(reason)) => return Err(self.unreachable(reason)),
            };
        }
        Ok(described)
    }

    async fn check(&self) -> Result<Vec<Finding>, TopicsError> {
        let mut findings = Vec::new();
        for (topic, described) in Topic::ALL.into_iter().zip(self.describe().await?) {
            let name = self.shared.name(topic);
            let mut find = |severity, problem: String, fix: &str| {
                findings.push(Finding { topic: name.into(), severity, problem, fix: fix.into() });
            };
            let Some(described) = described else {
                find(Severity::Error, MISSING.into(), "run `tidegate topics apply`");
                continue;
            };
            let (partitions, wanted) = (described.led.len() as u32, self.options().counts.of(topic));
            if partitions != wanted {
                find(
                    Severity::Error,
                    miscounted(name, partitions, wanted),
                    "Kafka can add partitions but take none away",
                );
            }
            let replication = self.options().spec.replication;
            if described.replicas < replication as usize {
                let problem = format!("{} replica(s), {replication} are configured", described.replicas);
                find(Severity::Warning, problem, "use kafka-reassign-partitions to add replicas");
            }
            findings.extend(self.settings(topic).await?.findings(self.options(), topic));
        }
        Ok(findings)
    }

    /// The settings of a topic; empty for a moment after it was made.
    async fn settings(&self, topic: Topic) -> Result<Settings, TopicsError> {
        let name = self.shared.name(topic);
        let asked = [ResourceSpecifier::Topic(name)];
        let answers = self.client.describe_configs(&asked, &patient()).await;
        let answers = answers.map_err(|error| self.unreachable(error.to_string()))?;
        match answers.into_iter().next() {
            Some(Ok(resource)) => Ok(Settings::new(resource)),
            Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition)) | None => Ok(Settings::default()),
            Some(Err(code)) => Err(refused(format!("describe the settings of {name}"), code)),
        }
    }

    async fn create(&self, topic: Topic) -> Result<String, TopicsError> {
        let (name, options) = (self.shared.name(topic), self.options());
        let partitions = i32::try_from(options.counts.of(topic)).unwrap_or(i32::MAX);
        let replication = i32::try_from(options.spec.replication).unwrap_or(i32::MAX);
        let mut new = NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
        let wanted = settings::wanted(&options.spec, topic);
        for (key, value) in &wanted {
            new = new.set(key, value);
        }
        let results = self.client.create_topics([&new], &patient()).await;
        let results = results.map_err(|error: KafkaError| self.unreachable(error.to_string()))?;
        match results.into_iter().next() {
            Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => {
                Ok(format!("made {name} with {partitions} partitions and {replication} replica(s)"))
            }
            Some(Err((_, code))) => Err(refused(format!("make the topic {name}"), code)),
        }
    }

    /// Corrects the settings of a topic; returns a line for what was changed.
    async fn correct(&self, topic: Topic) -> Result<Option<String>, TopicsError> {
        let name = self.shared.name(topic);
        let settings = self.settings(topic).await?;
        let changes = settings.changes(self.options(), topic);
        // Altering replaces all settings of the topic, so what stands there is said again.
        let (false, Some(kept)) = (changes.is_empty(), settings.dynamic()) else { return Ok(None) };
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (key, value) in kept.iter().chain(&changes) {
            alter = alter.set(key, value);
        }
        let results = self.client.alter_configs([&alter], &patient()).await;
        let results = results.map_err(|error| self.unreachable(error.to_string()))?;
        if let Some(Err((_, code))) = results.into_iter().next() {
            return Err(refused(format!("alter the settings of {name}"), code));
        }
        let changed: Vec<_> = changes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Ok(Some(format!("set {} of {name}", changed.join(", "))))
    }
}

fn refused(action: String, code: RDKafkaErrorCode) -> TopicsError {
    TopicsError::Refused { action, reason: code.to_string() }
}

fn patient() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).operation_timeout(Some(ADMIN_TIMEOUT))
}
