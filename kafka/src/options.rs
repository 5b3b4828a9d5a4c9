//! What a Kafka log is opened with, and the librdkafka settings that follow from it.

use std::collections::BTreeMap;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use tidegate_vocab::{PartitionCounts, PartitionId, Topic};

use crate::topics::TopicSpec;

/// Milliseconds after which librdkafka gives a record up.
pub(crate) const MESSAGE_TIMEOUT_MS: u64 = 5_000;

/// Milliseconds before librdkafka repeats an attempt to write; it takes a fifth more or less.
pub(crate) const RETRY_BACKOFF_MS: u64 = 100;

/// How much of the topics is verified when the log is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// That they exist, their partitions, and their settings.
    Settings,
    /// That they exist, and their partitions: for clusters that do not let us describe configurations.
    Partitions,
}

/// What tells one making of a topic from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochSource {
    /// The id that Kafka gave the topic when it was made.
    TopicIds,
    /// Nothing but its partitions: for brokers that give no ids, which only librdkafka's mock cluster may be excused
    /// for. A topic that is made anew is then not noticed.
    Fixed,
}

/// What a Kafka log is opened with.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// `host:port` of some brokers, separated by commas.
    pub bootstrap: String,
    /// What the topics' names start with: `tidegate.` gives `tidegate.events`, `tidegate.inbox`, and so on.
    pub topic_prefix: String,
    /// What the names of the consumer groups begin with in which routers share the partitions: `<group>-events` and
    /// `<group>-inbox`. A third one, `<group>-readers`, is named by the consumers that join none; nothing is ever
    /// committed there.
    pub group: String,
    /// How this process is called in the brokers' logs and quotas.
    pub client_id: String,
    /// How many partitions each topic has.
    pub counts: PartitionCounts,
    /// The operator's part of the log epochs: changed by hand to declare every old cursor void.
    pub epoch_salt: String,
    /// What else they are made of.
    pub epoch_source: EpochSource,
    /// `none`, `lz4` or `snappy`: those that librdkafka is built with here.
    pub compression: String,
    /// What the topics are to be like.
    pub spec: TopicSpec,
    /// How much of that is verified at the start.
    pub verify: Verify,
    /// Further librdkafka properties, for TLS and SASL above all (`security.protocol`, `ssl.ca.location`,
    /// `sasl.mechanism`, ...). They are set last and so may override anything. librdkafka is built without TLS and
    /// SASL unless this crate's build adds rdkafka's features `ssl` or `gssapi`: it then refuses these properties
    /// when the log is opened, and says so.
    pub properties: BTreeMap<String, String>,
}

impl KafkaOptions {
    /// The defaults for these brokers.
    #[must_use]
    pub fn new(bootstrap: impl Into<String>, counts: PartitionCounts) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            topic_prefix: "tidegate.".into(),
            group: "tidegate-router".into(),
            client_id: "tidegate".into(),
            counts,
            epoch_salt: String::new(),
            epoch_source: EpochSource::TopicIds,
            compression: "lz4".into(),
            spec: TopicSpec::default(),
            verify: Verify::Settings,
            properties: BTreeMap::new(),
        }
    }

    /// The consumer group that shares a topic's partitions. Each topic has its own: the assignor counts partitions and
    /// does not look at their topics, so one group for both gave one router all events and the other all inboxes.
    #[must_use]
    pub fn group_name(&self, topic: Topic) -> String {
        format!("{}-{}", self.group, topic.as_str())
    }

    /// The Kafka name of a topic.
    #[must_use]
    pub fn topic_name(&self, topic: Topic) -> String {
        format!("{}{}", self.topic_prefix, topic.as_str())
    }

    pub(crate) fn has(&self, partition: PartitionId) -> bool {
        partition.number < self.counts.of(partition.topic)
    }

    /// What every client of ours is made with.
    pub(crate) fn client(&self, role: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", format!("{}-{role}", self.client_id))
            .set("socket.keepalive.enable", "true")
            // A small request is not held back for a larger one.
            .set("socket.nagle.disable", "true")
            // A broker that comes back is found again soon; the default waits for up to 10 s.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            // Leaders move while old connections still look fine.
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("topic.metadata.refresh.fast.interval.ms", "100")
            .set("retry.backoff.max.ms", "500")
            .set("log.connection.close", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// What every consumer that joins no group is made with.
    pub(crate) fn reader(&self, role: &str) -> ClientConfig {
        let mut config = self.client(role);
        config
            // librdkafka assigns nothing without a group; this one is never joined.
            .set("group.id", format!("{}-readers", self.group))
            // A foreign transaction that stays open must not hold our records back.
            .set("isolation.level", "read_uncommitted")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("fetch.min.bytes", "1")
            .set("fetch.error.backoff.ms", "50")
            .set("fetch.queue.backoff.ms", "5")
            .set("check.crcs", "true");
        config
    }

    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.client("producer");
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS.to_string())
            .set("retry.backoff.ms", RETRY_BACKOFF_MS.to_string())
            .set("compression.type", &self.compression)
            .set("message.max.bytes", self.spec.message_bytes_limit.to_string())
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", (128 * 1024).to_string())
            .set("statistics.interval.ms", "500");
        config
    }

    pub(crate) fn member(&self, topic: Topic) -> ClientConfig {
        let mut config = self.reader(&format!("member-{}", topic.as_str()));
        config
            .set("group.id", self.group_name(topic))
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            // How long a planned move takes to be heard of; 500 ms would be half of the second it may pause.
            .set("heartbeat.interval.ms", "200")
            .set("max.poll.interval.ms", "10000")
            // Whatever it would fetch before it pauses is thrown away: as little as possible.
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "64");
        config
    }

    /// Lets the operator's own properties override ours.
    pub(crate) fn finish(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}
