//! The router's half of a process: its log, its history, its ports, and the order in which they end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tidegate_deliver::{Dialer, Key, Metrics as DeliverMetrics, discover, server};
use tidegate_eventlog::embedded::{EmbeddedLog, EmbeddedOptions};
use tidegate_eventlog::{EventLog, store};
use tidegate_history::HistoryStore;
use tidegate_kafka::{KafkaLog, KafkaOptions};
use tidegate_link::{RouterLink, Routers};
use tidegate_router::{Router, RouterConfig};
use tidegate_vocab::{Incarnation, Topic};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::members::MembersPart;
use super::shutdown::Shutdown;
use super::{BuildError, history, kafka_figures, listen};
use crate::config::{ClusterConfig, Config, Profile};

/// The "address" of the router in the gateway's own process.
const LOCAL_ROUTER: &str = "local";

/// The log of this process.
enum Log {
    Embedded(Arc<EmbeddedLog>),
    Kafka(Arc<KafkaLog>),
}

impl Log {
    fn shared(&self) -> Arc<dyn EventLog> {
        match self {
            Self::Embedded(log) => Arc::clone(log) as Arc<dyn EventLog>,
            Self::Kafka(log) => Arc::clone(log) as Arc<dyn EventLog>,
        }
    }

    /// Blocks until nothing of it runs any more.
    fn close(&self) {
        match self {
            Self::Embedded(log) => log.close(),
            Self::Kafka(log) => log.close(),
        }
    }
}

/// The port for gateways and other routers.
struct Internal {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// See the module.
pub(super) struct RouterPart {
    pub(super) router: Arc<Router>,
    pub(super) api: SocketAddr,
    log: Log,
    internal: Option<Internal>,
    /// What a gateway of the same process attaches to.
    local: watch::Sender<BTreeMap<String, Arc<dyn RouterLink>>>,
}

impl RouterPart {
    /// Binds the ports, opens log and history and starts the router.
    pub(super) async fn build(
        config: &Config,
        members: Option<&MembersPart>,
        registry: &Registry,
    ) -> Result<Self, BuildError> {
        let api = listen(config.api, "--api").await?;
        let address = api.local_addr().unwrap_or(config.api);
        let internal = match config.role {
            Profile::Router => Some(listen(config.cluster.listen, "--listen").await?),
            _ => None,
        };
        let (log, store) = open(config).await?;
        if let Log::Kafka(log) = &log {
            kafka_figures::register(registry, log)?;
        }
        let incarnation = Incarnation::random();
        let settings = RouterConfig {
            registry: members.map(MembersPart::members),
            ..router_config(config, incarnation)
        };
        let router = Router::start(settings, log.shared(), Arc::new(store), registry)?;
        router.serve_api(api);
        let internal = match internal {
            Some(listener) => Some(serve_internal(&router, incarnation, config, listener, registry)?),
            None => None,
        };
        let local = watch::Sender::new(BTreeMap::from([(LOCAL_ROUTER.to_owned(), Arc::clone(&router) as _)]));
        Ok(Self { router, api: address, log, internal, local })
    }

    /// For a gateway of the same process: this router and no other.
    pub(super) fn as_only_router(&self) -> Routers {
        self.local.subscribe()
    }

    /// Where gateways and other routers reach it.
    pub(super) fn internal_address(&self) -> Option<SocketAddr> {
        self.internal.as_ref().map(|internal| internal.address)
    }

