//! What the embedded log is told when it is opened, and why it may refuse to.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tidegate_vocab::{PartitionCounts, Topic, limits};

/// Milliseconds since the Unix epoch. A parameter, so that tests own the time.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How long each topic keeps its records, in milliseconds of record time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionMs {
    /// Of [`Topic::Events`].
    pub events: u64,
    /// Of [`Topic::Inbox`].
    pub inbox: u64,
    /// Of [`Topic::Upstream`].
    pub upstream: u64,
    /// Of [`Topic::Control`]: at least as long as a token lives.
    pub control: u64,
    /// Of [`Topic::Dead`].
    pub dead: u64,
    /// Of [`Topic::Presence`], which this engine does not compact: as long as anybody may stay online.
    pub presence: u64,
}

impl RetentionMs {
    /// The same for every topic.
    #[must_use]
    pub fn same(ms: u64) -> Self {
        Self { events: ms, inbox: ms, upstream: ms, control: ms, dead: ms, presence: ms }
    }

    /// How long `topic` keeps its records.
    #[must_use]
    pub fn of(&self, topic: Topic) -> u64 {
        match topic {
            Topic::Events => self.events,
            Topic::Inbox => self.inbox,
            Topic::Upstream => self.upstream,
            Topic::Control => self.control,
            Topic::Dead => self.dead,
            Topic::Presence => self.presence,
        }
    }
}

/// What the embedded log needs to know.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Partitions of each topic: fixed at the first open of a directory.
    pub counts: PartitionCounts,
    /// The operator's part of the log epoch.
    pub epoch_salt: String,
    /// How long records are kept.
    pub retention: RetentionMs,
    /// Free bytes on the file system below which appends are refused.
    pub disk_reserve_bytes: u64,
    /// Where LogAppendTime comes from.
    pub clock: Clock,
}

impl EmbeddedOptions {
    /// The defaults: 24 h of retention, the standard reserve, no salt, the system's clock.
    #[must_use]
    pub fn new(counts: PartitionCounts) -> Self {
        Self {
            counts,
            epoch_salt: String::new(),
            retention: RetentionMs::same(24 * 60 * 60 * 1000),
            disk_reserve_bytes: limits::DISK_RESERVE_BYTES,
            clock: Arc::new(system_clock),
        }
    }
}

fn system_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Why the log did not open, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory was made with another number of partitions: keys would move to other partitions.
    #[error(
        "topic {topic} has {stored} partitions in this data directory and {configured} in the configuration: \
         set it back to {stored}, or start with an empty data directory and lose what is in this one"
    )]
    PartitionCount {
        /// The topic's name.
        topic: &'static str,
        /// What the directory has.
        stored: u32,
        /// What the configuration asks for.
        configured: u32,
    },
    /// The directory was written by a version with another format.
    #[error(
        "data directory has format {found} and this version knows {known}: run the version that wrote it"
    )]
    Format {
        /// What the directory has.
        found: u32,
        /// What we know.
        known: u32,
    },
    /// Something that we wrote does not read back.
    #[error("data directory is damaged ({what}): restore it from a backup or start with an empty one")]
    Damaged {
        /// What does not read back.
        what: &'static str,
    },
    /// The store refused.
    #[error("store could not be used: {0}")]
    Store(#[from] fjall::Error),
    /// The system gave us no thread.
    #[error("log thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
}
