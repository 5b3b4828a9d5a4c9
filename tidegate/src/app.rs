//! A whole Tidegate in one process: the store, the router, the gateway and the ports around them.
//!
//! Owns the order in which things start and end. `build` starts everything, `run` watches over it until asked to shut
//! down and then ends everything in the reverse order, phase by phase. Does not know what an event is.

mod demo;
mod health;
mod history;
mod shutdown;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use serde::Serialize;
use tidegate_eventlog::embedded::{EmbeddedLog, EmbeddedOptions};
use tidegate_eventlog::{EventLog, store};
use tidegate_gateway::{Budget, Gateway};
use tidegate_history::HistoryStore;
use tidegate_link::RouterLink;
use tidegate_router::{Router, RouterConfig};
use tidegate_vocab::Incarnation;
use tokio::sync::watch;

use crate::admin::{self, AdminParts, AdminServer, Heartbeat};
use crate::config::{Config, LogConfig};
use health::Health;
use shutdown::Shutdown;

/// The "address" of the router in the gateway's own process.
const LOCAL_ROUTER: &str = "local";
/// Between two looks at the roles.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Why a process did not start, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The data directory is no good.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The log in it is no good.
    #[error("{}: {source}", data_dir.display())]
    Log {
        /// Where it is.
        data_dir: PathBuf,
        /// What is wrong.
        source: tidegate_eventlog::embedded::OpenError,
    },
    /// The history in it is no good.
    #[error("{}: {source}", data_dir.display())]
    History {
        /// Where it is.
        data_dir: PathBuf,
        /// What is wrong.
        source: tidegate_history::OpenError,
    },
    /// A port cannot be had.
    #[error("cannot listen on {address}: {source}; choose another address with {flag}, or stop what uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The gateway did not start.
    #[error(transparent)]
    Gateway(#[from] tidegate_gateway::StartError),
    /// Two families have one name: a fault of ours.
    #[error("metrics could not be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The task that opens the store was lost: a fault of ours.
    #[error("store could not be opened: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Why a process ended otherwise than asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something that must never end has ended.
    #[error("a core task of the {role} ended unexpectedly; the log says why")]
    CoreTask {
        /// Whose.
        role: &'static str,
    },
    /// Everything was ended, but not in good order.
    #[error("shutdown phase {phase} did not end in time")]
    Shutdown {
        /// The first phase that did not.
        phase: &'static str,
    },
}

/// Where a process listens: real ports, also where 0 was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// Clients.
    pub public: SocketAddr,
    /// Backends.
    pub api: SocketAddr,
    /// Operators.
    pub admin: SocketAddr,
}

/// See the module.
pub struct App {
    addresses: Addresses,
    health: Health,
    heartbeat: tokio::task::JoinHandle<()>,
    log: Arc<EmbeddedLog>,
    router: Arc<Router>,
    /// What the gateway watches for routers: the one of this process.
    _routers: watch::Sender<BTreeMap<String, Arc<dyn RouterLink>>>,
    gateway: Gateway,
    admin: AdminServer,
    shutdown: Shutdown,
}

