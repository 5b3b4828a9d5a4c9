//! What librdkafka says of itself, as metrics.

use std::sync::{Arc, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntGauge, Registry};
use tidegate_kafka::KafkaLog;

/// Read when they are scraped.
struct Figures {
    log: Weak<KafkaLog>,
    brokers: IntGauge,
    queued: IntGauge,
    queued_bytes: IntGauge,
    rebalances: IntGauge,
    rtt_p99: Gauge,
}

/// Registers the figures of this log.
pub(super) fn register(registry: &Registry, log: &Arc<KafkaLog>) -> Result<(), prometheus::Error> {
    let gauge = |name: &str, help: &str| IntGauge::new(format!("tidegate_kafka_{name}"), help);
    registry.register(Box::new(Figures {
        log: Arc::downgrade(log),
        brokers: gauge("brokers_connected", "Brokers that the producer is connected to.")?,
        queued: gauge("produce_queue_records", "Records that wait to be produced or acknowledged.")?,
        queued_bytes: gauge("produce_queue_bytes", "Bytes that wait to be produced or acknowledged.")?,
        rebalances: gauge(
            "group_rebalances",
            "Rebalances of the routers' group that this process took part in.",
        )?,
        rtt_p99: Gauge::new(
            "tidegate_kafka_broker_rtt_p99_seconds",
            "Round trip to the slowest broker, 99th percentile of the last seconds.",
        )?,
    }))
}

impl Figures {
    fn parts(&self) -> [&dyn Collector; 5] {
        [&self.brokers, &self.queued, &self.queued_bytes, &self.rebalances, &self.rtt_p99]
    }
}

impl Collector for Figures {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(log) = self.log.upgrade() {
            let stats = log.stats();
            let whole = |figure: u64| i64::try_from(figure).unwrap_or(i64::MAX);
            self.brokers.set(whole(stats.brokers_connected));
            self.queued.set(whole(stats.produce_queue_records));
            self.queued_bytes.set(whole(stats.produce_queue_bytes));
            self.rebalances.set(whole(stats.rebalances));
            self.rtt_p99.set(stats.broker_rtt_p99_us as f64 / 1e6);
        }
        self.parts().into_iter().flat_map(Collector::collect).collect()
    }
}
