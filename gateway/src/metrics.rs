//! What a gateway counts. Label sets are closed: never a user, a channel, an address or a path.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

/// The metric families of a gateway, registered once.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) connections: IntGaugeVec,
    pub(crate) opened: IntCounterVec,
    pub(crate) closed: IntCounterVec,
    pub(crate) refused: IntCounterVec,
    pub(crate) subscriptions: IntCounterVec,
    pub(crate) deliveries: IntCounterVec,
    pub(crate) bytes_out: IntCounter,
    pub(crate) outbox_bytes: IntGauge,
    pub(crate) frames_invalid: IntCounterVec,
    pub(crate) messages: IntCounterVec,
    pub(crate) delivery_latency: Histogram,
    pub(crate) accept_errors: IntCounter,
    pub(crate) drain_remaining: IntGauge,
    pub(crate) streams: IntGauge,
    pub(crate) partitions_unserved: IntGauge,
    pub(crate) partitions_stale: IntGauge,
    pub(crate) redials: IntCounter,
    pub(crate) streams_stuck: IntCounter,
    pub(crate) own_answers: IntCounter,
    pub(crate) upstream_moves: IntCounter,
    pub(crate) revocations: IntCounter,
    pub(crate) control_fresh: IntGauge,
    pub(crate) reach_streams: IntGauge,
    pub(crate) subjects: IntGauge,
    pub(crate) asked: IntCounterVec,
    pub(crate) slow_dropped: IntCounterVec,
    pub(crate) accept_waits: IntCounter,
    pub(crate) overload_rung: IntGaugeVec,
    pub(crate) memory_bytes: IntGauge,
    pub(crate) memory_limit_bytes: IntGauge,
}

