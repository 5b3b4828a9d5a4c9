//! Topics, partitions and which channel lives where.

use std::fmt;

use crate::channel::Channel;

/// A log topic. The discriminants stand in cursors and in the embedded log's keys: they are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Topic {
    /// Events of ordinary channels.
    Events = 0,
    /// Events of users' own channels: long retention, low rate.
    Inbox = 1,
    /// What clients say to backends.
    Upstream = 2,
    /// What every node has to know at once, as revocations: one partition, read by every router.
    Control = 3,
    /// Records that nobody could read, as they were: one partition.
    Dead = 4,
    /// What was said of who is online and which channels are occupied: one partition, compacted by subject.
    Presence = 5,
}

impl Topic {
    /// All topics, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Events, Self::Inbox, Self::Upstream, Self::Control, Self::Dead, Self::Presence];
    /// How many there are.
    pub const COUNT: usize = 6;
    /// The topics that have one partition, whatever is configured: control records have one order, dead letters are few,
    /// and one router appends what it read of presence.
    pub const SINGLE: [Self; 3] = [Self::Control, Self::Dead, Self::Presence];
    /// The topics that keep the last record of each key instead of all records for a time.
    pub const COMPACTED: [Self; 1] = [Self::Presence];
    /// The topics that clients follow, so the ones with tenures, history and cursors.
    pub const FOLLOWED: [Self; 2] = [Self::Events, Self::Inbox];

    /// The topic of a channel's events: users' own channels have one of their own.
    #[must_use]
    pub fn of(channel: &Channel) -> Self {
        if channel.is_user() { Self::Inbox } else { Self::Events }
    }

    /// The topic with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name as configured, logged and used as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Inbox => "inbox",
            Self::Upstream => "upstream",
            Self::Control => "control",
            Self::Dead => "dead",
            Self::Presence => "presence",
        }
    }
}

/// A partition is a topic and a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The topic.
    pub topic: Topic,
    /// Zero-based number within the topic.
    pub number: u32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic.as_str(), self.number)
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How many partitions each topic has: configuration, never asked of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionCounts([u32; Topic::COUNT]);

impl PartitionCounts {
    /// The same count for every topic but those that have one partition.
    ///
    /// # Panics
    /// When `count` is zero: configuration validation refuses that before (invariant: at least one partition).
    #[must_use]
    pub fn same(count: u32) -> Self {
        assert!(count > 0, "invariant: configuration refuses zero partitions");
        Self(Topic::ALL.map(|topic| if Topic::SINGLE.contains(&topic) { 1 } else { count }))
    }

    /// How many partitions `topic` has.
    #[must_use]
    pub fn of(&self, topic: Topic) -> u32 {
        self.0[topic as usize]
    }

    /// The partition on which this channel lives.
    #[must_use]
    pub fn partition_of(&self, channel: &Channel) -> PartitionId {
        let topic = Topic::of(channel);
        PartitionId { topic, number: partition_number(channel.as_str().as_bytes(), self.of(topic)) }
    }

    /// Every partition of the topics that clients follow.
    pub fn followed(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let counts = *self;
        Topic::FOLLOWED
            .into_iter()
            .flat_map(move |topic| (0..counts.of(topic)).map(move |number| PartitionId { topic, number }))
    }
}

/// The partition number of a key: `(murmur2(key) & 0x7fffffff) mod count`, as Kafka's default partitioner does.
#[must_use]
pub fn partition_number(key: &[u8], count: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % count
}

/// MurmurHash2, 32 bits, seed 0x9747b28c: the variant of Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ (data.len() as u32);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    for (index, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Apache Kafka's own `UtilsTest.testMurmur2`, as signed 32-bit numbers there.
    #[test]
    fn murmur2_agrees_with_apache_kafka() {
        for (key, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key}");
        }
    }

    /// Written down so that another implementation can check itself: 8 partitions is the default of `dev`.
    #[test]
    fn written_partition_vectors() {
        let counts = PartitionCounts::same(8);
        let of = |name: &str| counts.partition_of(&Channel::parse(name).expect("valid")).to_string();
        assert_eq!(of("abc"), format!("events-{}", 479_470_107 % 8));
        assert_eq!(of("foobar"), format!("events-{}", (-790_332_482_i32 as u32 & 0x7fff_ffff) % 8));
        assert!(of("user:alice").starts_with("inbox-"));
        assert!(of("everyone").starts_with("events-"));
    }

    #[test]
    fn topics_keep_their_numbers() {
        for topic in Topic::ALL {
            assert_eq!(Topic::from_number(topic as u8), Some(topic));
        }
        assert_eq!(Topic::from_number(6), None);
        assert_eq!(Topic::ALL.map(|topic| PartitionCounts::same(8).of(topic)), [8, 8, 8, 1, 1, 1]);
    }
}
