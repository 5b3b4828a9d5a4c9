//! Figures of this process's Kafka clients, for metrics.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::statistics::Statistics;

use crate::shared::lock;

/// A snapshot, at most a second old.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KafkaStats {
    /// Brokers that the producer is connected to.
    pub brokers_connected: u64,
    /// The slowest broker's 99th percentile of round trips of the producer in the last second, microseconds.
    pub broker_rtt_p99_us: u64,
    /// Records that wait for a broker or for its answer.
    pub produce_queue_records: u64,
    /// Their bytes.
    pub produce_queue_bytes: u64,
    /// How often this process was assigned or lost partitions.
    pub rebalances: u64,
    /// How often the producer had to be replaced.
    pub producers_rebuilt: u64,
    /// Whether the producer has its id and is ready to send without a further round trip.
    pub producer_is_ready: bool,
}

/// Where the snapshot is kept together.
#[derive(Default)]
pub(crate) struct Figures {
    latest: Mutex<KafkaStats>,
    pub(crate) rebalances: AtomicU64,
    pub(crate) producers_rebuilt: AtomicU64,
}

impl Figures {
    pub(crate) fn snapshot(&self) -> KafkaStats {
        KafkaStats {
            rebalances: self.rebalances.load(Ordering::Relaxed),
            producers_rebuilt: self.producers_rebuilt.load(Ordering::Relaxed),
            ..lock(&self.latest).clone()
        }
    }

    /// Takes over what the producer's client says of itself.
    pub(crate) fn update(&self, statistics: &Statistics) {
        let up = || statistics.brokers.values().filter(|broker| broker.state == "UP" && broker.nodeid >= 0);
        let rtt = up().filter_map(|broker| broker.rtt.as_ref()).map(|window| window.p99).max().unwrap_or(0);
        let eos = statistics.eos.as_ref();
        *lock(&self.latest) = KafkaStats {
            brokers_connected: up().count() as u64,
            broker_rtt_p99_us: u64::try_from(rtt).unwrap_or(0),
            produce_queue_records: statistics.msg_cnt,
            produce_queue_bytes: statistics.msg_size,
            producer_is_ready: eos.is_some_and(|eos| eos.idemp_state == "Assigned"),
            ..KafkaStats::default()
        };
    }
}
