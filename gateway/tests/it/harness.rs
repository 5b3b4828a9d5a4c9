//! A router on a directory, a gateway's configuration, a client, and waits with deadlines.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use jsonwebtoken::{EncodingKey, Header};
use prometheus::Registry;
use serde_json::{Value, json};
use tidegate_deliver::{Key, Metrics, server};
use tidegate_eventlog::embedded::{EmbeddedLog, EmbeddedOptions};
use tidegate_eventlog::{EventLog, store};
use tidegate_gateway::{DrainConfig, GatewayConfig, measure};
use tidegate_history::{HistoryOptions, HistoryStore, Retention};
use tidegate_link::{
    BoxFuture, ControlAnswer, ControlAsk, DeliverStream, NodeHello, ReachStream, Routed, RouterLink, Settled,
    UpstreamMessage,
};
use tidegate_router::publish::{Data, PublishRequest, Target};
use tidegate_router::{Api, Router, RouterConfig};
use tidegate_vocab::{Event, Incarnation, Offset, PartitionCounts, PartitionId, Position, Problem};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// The key of tokens.
pub(crate) const SECRET: [u8; 32] = [7; 32];
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_so(what, async || condition()).await;
}

/// The same for what has to be asked.
pub(crate) async fn eventually_so(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn key() -> Option<Key> {
    Some(Key::parse("the-key-of-the-cluster").expect("a key"))
}

pub(crate) fn counts() -> PartitionCounts {
    PartitionCounts::same(2)
}

/// A router process, as far as others see it.
pub(crate) struct RouterProcess {
    pub(crate) router: Arc<Router>,
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) history: Arc<HistoryStore>,
    pub(crate) database: fjall::Database,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) server: JoinHandle<()>,
}

impl RouterProcess {
    pub(crate) async fn start(directory: &Path, address: SocketAddr) -> Self {
        let database = store::open_database(directory, 8 << 20).expect("store opens");
        let log = EmbeddedLog::open(database.clone(), EmbeddedOptions::new(counts())).expect("log opens");
        let retention = Retention { rows: 10_000, age_ms: 3_600_000 };
        let history = HistoryStore::open(database.clone(), HistoryOptions::same(retention));
        let history = Arc::new(history.expect("history opens"));
        let incarnation = Incarnation::random();
        let shared_log = Arc::clone(&log) as Arc<dyn EventLog>;
        let registry = Registry::new();
        let config = RouterConfig::new(incarnation);
        let router = Router::start(config, shared_log, Arc::clone(&history), &registry).expect("starts");
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let metrics = Metrics::register(&registry).expect("registers");
        let serving = server(Arc::clone(&router) as Arc<dyn RouterLink>, incarnation, key(), metrics);
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            serving.serve(listener, async { drop(stopped.await) }).await.expect("serves");
        });
        eventually("the router is ready", || router.ready().is_ok()).await;
        Self { router, log, history, database, stop, server }
    }

    pub(crate) async fn publish(&self, data: u64) {
        self.publish_json(data.to_string()).await;
    }

    /// 32 KiB with a number.
    pub(crate) async fn publish_large(&self, number: u64) {
        self.publish_json(format!("\"{number} {}\"", "x".repeat(32 * 1024))).await;
    }

    /// Any JSON, on the channel `a`.
    pub(crate) async fn publish_json(&self, data: String) {
        let request = PublishRequest {
            targets: vec![Target::Channel("a".into())],
            event: None,
            data: Data::Json(Bytes::from(data)),
            idempotency_key: None,
            ttl_ms: None,
            ephemeral: false,
            trace: None,
        };
        self.router.publish(Api::Local, request).await.expect("accepted");
    }

    pub(crate) async fn stop(self) {
        let Self { router, log, history, database, stop, server } = self;
        router.shutdown().await;
        stop.send(()).expect("the server runs");
        tokio::time::timeout(PATIENCE, server).await.expect("in time").expect("ends well");
        log.close();
        eventually("the router is dropped", || Arc::strong_count(&router) == 1).await;
        drop(router);
        eventually("the stores are dropped", || Arc::strong_count(&log) + Arc::strong_count(&history) == 2)
            .await;
        drop((log, history, database));
    }
}

