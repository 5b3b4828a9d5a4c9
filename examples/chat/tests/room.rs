//! The whole way round: a client says something, the backend publishes it, the history has it, once.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus::Registry;
use tidegate_eventlog::embedded::{EmbeddedLog, EmbeddedOptions};
use tidegate_eventlog::store;
use tidegate_example_chat::{Chat, Options};
use tidegate_history::{HistoryOptions, HistoryStore, Retention};
use tidegate_link::{RouterLink as _, UpstreamMessage};
use tidegate_router::{Router, RouterConfig};
use tidegate_vocab::{Channel, ConnectionId, Incarnation, Offset, PartitionCounts, Payload, UserId};
use tokio::net::TcpListener;

struct Running {
    router: Arc<Router>,
    history: Arc<HistoryStore>,
    api: String,
}

async fn start(directory: &Path) -> Running {
    let database = store::open_database(directory, 8 << 20).expect("store opens");
    let log =
        EmbeddedLog::open(database.clone(), EmbeddedOptions::new(PartitionCounts::same(2))).expect("log");
    let retention = HistoryOptions::same(Retention { rows: 100, age_ms: 3_600_000 });
    let history = Arc::new(HistoryStore::open(database, retention).expect("history opens"));
    let config = RouterConfig::new(Incarnation::random());
    let router = Router::start(config, log, Arc::clone(&history), &Registry::new()).expect("starts");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let api = format!("http://{}", listener.local_addr().expect("has an address"));
    router.serve_api(listener);
    Running { router, history, api }
}

impl Running {
    async fn say(&self, seq: u64, text: &str) {
        let message = UpstreamMessage {
            connection: ConnectionId(1, 1),
            user: Some(UserId::parse("alice").expect("valid")),
            channel: Channel::parse("chat:lobby").expect("valid"),
            payload: Payload::Json(Bytes::from(format!("\"{text}\""))),
            seq,
            trace_parent: None,
        };
        self.router.upstream(message).await.expect("the log has it");
    }

    /// How many events the room has.
    fn count(&self) -> usize {
        let room = Channel::parse("chat:lobby").expect("valid");
        let partition = PartitionCounts::same(2).partition_of(&room);
        let rows = self.history.read(partition, &room, Offset(0), Offset(u64::MAX), 100, 1 << 20);
        rows.map_or(0, |rows| rows.rows.len())
    }

    async fn has(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.count() != count {
            assert!(Instant::now() < deadline, "{} events instead of {count}", self.count());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_is_published_once_also_after_a_crash() {
    let directory = tempfile::tempdir().expect("directory");
    let state = directory.path().join("chat.resume");
    let running = start(&directory.path().join("data")).await;
    let options = Options { api: running.api.clone(), api_key: None, state: state.clone() };
    let chat = Chat::new(options.clone()).expect("options are good");
    let first = tokio::spawn(async move { chat.run().await });
    running.say(1, "hello").await;
    running.say(2, "who is there").await;
    running.has(2).await;
    first.abort();

    // As after a crash before the file was written: everything is dealt with again.
    std::fs::remove_file(&state).expect("the file is there");
    let chat = Chat::new(options).expect("options are good");
    let second = tokio::spawn(async move { chat.run().await });
    running.say(3, "still here").await;
    running.has(3).await;
    second.abort();
    running.router.shutdown().await;
}
