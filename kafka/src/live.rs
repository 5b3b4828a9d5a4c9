//! The live path: consumers that belong to no group and fetch the partitions that somebody consumes.
//!
//! All partitions share one consumer, a lane, so that a broker is asked for all of them in one request. A second
//! consumption of the same partition goes to a second lane, and so on. Each partition has a queue of its own, which
//! the consuming task empties without a thread in between; the lane's thread only assigns and releases, one after
//! the other, and serves librdkafka's events.

mod stream;

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use tidegate_vocab::{Offset, PartitionId};
use tokio::sync::{Notify, oneshot};

pub(crate) use self::stream::Stream;
use crate::observer::Observer;
use crate::queries::Queries;
use crate::records;
use crate::shared::{Shared, lock};
use crate::threads::Worker;

/// How many may consume one partition at the same time.
const LANES_LIMIT: usize = 16;
/// How often a lane serves librdkafka's events when it has nothing else to do.
const SERVE_INTERVAL: Duration = Duration::from_millis(100);

type Queue = PartitionQueue<Observer>;

/// All lanes.
pub(crate) struct Live {
    shared: Arc<Shared>,
    queries: Arc<Queries>,
    lanes: Mutex<Vec<(Lane, Worker)>>,
}

/// A handle to a lane.
#[derive(Clone)]
struct Lane {
    commands: Sender<Command>,
    taken: Arc<Mutex<HashSet<PartitionId>>>,
}

enum Command {
    Assign {
        partition: PartitionId,
        from: Offset,
        wake: Arc<Notify>,
        reply: oneshot::Sender<Result<Queue, String>>,
    },
    Release {
        partition: PartitionId,
        queue: Option<Queue>,
    },
    Stop,
}

impl Live {
    /// Opens the first lane, so that it is connected before it is needed.
    pub(crate) fn new(shared: Arc<Shared>, queries: Arc<Queries>) -> Result<Arc<Self>, String> {
        let live = Self { shared, queries, lanes: Mutex::default() };
        let lane = live.open_lane()?;
        lock(&live.lanes).push(lane);
        Ok(Arc::new(live))
    }

    pub(crate) fn consume(self: &Arc<Self>, partition: PartitionId, from: Offset) -> Stream {
        Stream::new(Arc::clone(self), partition, from)
    }

    /// A lane that does not fetch this partition yet; it is now taken there.
    fn lane_for(&self, partition: PartitionId) -> Result<Lane, String> {
        let mut lanes = lock(&self.lanes);
        if self.shared.is_closed() {
            return Err("the log is closed".into());
        }
        for (lane, _) in lanes.iter() {
            if lock(&lane.taken).insert(partition) {
                return Ok(lane.clone());
            }
        }
        if lanes.len() >= LANES_LIMIT {
            return Err(format!("{partition} has {LANES_LIMIT} consumers already"));
        }
        let (lane, worker) = self.open_lane()?;
        lock(&lane.taken).insert(partition);
        lanes.push((lane.clone(), worker));
        Ok(lane)
    }

    fn open_lane(&self) -> Result<(Lane, Worker), String> {
        let mut config = self.shared.options.reader("live");
        config
            // A partition that is assigned now waits for the request under way, so at most this long.
            .set("fetch.wait.max.ms", "50")
            .set("queued.min.messages", "2000")
            .set("queued.max.messages.kbytes", "1024")
            .set("max.partition.fetch.bytes", "524288");
        let config = self.shared.options.finish(config);
        let consumer: KafkaResult<BaseConsumer<Observer>> =
            config.create_with_context(Observer::new(&self.shared, "live"));
        let consumer = Arc::new(consumer.map_err(|error| error.to_string())?);
        let (commands, received) = channel();
        let lane = Lane { commands, taken: Arc::default() };
        let thread = LaneThread {
            shared: Arc::clone(&self.shared),
            consumer,
            received,
            taken: Arc::clone(&lane.taken),
        };
        let worker = Worker::spawn("kafka-live", move || thread.run()).map_err(|error| error.to_string())?;
        Ok((lane, worker))
    }

    /// Ends all lanes; streams that still exist yield that the log is closed. Blocks until the deadline at most.
    pub(crate) fn close(&self, deadline: Instant) {
        let lanes = std::mem::take(&mut *lock(&self.lanes));
        for (lane, _) in &lanes {
            // A lane that is gone needs no stopping.
            let _ = lane.commands.send(Command::Stop);
        }
        for (_, worker) in lanes {
            worker.join(deadline);
        }
    }
}

impl Lane {
    /// Gives a partition back, with its queue if that was handed out.
    fn release(&self, partition: PartitionId, queue: Option<Queue>) {
        let unsent = self.commands.send(Command::Release { partition, queue });
        if let Err(unsent) = unsent {
            // The lane is closed. The queue may be the last to hold its consumer, and that takes long to drop.
            let dropping = std::thread::Builder::new().name("kafka-drop".into()).spawn(move || drop(unsent));
            if let Err(error) = dropping {
                tracing::error!(%error, "no thread to close a Kafka consumer on");
            }
        }
    }
}

struct LaneThread {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Observer>>,
    received: Receiver<Command>,
    taken: Arc<Mutex<HashSet<PartitionId>>>,
}

impl LaneThread {
    fn run(self) {
        let mut served = Instant::now();
        loop {
            match self.received.recv_timeout(SERVE_INTERVAL) {
                Ok(Command::Assign { partition, from, wake, reply }) => {
                    // If nobody waits any more, its release is on the way.
                    let _ = reply.send(self.assign(partition, from, wake));
                }
                Ok(Command::Release { partition, queue }) => self.release(partition, queue),
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if served.elapsed() >= SERVE_INTERVAL {
                served = Instant::now();
                // Records go to the partitions' queues: here come log lines and errors only, which the context takes.
                while self.consumer.poll(Duration::ZERO).is_some() {}
            }
        }
    }

    fn assign(&self, partition: PartitionId, from: Offset, wake: Arc<Notify>) -> Result<Queue, String> {
        let name = self.shared.name(partition.topic);
        let number = i32::try_from(partition.number).unwrap_or(i32::MAX);
        // Before the assignment, so that no record goes to the consumer's common queue.
        let queue = self.consumer.split_partition_queue(name, number);
        let mut queue = queue.ok_or_else(|| format!("{partition} has no queue"))?;
        queue.set_nonempty_callback(move || wake.notify_one());
        let assignment = records::at(name, partition.number, Some(from));
        self.consumer.incremental_assign(&assignment).map_err(|error| error.to_string())?;
        Ok(queue)
    }

    fn release(&self, partition: PartitionId, queue: Option<Queue>) {
        let assignment = records::at(self.shared.name(partition.topic), partition.number, None);
        if let Err(error) = self.consumer.incremental_unassign(&assignment) {
            tracing::debug!(%partition, %error, "Kafka partition was not assigned");
        }
        // Before the partition may be assigned again: dropping the old queue silences the new one, they are the same.
        drop(queue);
        lock(&self.taken).remove(&partition);
    }
}
