//! What the threads of one log tell each other: epochs, what is wrong with the topics, who is reachable.
//!
//! Written by the watcher, the librdkafka callbacks and the group member; read by everyone without waiting.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_eventlog::{AppendError, ReadError};
use tidegate_vocab::{LogEpoch, PartitionId, Topic};

use crate::options::KafkaOptions;
use crate::stats::Figures;

/// A lock that a panic elsewhere does not take away.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn unreadable(reason: impl Into<String>) -> ReadError {
    ReadError::Unavailable { reason: reason.into() }
}

pub(crate) struct Shared {
    pub(crate) options: KafkaOptions,
    /// Kafka's names of the topics, by number.
    pub(crate) names: [String; Topic::COUNT],
    epochs: [AtomicU64; Topic::COUNT],
    /// What is wrong with a topic, by number: appends to it are refused for that reason.
    problems: [Mutex<Option<String>>; Topic::COUNT],
    /// By topic and partition: no broker leads it at the moment.
    leaderless: [Vec<AtomicBool>; Topic::COUNT],
    unreachable: AtomicBool,
    /// A client has lost all its brokers; the watcher finds out whether they are gone.
    suspected: AtomicBool,
    /// By topic: why its group does without us.
    member_problems: Mutex<BTreeMap<Topic, String>>,
    closed: AtomicBool,
    pub(crate) figures: Figures,
}

impl Shared {
    pub(crate) fn new(options: KafkaOptions) -> Self {
        let flags = |topic| (0..options.counts.of(topic)).map(|_| AtomicBool::new(false)).collect();
        Self {
            names: Topic::ALL.map(|topic| options.topic_name(topic)),
            epochs: Default::default(),
            problems: Default::default(),
            leaderless: Topic::ALL.map(flags),
            unreachable: AtomicBool::new(false),
            suspected: AtomicBool::new(false),
            member_problems: Mutex::default(),
            closed: AtomicBool::new(false),
            figures: Figures::default(),
            options,
        }
    }

    pub(crate) fn name(&self, topic: Topic) -> &str {
        &self.names[topic as usize]
    }

    /// The partition that a Kafka topic and number mean, if it is one of ours.
    pub(crate) fn partition(&self, name: &str, number: i32) -> Option<PartitionId> {
        let topic = Topic::ALL.into_iter().find(|topic| self.name(*topic) == name)?;
        let partition = PartitionId { topic, number: u32::try_from(number).ok()? };
        self.options.has(partition).then_some(partition)
    }

    /// Refuses what is asked of a partition that there is not, or of a closed log.
    pub(crate) fn known(&self, partition: PartitionId) -> Result<(), String> {
        if self.is_closed() {
            return Err("the log is closed".into());
        }
        if self.options.has(partition) { Ok(()) } else { Err(format!("there is no partition {partition}")) }
    }

    /// As [`Shared::known`], and refuses at once what no broker could answer now.
    pub(crate) fn readable(&self, partition: PartitionId) -> Result<(), ReadError> {
        self.known(partition).map_err(unreadable)?;
        if self.is_leaderless(partition) {
            return Err(unreadable(format!("{partition} has no leader")));
        }
        Ok(())
    }

    pub(crate) fn epoch(&self, topic: Topic) -> LogEpoch {
        LogEpoch(self.epochs[topic as usize].load(Ordering::Acquire))
    }

    /// Returns the epoch before.
    pub(crate) fn set_epoch(&self, topic: Topic, epoch: LogEpoch) -> LogEpoch {
        LogEpoch(self.epochs[topic as usize].swap(epoch.0, Ordering::AcqRel))
    }

    pub(crate) fn problem(&self, topic: Topic) -> Option<String> {
        lock(&self.problems[topic as usize]).clone()
    }

    /// Returns whether that is news.
    pub(crate) fn set_problem(&self, topic: Topic, problem: Option<String>) -> bool {
        let mut known = lock(&self.problems[topic as usize]);
        let is_news = *known != problem;
        *known = problem;
        is_news
    }

    pub(crate) fn is_leaderless(&self, partition: PartitionId) -> bool {
        let flag = self.leaderless[partition.topic as usize].get(partition.number as usize);
        flag.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    pub(crate) fn set_leaders(&self, topic: Topic, led: &[bool]) {
        for (flag, led) in self.leaderless[topic as usize].iter().zip(led) {
            flag.store(!led, Ordering::Relaxed);
        }
    }

    /// Returns whether that is news.
    pub(crate) fn set_unreachable(&self, unreachable: bool) -> bool {
        self.unreachable.swap(unreachable, Ordering::Relaxed) != unreachable
    }

    pub(crate) fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    /// Makes the watcher look now. One client's word is not enough: an idle one loses all its connections too.
    pub(crate) fn suspect(&self) {
        self.suspected.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Relaxed)
    }

    /// Returns whether there was a suspicion.
    pub(crate) fn take_suspicion(&self) -> bool {
        self.suspected.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn set_member_problem(&self, topic: Topic, problem: Option<String>) {
        let mut problems = lock(&self.member_problems);
        match problem {
            Some(problem) => _ = problems.insert(topic, problem),
            None => _ = problems.remove(&topic),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Returns whether it was closed before.
    pub(crate) fn close(&self) -> bool {
        self.closed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn health(&self) -> Result<(), AppendError> {
        let refused = |reason: String| Err(AppendError::Unavailable { reason });
        if self.is_closed() {
            return refused("the log is closed".into());
        }
        if self.unreachable.load(Ordering::Relaxed) {
            return refused(format!("no Kafka broker of {} answers", self.options.bootstrap));
        }
        if let Some(problem) = Topic::ALL.into_iter().find_map(|topic| self.problem(topic)) {
            return refused(problem);
        }
        match lock(&self.member_problems).values().next().cloned() {
            Some(problem) => refused(format!("this process is no member of its consumer group: {problem}")),
            None => Ok(()),
        }
    }
}
