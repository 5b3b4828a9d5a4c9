//! A gateway and a router that share nothing but a socket, and a client that notices nothing of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use prometheus::Registry;
use serde_json::Value;
use tidegate_deliver::{Dialer, Key, Metrics, discover, server};
use tidegate_eventlog::embedded::{EmbeddedLog, EmbeddedOptions};
use tidegate_eventlog::{EventLog, store};
use tidegate_gateway::{AuthConfig, DrainConfig, Gateway, GatewayConfig};
use tidegate_history::{HistoryOptions, HistoryStore, Retention};
use tidegate_link::RouterLink;
use tidegate_router::publish::{Data, PublishRequest, Target};
use tidegate_router::{Api, Router, RouterConfig};
use tidegate_vocab::{Incarnation, PartitionCounts};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const PATIENCE: Duration = Duration::from_secs(20);

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn key() -> Option<Key> {
    Some(Key::parse("the-key-of-the-cluster").expect("a key"))
}

fn counts() -> PartitionCounts {
    PartitionCounts::same(2)
}

/// A router process, as far as others see it.
struct RouterProcess {
    router: Arc<Router>,
    log: Arc<EmbeddedLog>,
    history: Arc<HistoryStore>,
    database: fjall::Database,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl RouterProcess {
    async fn start(directory: &Path, address: SocketAddr) -> Self {
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

    async fn publish(&self, data: u64) {
        let request = PublishRequest {
            targets: vec![Target::Channel("a".into())],
            event: None,
            data: Data::Json(Bytes::from(data.to_string())),
            idempotency_key: None,
            ttl_ms: None,
            ephemeral: false,
            trace: None,
        };
        self.router.publish(Api::Local, request).await.expect("accepted");
    }

    async fn stop(self) {
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

fn gateway_config() -> GatewayConfig {
    GatewayConfig {
        public: "127.0.0.1:0".parse().expect("an address"),
        shards: 2,
        ping_interval: Duration::from_secs(25),
        sse_retry: Duration::from_secs(2),
        connections_limit: 100,
        channels_limit: 10,
        outbox_bytes_limit: 1 << 20,
        outbox_age_limit: Duration::from_secs(30),
        message_bytes_limit: 65_536,
        head_timeout: Duration::from_secs(5),
        cursor_interval: Duration::from_secs(60),
        auth: AuthConfig {
            hmac_secret: None,
            issuer: None,
            audience: None,
            anonymous: true,
            insecure: false,
        },
        allowed_origins: Vec::new(),
        drain: DrainConfig {
            wait: Duration::ZERO,
            window: Duration::from_millis(100),
            retry_window: Duration::from_millis(100),
        },
        demo_page: false,
    }
}

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let connecting = connect_async(format!("ws://{address}/v1/events?channel=a"));
        let (socket, _) = connecting.await.expect("connects");
        let mut client = Self(socket);
        let is_a = |name: &Value| name == "a";
        while !client.hear("state").await["fresh"].as_array().is_some_and(|names| names.iter().any(is_a)) {}
        client
    }

    async fn say(&mut self, data: u64) {
        self.0.send(Message::text(format!(r#"{{"data":{data}}}"#))).await.expect("open");
    }

    /// The next object of this type. None may tell of an end or of a loss.
    async fn hear(&mut self, kind: &str) -> Value {
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

    async fn hears_events(&mut self, data: std::ops::Range<u64>) {
        for expected in data {
            assert_eq!(self.hear("event").await["data"], expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_notices_nothing_of_a_router_that_restarts_elsewhere() {
    let directory = tempfile::tempdir().expect("directory");
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound")
    };
    let registry = Registry::new();
    let dialer = Dialer { key: key(), metrics: Metrics::register(&registry).expect("registers") };
    let routers = discover(vec![address.to_string()], dialer);
    let gateway = Gateway::start(gateway_config(), routers, counts(), &registry, None).expect("starts");
    assert!(gateway.ready().is_err(), "there is no router yet");

    let router = RouterProcess::start(directory.path(), address).await;
    eventually("the gateway is ready", || gateway.ready().is_ok()).await;
    let mut client = Client::connect(gateway.local_addr()).await;
    for data in 0..100 {
        router.publish(data).await;
    }
    client.hears_events(0..100).await;
    for data in 1..=3 {
        client.say(data).await;
    }
    for seq in 1..=3 {
        assert_eq!(client.hear("ack").await["seq"], seq);
    }

    router.stop().await;
    client.say(4).await;
    let begun = Instant::now();
    let router = RouterProcess::start(directory.path(), address).await;
    println!("the router was back after {:?}", begun.elapsed());
    for data in 100..200 {
        router.publish(data).await;
    }
    // What was said while there was no router waits for one, as long as patience lasts.
    assert_eq!(client.hear("ack").await["seq"], 4);
    gateway.drain().await;
    gateway.stop().await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_missing_when_a_router_restarts_elsewhere() {
    let directory = tempfile::tempdir().expect("directory");
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound")
    };
    let registry = Registry::new();
    let dialer = Dialer { key: key(), metrics: Metrics::register(&registry).expect("registers") };
    let routers = discover(vec![address.to_string()], dialer);
    let gateway = Gateway::start(gateway_config(), routers, counts(), &registry, None).expect("starts");
    let mut router = RouterProcess::start(directory.path(), address).await;
    eventually("the gateway is ready", || gateway.ready().is_ok()).await;
    let mut client = Client::connect(gateway.local_addr()).await;
    for round in 0..3 {
        // From the second round on, some are published before the gateway is attached again.
        for data in round * 50..(round + 1) * 50 {
            router.publish(data).await;
        }
        client.hears_events(round * 50..(round + 1) * 50).await;
        router.stop().await;
        router = RouterProcess::start(directory.path(), address).await;
    }
    gateway.stop().await;
    router.stop().await;
}
