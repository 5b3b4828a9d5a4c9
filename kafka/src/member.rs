//! Membership of the routers' consumer groups, one a topic: who owns which partition, and how far it has been handed
//! over.
//!
//! Owns the group's consumer, which fetches nothing: its partitions are paused as they are assigned. One thread
//! polls it; callbacks only note what happened, and the thread passes that on as the receiver has room, so a slow
//! receiver never costs the membership. Leaves the group by saying so, so that the others need not wait for the
//! session to run out. A member that fails for good is replaced.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Statistics, TopicPartitionList};
use tidegate_eventlog::Assignment;
use tidegate_vocab::{Offset, PartitionId, Topic};
use tokio::sync::mpsc;

use crate::observer::Observer;
use crate::records;
use crate::shared::{Shared, lock};
use crate::threads::{Worker, drop_within};

/// How long the thread waits for librdkafka before it looks at everything else.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How often offsets are committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a member that failed waits before it joins anew.
const REJOIN_DELAY: Duration = Duration::from_secs(1);
/// How long leaving may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(4);

/// What others may ask of the member.
#[derive(Default)]
pub(crate) struct Member {
    stop: Arc<AtomicBool>,
    /// By partition: everything before has been handed over, and that is not committed yet.
    handed_over: Arc<Mutex<HashMap<PartitionId, Offset>>>,
}

impl Member {
    /// Joins the group of a topic on a thread of its own.
    pub(crate) fn join(
        &self,
        shared: Arc<Shared>,
        topic: Topic,
        assignments: mpsc::Sender<Assignment>,
    ) -> std::io::Result<Worker> {
        let thread = MemberThread {
            shared,
            topic,
            stop: Arc::clone(&self.stop),
            handed_over: Arc::clone(&self.handed_over),
            assignments,
            noted: Arc::default(),
            owned: BTreeSet::new(),
        };
        Worker::spawn("kafka-member", move || thread.run())
    }

    pub(crate) fn commit(&self, partition: PartitionId, next: Offset) {
        lock(&self.handed_over).insert(partition, next);
    }

