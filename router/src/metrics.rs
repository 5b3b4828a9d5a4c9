//! The router's metrics: registered once, with closed label sets resolved at start where the path is hot.

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use tidegate_eventlog::AppendError;
use tidegate_vocab::ErrorKind;

use crate::record::DeadReason;

/// Seconds: from a fast disk's sync to the timeout.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.0125, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
const ITEMS: [f64; 7] = [1.0, 2.0, 5.0, 10.0, 50.0, 200.0, 1000.0];

/// Through which door a publish came. Closed: it is a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// gRPC on the API port.
    Grpc,
    /// JSON over HTTP on the API port.
    Http,
    /// The Rust call, in the same process.
    Local,
}

impl Api {
    const ALL: [Self; 3] = [Self::Grpc, Self::Http, Self::Local];

    fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
            Self::Local => "local",
        }
    }
}

/// See the module.
pub(crate) struct Metrics {
    publish_requests: IntCounterVec,
    publish_seconds: HistogramVec,
    pub(crate) batch_items: Histogram,
    pub(crate) append_seconds: Histogram,
    pub(crate) idempotent_hits: IntCounter,
    pub(crate) idempotent_conflicts: IntCounter,
    pub(crate) upstream_messages: IntCounterVec,
    dead_letters: IntCounterVec,
    pub(crate) dead_letters_unkept: IntCounter,
    revocations: IntCounterVec,
    pub(crate) control_records: IntGauge,
    pub(crate) control_age: Gauge,
    pub(crate) presence_streams: IntGauge,
    pub(crate) presence_records: IntGauge,
    presence_appended: IntCounterVec,
    presence_append_failures: IntCounterVec,
    pub(crate) partitions_assigned: IntGauge,
    pub(crate) partitions_serving: IntGauge,
    pub(crate) partition_stall_max_seconds: Gauge,
    pub(crate) takeovers: IntCounter,
    pub(crate) rebalances: IntCounter,
    pub(crate) tenures_behind: IntGauge,
    pub(crate) streams: IntGauge,
    pub(crate) nodes_reached: IntGauge,
    direct_requests: IntCounterVec,
    direct_seconds: Histogram,
    direct_users: IntCounterVec,
    pub(crate) disconnects: IntCounter,
    pub(crate) lost: IntCounter,
    pub(crate) lag_sum: IntGauge,
    pub(crate) lag_max: IntGauge,
    pub(crate) lag_seconds: Gauge,
    pub(crate) records_consumed: IntCounter,
    pub(crate) backfilled: IntCounter,
    pub(crate) pushes: IntCounter,
    pub(crate) events_wanted: IntCounter,
    pub(crate) history_rows: IntCounter,
    pub(crate) replays: IntCounter,
    pub(crate) store_errors: IntCounter,
    pub(crate) log_errors: IntCounter,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let on = Families { registry };
        let metrics = Self {
            publish_requests: on.counters(
                "tidegate_publish_requests_total",
                "Publish calls and batch items by door and outcome (ok or an error kind)",
                &["api", "code"],
            )?,
            publish_seconds: on.histograms(
                "tidegate_publish_duration_seconds",
                "Time from a publish call to its answer",
                &["api"],
            )?,
            batch_items: on.histogram("tidegate_publish_batch_items", "Items of a batch call", &ITEMS)?,
            append_seconds: on.histogram(
                "tidegate_publish_append_duration_seconds",
                "Time from handing a record to the log to its answer",
                &SECONDS,
            )?,
            idempotent_hits: on
                .counter("tidegate_publish_duplicates_total", "Publishes answered with an earlier record")?,
            idempotent_conflicts: on.counter(
                "tidegate_publish_conflicts_total",
                "Publishes whose key had been used with another body",
            )?,
            upstream_messages: on.counters(
                "tidegate_router_upstream_messages_total",
                "Client messages handed to the log, by outcome",
                &["code"],
            )?,
            dead_letters: on.counters(
                "tidegate_router_dead_letters_total",
                "Records that could not be read",
                &["reason"],
            )?,
            dead_letters_unkept: on.counter(
                "tidegate_router_dead_letters_unkept_total",
                "Records that could not be read, and not be copied to the topic of dead letters either",
            )?,
            revocations: on.counters(
                "tidegate_router_revocations_total",
                "Revocations handed to the log, by outcome",
                &["code"],
            )?,
            control_records: on.gauge(
                "tidegate_router_control_records",
                "Control records that have not expired, as this router has read them",
            )?,
            control_age: on.gauge_of_seconds(
                "tidegate_router_control_age_seconds",
                "Since this router asked for the end of the control topic that it has read up to; NaN before",
            )?,
            presence_streams: on.gauge(
                "tidegate_presence_streams",
                "Registry members whose transitions this router appends: all of them at one router, none at the others",
            )?,
            presence_records: on.gauge(
                "tidegate_presence_records",
                "Offsets between the ends of the topic presence when it was last read from its start; compaction leaves fewer \
                 records",
            )?,
            presence_appended: on.counters(
                "tidegate_presence_appended_total",
                "Transitions that the log has, by what became of a user or channel",
                &["state"],
            )?,
            presence_append_failures: on.counters(
                "tidegate_presence_append_failures_total",
                "Transitions that the log did not take; the member gives them out again",
                &["kind"],
            )?,
            partitions_assigned: on
                .gauge("tidegate_router_partitions_assigned", "Partitions that the log assigned to us")?,
            partitions_serving: on
                .gauge("tidegate_router_partitions_serving", "Partitions with a tenure of ours")?,
            partition_stall_max_seconds: on.gauge_of_seconds(
                "tidegate_router_partition_stall_max_seconds",
                "Longest time since a partition task was last seen alive",
            )?,
            takeovers: on.counter("tidegate_router_takeovers_total", "Tenures begun")?,
            rebalances: on.counter("tidegate_router_rebalances_total", "Partitions assigned or revoked")?,
            tenures_behind: on
                .gauge("tidegate_router_tenures_behind", "Tenures whose node reads too slowly just now")?,
            streams: on.gauge("tidegate_router_streams", "Nodes attached")?,
            nodes_reached: on.gauge(
                "tidegate_router_nodes_reached",
                "Nodes that this router can ask something now (Reach streams)",
            )?,
            direct_requests: on.counters(
                "tidegate_direct_requests_total",
                "Direct messages by outcome (ok or an error kind)",
                &["code"],
            )?,
            direct_seconds: on.histogram(
                "tidegate_direct_duration_seconds",
                "Time from a direct message to the answers of all nodes",
                &SECONDS,
            )?,
            direct_users: on.counters(
                "tidegate_direct_users_total",
                "Users of direct messages, by whether a connection took the message",
                &["reached"],
            )?,
            disconnects: on.counter(
                "tidegate_router_disconnects_total",
                "Connections that nodes closed because a backend asked for it",
            )?,
            lost: on.counter("tidegate_router_lost_total", "Lost frames sent")?,
            lag_sum: on.gauge(
                "tidegate_router_lag_records",
                "Records between H and the high watermark, all partitions",
            )?,
            lag_max: on.gauge(
                "tidegate_router_lag_records_max",
                "Records between H and the high watermark, the worst partition",
            )?,
            lag_seconds: on.gauge_of_seconds(
                "tidegate_router_lag_seconds_max",
                "Age of the last record consumed while others wait, the worst partition",
            )?,
            backfilled: on.counter(
                "tidegate_router_backfill_chunks_total",
                "Chunks by which the floor of a history went down",
            )?,
            records_consumed: on.counter("tidegate_router_records_consumed_total", "Records consumed")?,
            pushes: on.counter("tidegate_router_pushes_total", "Live events sent to nodes")?,
            events_wanted: on.counter(
                "tidegate_router_events_wanted_total",
                "Live events sent to nodes, each event once a node: pushes over this is the push amplification",
            )?,
            history_rows: on.counter("tidegate_router_history_rows_total", "Past events sent for Wants")?,
            replays: on
                .counter("tidegate_router_replay_reads_total", "Reads of the log for tenures behind the ring")?,
            store_errors: on
                .counter("tidegate_router_store_errors_total", "Calls that the history store refused")?,
            log_errors: on.counter("tidegate_router_log_errors_total", "Reads and takeovers that the log refused")?,
        };
        for reason in DeadReason::ALL {
            metrics.dead_letters.with_label_values(&[reason.as_str()]);
        }
        metrics.direct_users(0, 0);
        for api in Api::ALL {
            metrics.publish_requests.with_label_values(&[api.as_str(), "ok"]);
        }
        Ok(metrics)
    }

    pub(crate) fn published(&self, api: Api, outcome: Result<(), ErrorKind>) {
        let code = outcome.err().map_or("ok", ErrorKind::as_str);
        self.publish_requests.with_label_values(&[api.as_str(), code]).inc();
    }

    pub(crate) fn answered(&self, api: Api, elapsed: std::time::Duration) {
        self.publish_seconds.with_label_values(&[api.as_str()]).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn direct(&self, code: Option<ErrorKind>, elapsed: std::time::Duration) {
        self.direct_requests.with_label_values(&[code.map_or("ok", ErrorKind::as_str)]).inc();
        self.direct_seconds.observe(elapsed.as_secs_f64());
    }

    pub(crate) fn direct_users(&self, reached: usize, missed: usize) {
        self.direct_users.with_label_values(&["yes"]).inc_by(reached as u64);
        self.direct_users.with_label_values(&["no"]).inc_by(missed as u64);
    }

    pub(crate) fn upstream(&self, outcome: Result<(), ErrorKind>) {
        self.upstream_messages.with_label_values(&[outcome.err().map_or("ok", ErrorKind::as_str)]).inc();
    }

    pub(crate) fn revoked(&self, outcome: Result<(), ErrorKind>) {
        self.revocations.with_label_values(&[outcome.err().map_or("ok", ErrorKind::as_str)]).inc();
    }

    /// What the log said to a transition.
    pub(crate) fn presence_appended(&self, state: &'static str, outcome: Result<(), &AppendError>) {
        let kind = match outcome {
            Ok(()) => return self.presence_appended.with_label_values(&[state]).inc(),
            Err(AppendError::Unavailable { .. }) => "unavailable",
            Err(AppendError::Busy) => "busy",
            Err(AppendError::Full { .. }) => "full",
            Err(AppendError::Indeterminate { .. }) => "indeterminate",
        };
        self.presence_append_failures.with_label_values(&[kind]).inc();
    }

    pub(crate) fn dead_letter(&self, reason: DeadReason) {
        self.dead_letters.with_label_values(&[reason.as_str()]).inc();
    }
}

struct Families<'a> {
    registry: &'a Registry,
}

impl Families<'_> {
    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        let metric = IntCounter::new(name, help)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        let metric = IntGauge::new(name, help)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge_of_seconds(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        let metric = Gauge::new(name, help)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let metric = HistogramVec::new(opts, labels)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}
