//! What both ends count. Label sets are closed: never an address or an incarnation.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use tidegate_proto::frames::FrameError;

use crate::hello::HelloError;

/// Which end of a stream we are. Closed: it is a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// We dialled.
    Node,
    /// We serve.
    Router,
}

impl Side {
    const ALL: [Self; 2] = [Self::Node, Self::Router];

    fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Router => "router",
        }
    }
}

/// The metric families of both ends, registered once a process.
#[derive(Debug, Clone)]
pub struct Metrics {
    frames: IntCounterVec,
    bytes: IntCounterVec,
    streams: IntGaugeVec,
    refused_hellos: IntCounterVec,
    bad_frames: IntCounterVec,
    pub(crate) lookup_failures: IntCounter,
    pub(crate) routers: IntGauge,
}

impl Metrics {
    /// Registers every family.
    ///
    /// # Errors
    /// When one of them is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(format!("tidegate_deliver_{name}"), help), labels)
        };
        let metrics = Self {
            frames: counters(
                "frames_total",
                "Frames of Deliver streams, by our side of the stream and direction.",
                &["side", "direction"],
            )?,
            bytes: counters(
                "bytes_total",
                "Bytes of the messages that held these frames.",
                &["side", "direction"],
            )?,
            streams: IntGaugeVec::new(
                Opts::new("tidegate_deliver_streams", "Streams that are open, by our side and call."),
                &["side", "call"],
            )?,
            refused_hellos: counters(
                "refused_hellos_total",
                "Peers whose first frame we refused, by reason.",
                &["side", "reason"],
            )?,
            bad_frames: counters(
                "bad_frames_total",
                "Messages from peers that broke the protocol; their stream was closed.",
                &["side"],
            )?,
            lookup_failures: IntCounter::new(
                "tidegate_deliver_lookup_failures_total",
                "Lookups of a router name that found nothing; the last known addresses stay.",
            )?,
            routers: IntGauge::new("tidegate_deliver_routers", "Router addresses that discovery names now.")?,
        };
        for family in [&metrics.frames, &metrics.bytes, &metrics.refused_hellos, &metrics.bad_frames] {
            registry.register(Box::new(family.clone()))?;
        }
        registry.register(Box::new(metrics.streams.clone()))?;
        registry.register(Box::new(metrics.lookup_failures.clone()))?;
        registry.register(Box::new(metrics.routers.clone()))?;
        for side in Side::ALL.map(Side::as_str) {
            metrics.bad_frames.with_label_values(&[side]);
            for reason in HelloError::REASONS {
                metrics.refused_hellos.with_label_values(&[side, reason]);
            }
        }
        Ok(metrics)
    }

    pub(crate) fn flow(&self, side: Side) -> Flow {
        let labelled =
            |family: &IntCounterVec, direction| family.with_label_values(&[side.as_str(), direction]);
        Flow {
            frames_sent: labelled(&self.frames, "sent"),
            bytes_sent: labelled(&self.bytes, "sent"),
            frames_received: labelled(&self.frames, "received"),
            bytes_received: labelled(&self.bytes, "received"),
        }
    }

    /// Counts a stream for as long as the guard lives.
    pub(crate) fn stream(&self, side: Side, call: &'static str) -> OpenStream {
        let gauge = self.streams.with_label_values(&[side.as_str(), call]);
        gauge.inc();
        OpenStream(gauge)
    }

    pub(crate) fn refused_hello(&self, side: Side, error: HelloError) {
        tracing::warn!(side = side.as_str(), %error, "deliver stream refused");
        self.refused_hellos.with_label_values(&[side.as_str(), error.reason()]).inc();
    }

    pub(crate) fn bad_frame(&self, side: Side, error: FrameError) {
        tracing::warn!(side = side.as_str(), %error, "peer broke the protocol; its stream is closed");
        self.bad_frames.with_label_values(&[side.as_str()]).inc();
    }
}

/// The counters of one side, resolved.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    frames_sent: IntCounter,
    bytes_sent: IntCounter,
    frames_received: IntCounter,
    bytes_received: IntCounter,
}

impl Flow {
    pub(crate) fn sent(&self, frames: usize, bytes: usize) {
        self.frames_sent.inc_by(frames as u64);
        self.bytes_sent.inc_by(bytes as u64);
    }

    pub(crate) fn received(&self, frames: usize, bytes: usize) {
        self.frames_received.inc_by(frames as u64);
        self.bytes_received.inc_by(bytes as u64);
    }
}

/// See [`Metrics::stream`].
#[derive(Debug)]
pub(crate) struct OpenStream(IntGauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}