    /// Lets the thread leave the group and end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// What the callbacks note for the thread.
type Noted = Arc<Mutex<VecDeque<Assignment>>>;

struct MemberThread {
    shared: Arc<Shared>,
    topic: Topic,
    stop: Arc<AtomicBool>,
    handed_over: Arc<Mutex<HashMap<PartitionId, Offset>>>,
    assignments: mpsc::Sender<Assignment>,
    noted: Noted,
    /// What the receiver will own once it has heard all that was noted.
    owned: BTreeSet<PartitionId>,
}

impl MemberThread {
    fn run(mut self) {
        while !self.is_stopped() {
            let problem = match self.open() {
                Ok(consumer) => {
                    let problem = self.serve(&consumer);
                    drop_within(consumer, "kafka-leave", LEAVE_TIMEOUT);
                    problem
                }
                Err(error) => Some(error.to_string()),
            };
            self.revoke_all();
            let Some(problem) = problem else { return };
            tracing::error!(problem, "consumer group member has failed and joins anew");
            self.shared.set_member_problem(self.topic, Some(problem));
            let until = Instant::now() + REJOIN_DELAY;
            while Instant::now() < until && !self.is_stopped() {
                self.pass_on();
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn open(&self) -> KafkaResult<BaseConsumer<MemberContext>> {
        let config = self.shared.options.finish(self.shared.options.member(self.topic));
        let observer = Observer::new(&self.shared, "member");
        let context = MemberContext { observer, topic: self.topic, noted: Arc::clone(&self.noted) };
        let consumer: BaseConsumer<MemberContext> = config.create_with_context(context)?;
        consumer.subscribe(&[self.shared.name(self.topic)])?;
        Ok(consumer)
    }

    /// Returns why the member cannot go on; None when it was told to stop.
    fn serve(&mut self, consumer: &BaseConsumer<MemberContext>) -> Option<String> {
        let mut committed = Instant::now();
        while !self.is_stopped() {
            match consumer.poll(POLL_INTERVAL) {
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => return Some(code.to_string()),
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(keeps_out) => {
                    self.shared.set_member_problem(self.topic, Some(error.to_string()));
                }
                // Fetched before the pause took hold, or told that nothing was ever committed.
                Some(_) => {}
                None => self.pass_on(),
            }
            // librdkafka looks whether a heartbeat is due when something else wakes its thread, or once a second: this
            // wakes it. Heartbeats are how a member hears that another has left.
            let _ = consumer.assignment();
            if let Some((code, reason)) = consumer.client().fatal_error() {
                return Some(format!("{code}: {reason}"));
            }
            if committed.elapsed() >= COMMIT_INTERVAL {
                committed = Instant::now();
                self.commit(consumer);
            }
        }
        self.commit(consumer);
        None
    }

    /// Hands on what was noted, as far as the receiver has room.
    fn pass_on(&mut self) {
        let mut noted = lock(&self.noted);
        while let Some(change) = noted.front().copied() {
            match self.assignments.try_send(change) {
                Err(mpsc::error::TrySendError::Full(_)) => break,
                // Nobody listens any more: nothing to tell.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => noted.pop_front(),
            };
            match change {
                Assignment::Assigned(partition) => _ = self.owned.insert(partition),
                Assignment::Revoked(partition) => _ = self.owned.remove(&partition),
            }
        }
    }

    /// After a member has gone without its consumer saying so.
    fn revoke_all(&mut self) {
        self.pass_on();
        lock(&self.noted).extend(self.owned.iter().copied().map(Assignment::Revoked));
        self.pass_on();
    }

    /// Only what is owned: the others' offsets are not ours to write.
    fn commit(&self, consumer: &BaseConsumer<MemberContext>) {
        let mine = |partition: &PartitionId, _: &mut Offset| partition.topic == self.topic;
        let offsets: Vec<_> = lock(&self.handed_over).extract_if(mine).collect();
        let mut list = TopicPartitionList::new();
        for (partition, next) in offsets.iter().filter(|(partition, _)| self.owned.contains(partition)) {
            let one = records::at(self.shared.name(partition.topic), partition.number, Some(*next));
            for element in one.elements() {
                // Fails only for a logical offset that has no number, which this is not.
                let _ = list.add_partition_offset(element.topic(), element.partition(), element.offset());
            }
        }
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "offsets were not committed");
        }
    }
}

/// Whether librdkafka keeps asking for membership and will not get it until somebody grants it.
fn keeps_out(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::GroupAuthorizationFailed
            | Code::TopicAuthorizationFailed
            | Code::InconsistentGroupProtocol
            | Code::InvalidGroupId
            | Code::GroupMaxSizeReached
    )
}

struct MemberContext {
    observer: Observer,
    topic: Topic,
    noted: Noted,
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.observer.log(level, facility, message);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.observer.error(error, reason);
    }
}

impl MemberContext {
    fn note(&self, list: &TopicPartitionList, change: fn(PartitionId) -> Assignment) {
        let shared = self.observer.shared();
        shared.figures.rebalances.fetch_add(1, Ordering::Relaxed);
        let of = list.elements();
        let partitions = of.iter().filter_map(|one| shared.partition(one.topic(), one.partition()));
        lock(&self.noted).extend(partitions.map(change));
    }
}

impl ConsumerContext for MemberContext {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            // Before the others may take them over.
            Rebalance::Revoke(list) => self.note(list, Assignment::Revoked),
            Rebalance::Assign(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance has failed"),
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            // It looks up what was committed first, so this comes before it fetches anything.
            if let Err(error) = consumer.pause(list) {
                tracing::warn!(%error, "assigned partitions could not be paused, and are fetched twice");
            }
            self.note(list, Assignment::Assigned);
            // Also when there are more members than partitions, and it is assigned nothing.
            self.observer.shared().set_member_problem(self.topic, None);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "offsets were not committed");
        }
    }
}