impl App {
    /// Opens the data directory and starts everything; the process is ready a little later. Must be called within a
    /// multi-threaded runtime.
    ///
    /// # Errors
    /// Says what is wrong and what to do about it.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let registry = Registry::new();
        admin::register_process_metrics(&registry)?;
        let health = Health::new();
        let heartbeat = Heartbeat::new();
        let parts = AdminParts {
            registry: registry.clone(),
            readiness: health.readiness(heartbeat.clone()),
            heartbeat: heartbeat.clone(),
        };
        let admin = AdminServer::start(config.admin, parts).map_err(|source| BuildError::Listen {
            address: config.admin,
            flag: "--admin",
            source,
        })?;
        let heartbeat = tokio::spawn(heartbeat.run());
        let api = listen(config.api, "--api").await?;
        let api_address = api.local_addr().unwrap_or(config.api);
        let shutdown = Shutdown::new(config.drain(), &registry)?;
        let opening = config.clone();
        let (log, store) = tokio::task::spawn_blocking(move || open(&opening)).await??;
        let counts = log.counts();
        let shared_log: Arc<dyn EventLog> = Arc::clone(&log) as Arc<dyn EventLog>;
        let router = Router::start(router_config(&config), shared_log, store, &registry)?;
        router.serve_api(api);
        let local: Arc<dyn RouterLink> = Arc::clone(&router) as Arc<dyn RouterLink>;
        let (routers, found) = watch::channel(BTreeMap::from([(LOCAL_ROUTER.to_owned(), local)]));
        let demo = config.gateway.demo_page.then(|| demo::publisher(Arc::clone(&router)));
        let gateway = match Gateway::start(config.gateway, found, counts, &registry, demo) {
            Ok(gateway) => gateway,
            Err(error) => {
                // What was started lets go of the data directory before anybody tries again.
                router.shutdown().await;
                tokio::task::spawn_blocking(move || log.close()).await?;
                return Err(error.into());
            }
        };
        let addresses =
            Addresses { public: gateway.local_addr(), api: api_address, admin: admin.local_addr() };
        tracing::info!(public = %addresses.public, api = %addresses.api, admin = %addresses.admin, "started");
        Ok(Self { addresses, health, heartbeat, log, router, _routers: routers, gateway, admin, shutdown })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What the gateway may hold.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.gateway.budget()
    }

    /// Completes once the process is ready for traffic; never if it never is. Needs [`App::run`] to run.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        self.health.ready()
    }

    /// Runs until `shutdown` completes, then ends everything in good order.
    ///
    /// # Errors
    /// When a core task ended, or the shutdown was not in good order.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        tokio::pin!(shutdown);
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        let failed = loop {
            tokio::select! {
                () = &mut shutdown => break None,
                _ = looks.tick() => {
                    if let Some(role) = self.look() {
                        break Some(role);
                    }
                }
            }
        };
        let ended = self.end(failed.is_none()).await;
        match failed {
            Some(role) => Err(RunError::CoreTask { role }),
            None => ended,
        }
    }

    /// Notes what the roles say of themselves; names the one that has failed for good.
    fn look(&self) -> Option<&'static str> {
        if self.gateway.has_failed() {
            return Some("gateway");
        }
        let reasons = [("gateway", self.gateway.ready()), ("router", self.router.ready())];
        let reasons =
            reasons.into_iter().filter_map(|(role, ready)| Some(format!("{role}: {}", ready.err()?)));
        self.health.set(reasons.collect());
        None
    }

    /// The one way in which everything ends. Clients are told when to come back only if the gateway is well.
    async fn end(self, drain: bool) -> Result<(), RunError> {
        let Self { health, heartbeat, log, router, gateway, admin, mut shutdown, .. } = self;
        health.drain();
        if drain {
            let timeout = shutdown.drain_timeout();
            shutdown.phase("drain", timeout, gateway.drain()).await;
        }
        shutdown.phase("gateway", Duration::from_secs(5), gateway.stop()).await;
        shutdown.phase("router", Duration::from_secs(15), router.shutdown()).await;
        let closing = tokio::task::spawn_blocking(move || log.close());
        shutdown.phase("log", Duration::from_secs(12), closing).await;
        heartbeat.abort();
        admin.stop();
        match shutdown.overdue() {
            Some(phase) => Err(RunError::Shutdown { phase }),
            None => Ok(()),
        }
    }
}

/// Opens the log and the history, each a store of its own: the engine holds its journal while it syncs, and history
/// writes, which need no sync, would wait for it. Blocks on the disk.
fn open(config: &Config) -> Result<(Arc<EmbeddedLog>, Arc<HistoryStore>), BuildError> {
    let data_dir = || config.data_dir.clone();
    let database = |name| store::open_database(&config.data_dir.join(name), config.cache_bytes / 2);
    let log = EmbeddedLog::open(database("log")?, log_options(&config.log))
        .map_err(|source| BuildError::Log { data_dir: data_dir(), source })?;
    let store = HistoryStore::open(database("history")?, history::options(&config.history))
        .map_err(|source| BuildError::History { data_dir: data_dir(), source })?;
    Ok((log, Arc::new(store)))
}

fn log_options(config: &LogConfig) -> EmbeddedOptions {
    EmbeddedOptions {
        epoch_salt: config.epoch_salt.clone(),
        retention: config.retention,
        disk_reserve_bytes: config.disk_reserve_bytes,
        ..EmbeddedOptions::new(config.counts)
    }
}

fn router_config(config: &Config) -> RouterConfig {
    let text = |key: &tidegate_gateway::Secret| String::from_utf8_lossy(key.expose()).into_owned();
    RouterConfig {
        api_keys: config.api_keys.iter().map(text).collect(),
        ..RouterConfig::new(Incarnation::random())
    }
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<tokio::net::TcpListener, BuildError> {
    let listener = tokio::net::TcpListener::bind(address).await;
    listener.map_err(|source| BuildError::Listen { address, flag, source })
}
