//! A process: the roles that it has, and the ports around them. `tidegate dev` has all of them.
//!
//! Owns the order in which things start and end: the registry first and last, since the others announce to it. `build` starts everything, `run` watches over it until asked to shut
//! down and then ends everything in the reverse order, phase by phase. Does not know what an event is.

mod demo;
mod health;
mod history;
mod kafka_figures;
mod members;
mod registry_part;
mod router_part;
mod shutdown;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use serde::Serialize;
use tidegate_deliver::discover;
use tidegate_eventlog::store;
use tidegate_gateway::{Budget, Gateway, GatewayConfig};
use tidegate_registry::Key;

use crate::admin::{self, AdminParts, AdminServer, Heartbeat};
use crate::config::{Config, Profile};
use health::Health;
use members::MembersPart;
use registry_part::RegistryPart;
pub(crate) use router_part::kafka_options;
use router_part::{RouterPart, dialer};
use shutdown::Shutdown;

/// Between two looks at the roles of a process that is not ready, and of one that is.
const LOOK_INTERVALS: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(500)];

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
    /// Kafka cannot be used.
    #[error(transparent)]
    Kafka(#[from] tidegate_kafka::OpenError),
    /// The cluster's key cannot stand in a header.
    #[error("cluster.key: {0}")]
    Key(#[from] tidegate_deliver::KeyError),
    /// The list of the registry's members makes no ring, which validation finds before.
    #[error("registry.members: {0}")]
    Ring(#[from] tidegate_registry::RingError),
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
    /// Clients, where there is a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<SocketAddr>,
    /// Backends, where there is a router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<SocketAddr>,
    /// Gateways and routers, where there is a router or a member of the registry of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Operators.
    pub admin: SocketAddr,
}

/// See the module.
pub struct App {
    addresses: Addresses,
    health: Health,
    heartbeat: tokio::task::JoinHandle<()>,
    members: Option<MembersPart>,
    member: Option<RegistryPart>,
    router: Option<RouterPart>,
    gateway: Option<Gateway>,
    admin: AdminServer,
    shutdown: Shutdown,
}

impl App {
    /// Starts everything that the role has; the process is ready a little later. Must be called within a multi-threaded
    /// runtime.
    ///
    /// # Errors
    /// Says what is wrong and what to do about it.
    pub async fn build(mut config: Config) -> Result<Self, BuildError> {
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
        let mut shutdown = Shutdown::new(config.drain(), &registry)?;
        let (members, member) = start_registry(&mut config, &registry).await?;
        let router = match config.role.has_router() {
            true => Some(RouterPart::build(&config, members.as_ref(), &registry).await?),
            false => None,
        };
        let gateway = match config.role.has_gateway() {
            true => match start_gateway(&config, router.as_ref(), members.as_ref(), &registry) {
                Ok(gateway) => Some(gateway),
                Err(error) => {
                    // What was started lets go of the data directory before anybody tries again.
                    if let Some(router) = router {
                        router.end(&mut shutdown).await;
                    }
                    return Err(error);
                }
            },
            false => None,
        };
        let addresses = Addresses {
            public: gateway.as_ref().map(Gateway::local_addr),
            api: router.as_ref().map(|router| router.api),
            listen: match config.role {
                Profile::Registry => member.as_ref().map(|part| part.address),
                _ => router.as_ref().and_then(RouterPart::internal_address),
            },
            admin: admin.local_addr(),
        };
        tracing::info!(?addresses, "started");
        Ok(Self { addresses, health, heartbeat, members, member, router, gateway, admin, shutdown })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What the gateway may hold.
    #[must_use]
    pub fn budget(&self) -> Option<Budget> {
        self.gateway.as_ref().map(Gateway::budget)
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
        let drain_asked = self.gateway.as_ref().map(Gateway::drain_asked);
        let drain_asked = futures::future::OptionFuture::from(drain_asked);
        tokio::pin!(drain_asked);
        let failed = loop {
            let pause = LOOK_INTERVALS[usize::from(self.health.is_ready())];
            tokio::select! {
                () = &mut shutdown => break None,
                Some(()) = &mut drain_asked => break None,
                () = tokio::time::sleep(pause) => {
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
        if self.gateway.as_ref().is_some_and(Gateway::has_failed) {
            return Some("gateway");
        }
        if self.router.as_ref().is_some_and(|part| part.router.has_failed()) {
            return Some("router");
        }
        let has_lost_list = self.members.as_ref().is_some_and(MembersPart::has_failed);
        if has_lost_list || self.member.as_ref().is_some_and(RegistryPart::has_failed) {
            return Some("registry");
        }
        let gateway = self.gateway.as_ref().and_then(|gateway| gateway.ready().err());
        let router = self.router.as_ref().and_then(|part| part.router.ready().err());
        let member = self.member.as_ref().and_then(|part| part.ready().err());
        let reasons = [("gateway", gateway), ("router", router), ("registry", member)].into_iter();
        self.health.set(reasons.filter_map(|(role, reason)| Some(format!("{role}: {}", reason?))).collect());
        None
    }

    /// The one way in which everything ends. Clients are told when to come back only if the gateway is well.
    async fn end(self, drain: bool) -> Result<(), RunError> {
        let Self { health, heartbeat, member, router, gateway, admin, mut shutdown, .. } = self;
        health.drain();
        if let Some(gateway) = gateway {
            if drain {
                let timeout = shutdown.drain_timeout();
                shutdown.phase("drain", timeout, gateway.drain()).await;
            }
            shutdown.phase("gateway", Duration::from_secs(5), gateway.stop()).await;
        }
        if let Some(router) = router {
            router.end(&mut shutdown).await;
        }
        if let Some(member) = member {
            member.end(&mut shutdown).await;
        }
        heartbeat.abort();
        admin.stop();
        match shutdown.overdue() {
            Some(phase) => Err(RunError::Shutdown { phase }),
            None => Ok(()),
        }
    }
}

/// The member list that is followed, and the member of this process, if it is one.
async fn start_registry(
    config: &mut Config,
    registry: &Registry,
) -> Result<(Option<MembersPart>, Option<RegistryPart>), BuildError> {
    let listener = registry_part::bind(config).await?;
    let key = config.cluster.key.as_ref().map(|key| Key::parse(&String::from_utf8_lossy(key.expose())));
    let Some(part) = MembersPart::start(&config.registry, key.transpose()?, registry)? else {
        return Ok((None, None));
    };
    let member = match listener {
        Some(listener) => Some(RegistryPart::start(&config.registry, part.members(), listener, registry)?),
        None => None,
    };
    Ok((Some(part), member))
}

/// The gateway, attached to the router of this process or to those of the cluster.
fn start_gateway(
    config: &Config,
    router: Option<&RouterPart>,
    members: Option<&MembersPart>,
    registry: &Registry,
) -> Result<Gateway, BuildError> {
    let (routers, demo) = match router {
        Some(part) => {
            let demo = config.gateway.demo_page.then(|| demo::publisher(Arc::clone(&part.router)));
            (part.as_only_router(), demo)
        }
        None => {
            let dialer = dialer(&config.cluster, tidegate_deliver::Metrics::register(registry)?)?;
            (discover(config.cluster.routers.clone(), dialer), None)
        }
    };
    let gateway = GatewayConfig { registry: members.map(MembersPart::members), ..config.gateway.clone() };
    Ok(Gateway::start(gateway, routers, config.log.counts, registry, demo)?)
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<tokio::net::TcpListener, BuildError> {
    let listener = tokio::net::TcpListener::bind(address).await;
    listener.map_err(|source| BuildError::Listen { address, flag, source })
}
