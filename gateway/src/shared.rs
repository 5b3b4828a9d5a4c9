//! What all shards of a gateway share: settings, counters, the way to the routers. Nothing here is locked to deliver.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tidegate_vocab::{Channel, ConnectionId, Incarnation, PartitionCounts, Problem};

use crate::DemoPublish;
use crate::admission::Sockets;
use crate::auth::Authenticator;
use crate::clock::Clock;
use crate::config::GatewayConfig;
use crate::control::Control;
use crate::metrics::Metrics;
use crate::overload::{Ladder, Rung};
use crate::presence::Presences;
use crate::tls::Tls;
use crate::upstream_route::UpstreamRoute;

/// See the module.
pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) counts: PartitionCounts,
    pub(crate) metrics: Metrics,
    pub(crate) upstream: UpstreamRoute,
    pub(crate) auth: Authenticator,
    /// What handshakes need, if clients connect by TLS.
    pub(crate) tls: Option<Tls>,
    pub(crate) demo_publish: Option<DemoPublish>,
    pub(crate) incarnation: Incarnation,
    pub(crate) clock: Clock,
    pub(crate) everyone: Channel,
    /// Sockets beyond which requests are refused: the configured limit, or what the file limit leaves.
    pub(crate) sockets_limit: usize,
    /// A drain has begun: not ready any more.
    pub(crate) is_draining: AtomicBool,
    /// The drain's wait is over: no new connection.
    pub(crate) is_refusing: AtomicBool,
    pub(crate) control: Arc<Control>,
    pub(crate) presences: Arc<Presences>,
    /// Every partition has been named by some owner.
    pub(crate) owners_heard: Arc<AtomicBool>,
    pub(crate) sockets: Arc<Sockets>,
    /// What is given up for want of memory.
    pub(crate) ladder: Ladder,
    sequence: AtomicU64,
}

/// What a [`Shared`] is made of.
pub(crate) struct Parts {
    pub(crate) config: GatewayConfig,
    pub(crate) counts: PartitionCounts,
    pub(crate) metrics: Metrics,
    pub(crate) upstream: UpstreamRoute,
    pub(crate) tls: Option<Tls>,
    pub(crate) demo_publish: Option<DemoPublish>,
    pub(crate) incarnation: Incarnation,
    pub(crate) sockets_limit: usize,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        let clock = Clock::start();
        let sockets = Arc::new(Sockets::new(parts.config.admission.address_limit));
        Self {
            presences: Arc::new(Presences::new(parts.config.presence.clone(), clock)),
            auth: Authenticator::new(&parts.config.auth),
            config: parts.config,
            counts: parts.counts,
            metrics: parts.metrics,
            upstream: parts.upstream,
            tls: parts.tls,
            demo_publish: parts.demo_publish,
            incarnation: parts.incarnation,
            clock,
            everyone: Channel::everyone(),
            sockets_limit: parts.sockets_limit,
            is_draining: AtomicBool::new(false),
            is_refusing: AtomicBool::new(false),
            control: Arc::default(),
            owners_heard: Arc::default(),
            sockets,
            ladder: Ladder::default(),
            sequence: AtomicU64::new(1),
        }
    }

    /// Bytes that may wait for one slow socket, as things are.
    pub(crate) fn outbox_bytes_limit(&self) -> usize {
        let limit = self.config.outbox_bytes_limit;
        if self.ladder.is_at(Rung::ShortOutboxes) { limit / 4 } else { limit }
    }

    /// Client sockets that are open now.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.count()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    pub(crate) fn is_refusing(&self) -> bool {
        self.is_refusing.load(Ordering::Relaxed)
    }

    /// The next connection's number.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn connection_id(&self, sequence: u64) -> ConnectionId {
        ConnectionId::new(self.incarnation, sequence)
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, problem: &Problem) {
        self.metrics.refused.with_label_values(&[problem.kind.as_str()]).inc();
    }
}
