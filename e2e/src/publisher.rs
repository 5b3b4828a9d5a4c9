//! A backend that publishes one event after the other and retries each with its key until it is acked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::eventually::{Tries, eventually};
use crate::http::{HttpConn, Response, post, request};

/// Time from one event to the next.
const INTERVAL: Duration = Duration::from_millis(3);

/// How long a server may be away.
const OUTAGE: Duration = Duration::from_secs(90);

/// An event that the server said it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acked {
    /// Its channel.
    pub channel: String,
    /// Its number: `data` is `{"n": …}`.
    pub n: u64,
    /// Its position.
    pub pos: String,
}

/// Publishes 0, 1, 2, … to some channels in turn, whatever happens to the server, until it is stopped.
#[derive(Debug)]
pub struct Publisher {
    task: JoinHandle<Vec<Acked>>,
    stop: watch::Sender<bool>,
    count: watch::Receiver<usize>,
}

impl Publisher {
    /// Begins. `tag` makes the idempotency keys unique.
    #[must_use]
    pub fn start(api: SocketAddr, tag: &str, channels: &[&str]) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (counted, count) = watch::channel(0);
        let channels: Vec<String> = channels.iter().map(|&name| name.to_owned()).collect();
        let task = tokio::spawn(publish_all(api, tag.to_owned(), channels, stopped, counted));
        Self { task, stop, count }
    }

    /// Waits until so many events in all have been acked.
    pub async fn acked(&self, count: usize) {
        let what = format!("{count} events acked");
        eventually(&what, async || (*self.count.borrow() >= count).then_some(())).await;
    }

    /// How many have been acked.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Stops after the event that is under way. All that were acked, in order.
    ///
    /// # Panics
    /// When an event was refused for good.
    pub async fn stop(self) -> Vec<Acked> {
        self.stop.send_replace(true);
        self.task.await.expect("no event was refused")
    }
}

async fn publish_all(
    api: SocketAddr,
    tag: String,
    channels: Vec<String>,
    stopped: watch::Receiver<bool>,
    counted: watch::Sender<usize>,
) -> Vec<Acked> {
    let mut acked = Vec::new();
    let mut conn = None;
    let mut pace = tokio::time::interval(INTERVAL);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for (n, channel) in (0_u64..).zip(channels.iter().cycle()) {
        if *stopped.borrow() {
            break;
        }
        pace.tick().await;
        let body = json!({"channel": channel, "data": {"n": n}, "idempotency_key": format!("{tag}-{n}")});
        let body = body.to_string();
        let mut tries = Tries::within(OUTAGE);
        let pos = loop {
            tries.next("an event is acked").await;
            if let Some(pos) = attempt(api, &mut conn, &body).await {
                break pos;
            }
        };
        acked.push(Acked { channel: channel.clone(), n, pos });
        counted.send_replace(acked.len());
    }
    acked
}

/// One try; `None` is to be tried again with the same key.
async fn attempt(api: SocketAddr, conn: &mut Option<HttpConn>, body: &str) -> Option<String> {
    let mut open = match conn.take() {
        Some(open) => open,
        None => HttpConn::connect(api).await.ok()?,
    };
    open.send(request("POST", "/v1/publish", &[], body)).await.ok()?;
    let response: Response = open.response().await.ok()?;
    if response.status() >= 500 {
        return None;
    }
    assert_eq!(response.status(), 200, "{body}: {}", response.text());
    *conn = Some(open);
    Some(response.json()["pos"].as_str().expect("a position").to_owned())
}

/// Publishes one event under a key of its own, so that the answer means that the router has dealt with it.
///
/// # Panics
/// When it is refused.
pub(crate) async fn publish(api: SocketAddr, mut body: Value) -> Value {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if body["idempotency_key"].is_null() {
        body["idempotency_key"] = format!("own-{}", COUNT.fetch_add(1, Ordering::Relaxed)).into();
    }
    let response = post(api, "/v1/publish", &[], &body.to_string()).await;
    assert_eq!(response.status(), 200, "{body}: {}", response.text());
    response.json()
}