impl Metrics {
    /// Registers every family.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let latency_buckets = exponential_buckets(0.000_5, 2.0, 16)?;
        let metrics = Self {
            connections: gauges("connections", "Open client connections.", &["transport"])?,
            opened: counters(
                "connections_opened_total",
                "Client connections and polls begun.",
                &["transport"],
            )?,
            closed: counters(
                "connections_closed_total",
                "Client connections and polls ended, by reason.",
                &["transport", "reason"],
            )?,
            refused: counters("refused_total", "Requests refused, by error kind.", &["kind"])?,
            subscriptions: counters(
                "subscriptions_total",
                "Channels that connections began to follow, by outcome.",
                &["outcome"],
            )?,
            deliveries: counters(
                "deliveries_total",
                "Events written or queued for writing to client sockets.",
                &["transport"],
            )?,
            bytes_out: IntCounter::new(
                "tidegate_gateway_bytes_out_total",
                "Bytes written to client sockets.",
            )?,
            outbox_bytes: IntGauge::new(
                "tidegate_gateway_outbox_bytes",
                "Bytes that wait for slow client sockets.",
            )?,
            frames_invalid: counters(
                "frames_invalid_total",
                "WebSocket frames that broke the protocol, by rule.",
                &["rule"],
            )?,
            messages: counters("messages_total", "Messages from clients, by outcome.", &["outcome"])?,
            delivery_latency: Histogram::with_opts(
                HistogramOpts::new(
                    "tidegate_gateway_delivery_latency_seconds",
                    "Time from the log's append to the first socket write, per event and shard.",
                )
                .buckets(latency_buckets),
            )?,
            accept_errors: IntCounter::new(
                "tidegate_gateway_accept_errors_total",
                "Failed accepts, for instance for want of file descriptors.",
            )?,
            drain_remaining: IntGauge::new(
                "tidegate_gateway_drain_remaining_connections",
                "Connections that a drain has still to close.",
            )?,
            streams: IntGauge::new(
                "tidegate_gateway_deliver_streams",
                "Deliver streams to routers that are open.",
            )?,
            partitions_unserved: IntGauge::new(
                "tidegate_gateway_partitions_unserved",
                "Partitions in which this node wants something and no owner serves it.",
            )?,
            partitions_stale: IntGauge::new(
                "tidegate_gateway_partitions_stale",
                "Partitions in which this node wants something and whose owner read the log over 3 s ago.",
            )?,
            redials: IntCounter::new(
                "tidegate_gateway_redials_total",
                "Rounds of dialling every router because a partition was unserved or stale.",
            )?,
            streams_stuck: IntCounter::new(
                "tidegate_gateway_deliver_streams_stuck_total",
                "Deliver streams closed because the router took no frames.",
            )?,
            own_answers: IntCounter::new(
                "tidegate_gateway_own_answers_total",
                "Subscriptions that this node answered from its recent events, without the owner.",
            )?,
            upstream_moves: IntCounter::new(
                "tidegate_gateway_upstream_moves_total",
                "Times that unacknowledged messages of a partition went to another try or router.",
            )?,
            revocations: IntCounter::new(
                "tidegate_gateway_revocations_total",
                "Revocations that this node has heard of.",
            )?,
            control_fresh: IntGauge::new(
                "tidegate_gateway_control_fresh",
                "1 while a router vouches for what is revoked; at 0 deliveries are held.",
            )?,
            reach_streams: IntGauge::new(
                "tidegate_gateway_reach_streams",
                "Reach streams to routers that are open: without one this node's users cannot be asked for.",
            )?,
            subjects: IntGauge::new(
                "tidegate_gateway_subjects",
                "Users here, and channels of which it is announced who follows them.",
            )?,
            asked: counters("asked_total", "Questions of routers, by kind.", &["kind"])?,
            slow_dropped: counters(
                "slow_dropped_total",
                "Events left out for clients that read too slowly, by policy; each client was told of the gap.",
                &["policy"],
            )?,
            accept_waits: IntCounter::new(
                "tidegate_gateway_accept_waits_total",
                "Times that accepting paused for limits.accept_rate, whether or not a socket waited.",
            )?,
            overload_rung: gauges(
                "overload_rung",
                "1 while this rung of the overload ladder is in force.",
                &["rung"],
            )?,
            memory_bytes: IntGauge::new(
                "tidegate_gateway_memory_bytes",
                "Memory in use, as the overload ladder sees it; 0 without a limit.",
            )?,
            memory_limit_bytes: IntGauge::new(
                "tidegate_gateway_memory_limit_bytes",
                "The memory limit that the overload ladder is measured against; 0 without one.",
            )?,
        };
        let Self {
            connections,
            opened,
            closed,
            refused,
            subscriptions,
            deliveries,
            bytes_out,
            outbox_bytes,
            frames_invalid,
            messages,
            delivery_latency,
            accept_errors,
            drain_remaining,
            streams,
            partitions_unserved,
            partitions_stale,
            redials,
            streams_stuck,
            own_answers,
            upstream_moves,
            revocations,
            control_fresh,
            reach_streams,
            subjects,
            asked,
            slow_dropped,
            accept_waits,
            overload_rung,
            memory_bytes,
            memory_limit_bytes,
        } = &metrics;
        for gauge in [connections, overload_rung] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for counter in [
            opened,
            closed,
            refused,
            subscriptions,
            deliveries,
            frames_invalid,
            messages,
            asked,
            slow_dropped,
        ] {
            registry.register(Box::new(counter.clone()))?;
        }
        for counter in [
            bytes_out,
            accept_errors,
            accept_waits,
            redials,
            streams_stuck,
            own_answers,
            upstream_moves,
            revocations,
        ] {
            registry.register(Box::new(counter.clone()))?;
        }
        for gauge in [
            outbox_bytes,
            drain_remaining,
            streams,
            reach_streams,
            subjects,
            partitions_unserved,
            partitions_stale,
            control_fresh,
            memory_bytes,
            memory_limit_bytes,
        ] {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(delivery_latency.clone()))?;
        Ok(metrics)
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(format!("tidegate_gateway_{name}"), help), labels)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(format!("tidegate_gateway_{name}"), help), labels)
}
