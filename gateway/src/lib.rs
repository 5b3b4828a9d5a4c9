//! The gateway: holds client connections, encodes an event once, and fans it out locally.
//!
//! Owns the public port. One thread per shard; a node task ties the shards to the routers. Never speaks Kafka and never
//! blocks on it: all it knows of a router is [`tidegate_link::RouterLink`]. Its socket table is the truth about who is
//! connected.

mod admission;
mod auth;
mod clock;
mod config;
mod control;
mod http;
mod listen;
mod message;
mod metrics;
mod node_task;
mod origin;
mod overload;
mod presence;
mod reach;
mod request;
mod shard;
mod shared;
mod socket;
mod tls;
mod upstream_route;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tidegate_link::Routers;
use tidegate_registry::client::{AnnounceHandle, AnnounceTask};
use tidegate_registry::{AnnounceMetrics, RingError};
use tidegate_vocab::{Incarnation, PartitionCounts, Topic, limits};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

pub use config::{
    AdmissionConfig, AuthConfig, DrainConfig, GatewayConfig, MemorySource, PresenceConfig, Secret,
    SlowConfig, SlowPolicy,
};
#[doc(hidden)]
pub use shard::measure;
pub use tls::{CertificateError, TlsError, TlsFiles};

use control::asking::Asking;
use node_task::NodeTask;
use reach::Reach;
use shard::Shard;
use shared::Shared;
use tls::Tls;
use upstream_route::UpstreamRoute;