pub(crate) fn gateway_config() -> GatewayConfig {
    GatewayConfig {
        shards: 2,
        connections_limit: 100,
        channels_limit: 10,
        outbox_age_limit: Duration::from_secs(30),
        head_timeout: Duration::from_secs(5),
        drain: DrainConfig {
            wait: Duration::ZERO,
            window: Duration::from_millis(100),
            retry_window: Duration::from_millis(100),
        },
        name: "gateway-1".into(),
        ..measure::config()
    }
}

pub(crate) struct Client<S = MaybeTlsStream<TcpStream>>(pub(crate) WebSocketStream<S>);

impl Client {
    /// `query` is what follows the channel.
    pub(crate) async fn connect(address: SocketAddr, query: &str) -> Self {
        let mut client = Self::try_connect(address, query).await.expect("connects");
        let is_a = |name: &Value| name == "a";
        while !client.hear("state").await["fresh"].as_array().is_some_and(|names| names.iter().any(is_a)) {}
        client
    }

    /// The status of a refusal.
    pub(crate) async fn try_connect(address: SocketAddr, query: &str) -> Result<Self, u16> {
        match connect_async(format!("ws://{address}/v1/events?channel=a{query}")).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::Error::Http(refusal)) => Err(refusal.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn hears_nothing(&mut self, time: Duration) {
        let heard = tokio::time::timeout(time, self.0.next()).await;
        assert!(heard.is_err(), "{heard:?}");
    }

    /// The reason of the close object, which is the next thing heard.
    pub(crate) async fn hears_its_end(&mut self) -> String {
        let heard = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("in time");
        let Some(Ok(Message::Text(text))) = heard else { panic!("{heard:?}") };
        let object: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(object["type"], "close", "{object}");
        object["reason"].as_str().expect("a reason").to_owned()
    }

    pub(crate) async fn say(&mut self, data: u64) {
        self.0.send(Message::text(format!(r#"{{"data":{data}}}"#))).await.expect("open");
    }

    /// The next object of this type. None may tell of an end or of a loss.
    pub(crate) async fn hear(&mut self, kind: &str) -> Value {
        let heard = async {
            loop {
                let Message::Text(text) = self.0.next().await.expect("open").expect("no error") else {
                    continue;
                };
                let object: Value = serde_json::from_str(&text).expect("JSON");
                if object["type"] == kind {
                    return object;
                }
                assert!(object["type"] != "close" && object["type"] != "gap", "{object}");
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("no {kind} came in time"))
    }

    pub(crate) async fn hears_events(&mut self, data: std::ops::Range<u64>) {
        for expected in data {
            assert_eq!(self.hear("event").await["data"], expected);
        }
    }
}

/// A router that, when told to, says nothing of the control topic or lets no node attach, so that every Want stays open; and all
/// else as ever.
pub(crate) struct Reticent {
    pub(crate) router: Arc<Router>,
    pub(crate) is_silent: AtomicBool,
    pub(crate) is_closed: bool,
}

impl RouterLink for Reticent {
    fn attach(&self, node: Incarnation) -> BoxFuture<'_, Result<DeliverStream, Problem>> {
        if self.is_closed { Box::pin(std::future::pending()) } else { self.router.attach(node) }
    }

    fn upstream(&self, message: UpstreamMessage) -> BoxFuture<'static, Result<Position, Problem>> {
        self.router.upstream(message)
    }

    fn resolve(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> BoxFuture<'static, Result<Settled, Problem>> {
        self.router.resolve(partition, offset)
    }

    fn control(&self, ask: ControlAsk) -> BoxFuture<'static, Result<ControlAnswer, Problem>> {
        if self.is_silent.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        self.router.control(ask)
    }

    fn reach(&self, node: NodeHello) -> BoxFuture<'_, Result<ReachStream, Problem>> {
        self.router.reach(node)
    }

    fn ephemeral(&self, event: Arc<Event>) -> BoxFuture<'static, Result<Routed, Problem>> {
        self.router.ephemeral(event)
    }
}

/// Signed with [`SECRET`].
pub(crate) fn token(user: &str, issued_s: u64) -> String {
    let claims = json!({"sub": user, "iat": issued_s, "exp": 4_000_000_000_u64});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(&SECRET)).expect("signed")
}

/// Whether the gateway has a fresh word on what is revoked.
pub(crate) fn is_fresh(registry: &Registry) -> bool {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == "tidegate_gateway_control_fresh");
    family.expect("registered").get_metric()[0].get_gauge().get_value() == 1.0
}