    /// Ends the router, then its ports, then the log, which leaves the group.
    pub(super) async fn end(self, shutdown: &mut Shutdown) {
        let Self { router, log, internal, .. } = self;
        shutdown.phase("router", Duration::from_secs(15), router.shutdown()).await;
        if let Some(internal) = internal {
            // invariant: a server that has ended needs no telling
            let _ = internal.stop.send(());
            shutdown.phase("internal", Duration::from_secs(6), internal.serving).await;
        }
        let closing = tokio::task::spawn_blocking(move || log.close());
        shutdown.phase("log", Duration::from_secs(17), closing).await;
    }
}

fn serve_internal(
    router: &Arc<Router>,
    incarnation: Incarnation,
    config: &Config,
    listener: TcpListener,
    registry: &Registry,
) -> Result<Internal, BuildError> {
    let address = listener.local_addr().unwrap_or(config.cluster.listen);
    let metrics = DeliverMetrics::register(registry)?;
    let dialer = dialer(&config.cluster, metrics.clone())?;
    if !config.cluster.routers.is_empty() {
        router.join(discover(config.cluster.routers.clone(), dialer.clone()));
    }
    let (stop, stopped) = oneshot::channel();
    let serving = server(Arc::clone(router) as _, incarnation, dialer.key, metrics);
    let serving = tokio::spawn(async move {
        // invariant: a sender that is gone is as good as one that said so
        let until = async { drop(stopped.await) };
        if let Err(error) = serving.serve(listener, until).await {
            tracing::error!(%error, "internal port has failed");
        }
    });
    Ok(Internal { address, stop, serving })
}

/// How this process calls routers.
pub(super) fn dialer(cluster: &ClusterConfig, metrics: DeliverMetrics) -> Result<Dialer, BuildError> {
    let key = cluster.key.as_ref().map(|key| Key::parse(&String::from_utf8_lossy(key.expose())));
    Ok(Dialer { key: key.transpose()?, metrics })
}

/// Opens the log and the history. The embedded log is a store of its own: the engine holds its journal while it syncs,
/// and history writes, which need no sync, would wait for it.
async fn open(config: &Config) -> Result<(Log, HistoryStore), BuildError> {
    let kafka = match config.role {
        Profile::Router => Some(KafkaLog::open(kafka_options(config)).await?),
        _ => None,
    };
    let config = config.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let data_dir = || config.data_dir.clone();
        let database = |name| store::open_database(&config.data_dir.join(name), config.cache_bytes / 2);
        let log = match kafka {
            Some(log) => Log::Kafka(log),
            None => Log::Embedded(
                EmbeddedLog::open(database("log")?, embedded_options(&config))
                    .map_err(|source| BuildError::Log { data_dir: data_dir(), source })?,
            ),
        };
        let store = HistoryStore::open(database("history")?, history::options(&config.history))
            .map_err(|source| BuildError::History { data_dir: data_dir(), source })?;
        Ok((log, store))
    });
    opening.await?
}

fn embedded_options(config: &Config) -> EmbeddedOptions {
    EmbeddedOptions {
        epoch_salt: config.log.epoch_salt.clone(),
        retention: config.log.retention,
        disk_reserve_bytes: config.log.disk_reserve_bytes,
        ..EmbeddedOptions::new(config.log.counts)
    }
}

/// What `kafka` and `log` say, as the engine takes it.
pub(crate) fn kafka_options(config: &Config) -> KafkaOptions {
    let retention = &config.log.retention;
    let mut options = KafkaOptions::new(config.kafka.bootstrap.join(","), config.log.counts);
    options.topic_prefix.clone_from(&config.kafka.topic_prefix);
    options.group.clone_from(&config.kafka.group);
    options.epoch_salt.clone_from(&config.log.epoch_salt);
    options.properties.clone_from(&config.kafka.properties);
    options.spec.replication = config.kafka.replication;
    options.spec.min_isr = config.kafka.min_insync;
    options.spec.retention_ms = Topic::ALL.map(|topic| retention.of(topic));
    options
}

fn router_config(config: &Config, incarnation: Incarnation) -> RouterConfig {
    let text = |key: &tidegate_gateway::Secret| String::from_utf8_lossy(key.expose()).into_owned();
    let of_events = config.history.namespaces.iter().filter(|(name, _)| name.as_str() != "user");
    let longest = of_events.map(|(_, kept)| kept.age_ms).chain([config.history.default.age_ms]).max();
    RouterConfig {
        address: if config.role == Profile::Router {
            config.cluster.advertise.clone()
        } else {
            String::new()
        },
        api_keys: config.api_keys.iter().map(text).collect(),
        history_ages_ms: [longest.unwrap_or(u64::MAX), config.history.of("user").age_ms],
        ..RouterConfig::new(incarnation)
    }
}