// As in the program: the tests count what is allocated.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Publishes what the demonstration page asks for: the body of `POST /v1/publish` in, status, content type and body out.
pub type DemoPublish =
    Arc<dyn Fn(Bytes) -> Pin<Box<dyn Future<Output = (u16, &'static str, Bytes)> + Send>> + Send + Sync>;

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The public address cannot be had.
    #[error(
        "cannot listen on {address}: {source}; choose another address with --public, or stop what uses it"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// A shard's thread or runtime cannot be had.
    #[error("cannot start a shard: {0}")]
    Shard(#[source] io::Error),
    /// A metric is registered already.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// TLS cannot be had.
    #[error("tls: {0}")]
    Tls(#[from] tls::TlsError),
    /// The registry's members make no ring.
    #[error("registry.members: {0}")]
    Ring(#[from] RingError),
}

/// What a gateway may hold, as it was at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Files that the process may open.
    pub files: u64,
    /// Connections beyond which new ones are refused.
    pub connections: usize,
    /// User memory that this many idle connections take, in bytes, at 1 KiB each, or 10 KiB with TLS.
    pub idle_memory_bytes: u64,
    /// The memory limit that the overload ladder is measured against, in bytes; without one there is no ladder.
    pub memory_limit_bytes: Option<u64>,
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    address: SocketAddr,
    budget: Budget,
    accepting: watch::Sender<bool>,
    draining: watch::Sender<Option<Duration>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    node: tokio::task::JoinHandle<()>,
    control: tokio::task::JoinHandle<()>,
    /// Answers routers' questions.
    reach: tokio::task::JoinHandle<()>,
    /// Tells the announcer who is here.
    presence: tokio::task::JoinHandle<()>,
    announcer: Option<(AnnounceHandle, tokio::task::JoinHandle<()>)>,
    /// Looks at the memory.
    overload: tokio::task::JoinHandle<()>,
    /// Looks at the certificate's files.
    reloading: Option<tokio::task::JoinHandle<()>>,
    drain_asked: watch::Receiver<bool>,
}

/// Time that connections have beyond the drain's window to end their side.
const DRAIN_SLACK: Duration = Duration::from_secs(3);

impl Gateway {
    /// Binds the public port, starts the shards and stays attached to the routers that discovery names; there may be none
    /// yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the address or a thread cannot be had.
    pub fn start(
        config: GatewayConfig,
        routers: Routers,
        counts: PartitionCounts,
        registry: &prometheus::Registry,
        demo_publish: Option<DemoPublish>,
    ) -> Result<Self, StartError> {
        let budget = budget(&config);
        let incarnation = Incarnation::random();
        let address = config.public;
        let announcer = announcer(&config, incarnation, registry)?;
        let listeners =
            listen::bind(address, config.shards).map_err(|source| StartError::Listen { address, source })?;
        let address = listeners.first().and_then(|listener| listener.local_addr().ok()).unwrap_or(address);
        let metrics = metrics::Metrics::register(registry)?;
        let tls = config.tls.as_ref().map(|files| Tls::start(files, registry)).transpose()?;
        let (tls, reloading) = tls.unzip();
        let upstream =
            UpstreamRoute::start(routers.clone(), counts.of(Topic::Upstream), metrics.upstream_moves.clone());
        let shared = Arc::new(Shared::new(shared::Parts {
            metrics,
            config,
            counts,
            upstream,
            tls,
            demo_publish,
            incarnation,
            sockets_limit: budget.connections,
        }));
        let (accepting, is_accepting) = watch::channel(true);
        let (draining, is_draining) = watch::channel(None);
        let (to_node, commands) = mpsc::channel(limits::NODE_QUEUE_LIMIT);
        let (mut shards, mut shards_asked, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for (number, listener) in listeners.into_iter().enumerate() {
            let (to_shard, inbox) = mpsc::channel(limits::SHARD_QUEUE_LIMIT);
            let (ask_shard, asks) = mpsc::channel(limits::REACH_QUEUE_LIMIT);
            let seed = ShardSeed {
                number: number as u16,
                shared: Arc::clone(&shared),
                to_node: to_node.clone(),
                inbox,
                asks,
                listener,
                accepting: is_accepting.clone(),
                draining: is_draining.clone(),
            };
            let thread =
                std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || seed.run());
            threads.push(thread.map_err(StartError::Shard)?);
            shards.push(to_shard);
            shards_asked.push(ask_shard);
        }
        let task = NodeTask::new(
            counts,
            shards,
            shared.clock,
            shared.metrics.clone(),
            Arc::clone(&shared.owners_heard),
        );
        let node = tokio::spawn(task.run(routers.clone(), incarnation, commands));
        let asking =
            Asking::new(Arc::clone(&shared.control), routers.clone(), shared.clock, shared.metrics.clone());
        let control = tokio::spawn(asking.run());
        let handle = announcer.as_ref().map(|(handle, _)| handle.clone());
        let presence = tokio::spawn(Arc::clone(&shared.presences).announce(handle.clone()));
        let (drain_ask, drain_asked) = watch::channel(false);
        let reach = Reach::new(Arc::clone(&shared), shards_asked, handle, drain_ask);
        let reach = tokio::spawn(reach.run(routers));
        let overload = tokio::spawn(overload::watch(Arc::clone(&shared)));
        let reloading = reloading.map(|task| tokio::spawn(task.run()));
        Ok(Self {
            shared,
            address,
            budget,
            accepting,
            draining,
            threads,
            node,
            control,
            reach,
            presence,
            announcer,
            overload,
            reloading,
            drain_asked,
        })
    }

    /// The address that clients connect to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What it may hold.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// Client sockets that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.sockets()
    }

    /// Completes once an operator has asked, through a router, for this node to be drained; never if nobody does.
    pub fn drain_asked(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut asked = self.drain_asked.clone();
        async move {
            if asked.wait_for(|asked| *asked).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Whether load balancers should send clients here.
    ///
    /// # Errors
    /// Says why not.
    pub fn ready(&self) -> Result<(), String> {
        if self.shared.is_draining() {
            return Err("gateway is draining".to_owned());
        }
        if self.has_failed() {
            return Err("a core task of the gateway has ended".to_owned());
        }
        if !self.shared.control.is_complete() {
            return Err("gateway has not heard from a router what is revoked".to_owned());
        }
        if self.shared.metrics.streams.get() == 0 {
            return Err("gateway is attached to no router".to_owned());
        }
        // Once is enough: a partition that moves makes its subscriptions wait, here as on every other node.
        if !self.shared.owners_heard.load(Ordering::Relaxed) {
            return Err("gateway has not heard of an owner for every partition".to_owned());
        }
        Ok(())
    }

    /// True once a core task has ended although nobody asked it to: the process should end too.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        let announcing = self.announcer.iter().map(|(_, task)| task);
        [&self.control, &self.node, &self.reach, &self.presence, &self.overload]
            .into_iter()
            .chain(announcing)
            .chain(&self.reloading)
            .any(|it| it.is_finished())
            || self.threads.iter().any(std::thread::JoinHandle::is_finished)
    }

    /// Not ready, wait for load balancers, stop accepting, close all connections evenly over the window. Ends when all
    /// are closed, or a little after the window.
    pub async fn drain(&self) {
        let pace = self.shared.config.drain.clone();
        self.shared.is_draining.store(true, Ordering::Relaxed);
        tokio::time::sleep(pace.wait).await;
        self.shared.is_refusing.store(true, Ordering::Relaxed);
        self.accepting.send_replace(false);
        self.draining.send_replace(Some(pace.window));
        let deadline = tokio::time::Instant::now() + pace.window + DRAIN_SLACK;
        while self.connections() > 0 && tokio::time::Instant::now() < deadline {
            self.shared.metrics.drain_remaining.set(self.connections() as i64);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.shared.metrics.drain_remaining.set(self.connections() as i64);
    }

    /// Ends the shards and the node task. Connections that are still open are cut.
    pub async fn stop(self) {
        let Self {
            threads, node, control, accepting, reach, presence, announcer, overload, reloading, ..
        } = self;
        accepting.send_replace(false);
        // No router asks any more, or believes the word of who says goodbye.
        reach.abort();
        let _ = reach.await;
        presence.abort();
        if let Some((announcer, _)) = announcer {
            announcer.goodbye().await;
        }
        for task in [overload, control, node].into_iter().chain(reloading) {
            task.abort();
            let _ = task.await;
        }
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        let _ = joined.await;
    }
}

/// The task that tells the registry who is here, and the one that hands it newer member lists.
fn announcer(
    config: &GatewayConfig,
    node: Incarnation,
    registry: &prometheus::Registry,
) -> Result<Option<(AnnounceHandle, tokio::task::JoinHandle<()>)>, StartError> {
    let Some(members) = config.registry.clone() else { return Ok(None) };
    let mut lists = members.lists;
    let list = lists.borrow_and_update().clone();
    let (handle, task) = AnnounceTask::spawn(
        node,
        config.name.clone(),
        list,
        members.key,
        AnnounceMetrics::register(registry)?,
    )?;
    let following = handle.clone();
    tokio::spawn(tidegate_registry::follow(lists, move |list| {
        let handle = following.clone();
        async move { handle.set_members(list).await }
    }));
    Ok(Some((handle, task)))
}

/// What the file limit leaves for connections, and what they take.
fn budget(config: &GatewayConfig) -> Budget {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = config.connections_limit.min(files.saturating_sub(limits::RESERVED_FILES) as usize);
    let each = if config.tls.is_some() { 10 * 1024 } else { 1024 };
    let memory_limit_bytes = overload::memory_limit(&config.admission.memory);
    Budget { files, connections, idle_memory_bytes: connections as u64 * each, memory_limit_bytes }
}

/// What a shard's thread starts with.
struct ShardSeed {
    number: u16,
    shared: Arc<Shared>,
    to_node: mpsc::Sender<Vec<shard::item::NodeCommand>>,
    inbox: mpsc::Receiver<Vec<shard::item::ShardItem>>,
    asks: mpsc::Receiver<shard::asked::ShardAsk>,
    listener: std::net::TcpListener,
    accepting: watch::Receiver<bool>,
    draining: watch::Receiver<Option<Duration>>,
}

impl ShardSeed {
    fn run(self) {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "a shard has no runtime"),
        };
        runtime.block_on(async move {
            let listener = match tokio::net::TcpListener::from_std(self.listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!(%error, "a shard has no listener"),
            };
            let shard =
                Shard::new(self.number, self.shared, self.to_node, self.accepting.clone(), self.draining);
            tokio::task::spawn_local(listen::accept(std::rc::Rc::clone(&shard), listener, self.accepting));
            // A task like the others: what wakes the future that is blocked on goes by way of an eventfd each time.
            let running = tokio::task::spawn_local(shard.run(self.inbox, self.asks));
            if let Err(error) = running.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        });
    }
}
