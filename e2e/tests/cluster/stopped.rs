//! A gateway that does nothing: its connections to the routers are open, and nobody reads them.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use serde_json::json;
use tidegate_e2e::{Cluster, Follow, Follower, Node, PATIENCE, Shape, Transport, http};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const CHANNELS: [&str; 4] = ["s:0", "s:1", "s:2", "s:3"];
const STOPPED_FOR: Duration = Duration::from_secs(20);
const MEASURED_FOR: Duration = Duration::from_secs(4);
/// Between two batches.
const INTERVAL: Duration = Duration::from_millis(20);
/// Events of a batch: 2,000 a second.
const BATCH: u64 = 40;
const GROWTH_MOST: u64 = 64 << 20;

fn now_us() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros())
        .expect("fits")
}

/// Publishes batches until it is told to stop: how many events were acked.
async fn publish(api: SocketAddr, stop: watch::Receiver<bool>) -> u64 {
    let mut conn = http::HttpConn::connect(api).await.expect("connects");
    let (mut pace, mut n) = (tokio::time::interval(INTERVAL), 0);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*stop.borrow() {
        pace.tick().await;
        let item = |n: u64| {
            let channel = CHANNELS[usize::try_from(n).expect("small") % CHANNELS.len()];
            let filling = "x".repeat(1_024 + 97 * usize::try_from(n % 32).expect("small"));
            json!({"channel": channel, "data": {"n": n, "at": now_us(), "filling": filling}})
        };
        let items: Vec<_> = (n..n + BATCH).map(item).collect();
        let body = json!(items).to_string();
        conn.send(http::request("POST", "/v1/publish/batch", &[], &body)).await.expect("sent");
        let answer = conn.response().await.expect("answered");
        assert!(answer.status() == 200, "{}", answer.text());
        n += BATCH;
    }
    n
}

/// Follows a channel until it has seen all that there will be of it; (when, how long it took) of each event.
fn follow(
    gateway: &Node,
    number: usize,
    goal: watch::Receiver<Option<u64>>,
) -> JoinHandle<Vec<(Instant, u64)>> {
    let (address, transport) = (gateway.public(), [Transport::WebSocket, Transport::Sse][number % 2]);
    tokio::spawn(async move {
        let mut follow = Follow::channels([CHANNELS[number]]);
        let mut client = Follower::open(address, transport, &follow).await;
        client.state().await;
        let (mut seen, mut next) = (Vec::new(), number as u64);
        while goal.borrow().is_none_or(|count| next < count) {
            match client.hear_within(Duration::from_millis(100)).await {
                Some(tidegate_e2e::Heard::Object(object)) if object.kind == "event" => {
                    let data = &object.value["data"];
                    assert_eq!(data["n"].as_u64(), Some(next), "in order, once and without a hole");
                    next += CHANNELS.len() as u64;
                    let at = data["at"].as_u64().expect("a time");
                    seen.push((Instant::now(), now_us().saturating_sub(at)));
                }
                Some(tidegate_e2e::Heard::Object(object)) if object.kind == "state" => {
                    assert_eq!(object.value["lost"], json!([]), "{}", object.raw);
                }
                Some(tidegate_e2e::Heard::Object(object)) => {
                    assert!(["ping", "close"].contains(&object.kind.as_str()), "{}", object.raw);
                }
                Some(tidegate_e2e::Heard::End { .. }) => {
                    follow.cursor = Some(client.cut().cursor);
                    client = Follower::reopen(address, transport, &follow).await;
                }
                _ => {}
            }
        }
        seen
    })
}

/// The median of what was seen between two moments, in microseconds.
fn median(seen: &[Vec<(Instant, u64)>], from: Instant, to: Instant) -> u64 {
    let within = seen.iter().flatten().filter(|(at, _)| (from..to).contains(at));
    let mut all: Vec<u64> = within.map(|(_, took)| *took).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

/// The most that each router has resident in some time.
async fn peaks(routers: &[Node], time: Duration) -> Vec<u64> {
    let mut peaks = vec![0; routers.len()];
    let (begun, mut looks) = (Instant::now(), tokio::time::interval(Duration::from_millis(100)));
    while begun.elapsed() < time {
        looks.tick().await;
        for (peak, router) in peaks.iter_mut().zip(routers) {
            *peak = router.resident_bytes().max(*peak);
        }
    }
    peaks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_gateway_costs_the_router_a_bounded_memory() {
    let cluster = Cluster::start(Shape::new("stopped").router_set("history.rows", 100_000)).await;
    let (goal, goals) = watch::channel(None);
    let [well, stopped] = [0, 1].map(|number| {
        let gateway = &cluster.gateways[number];
        (0..CHANNELS.len()).map(|number| follow(gateway, number, goals.clone())).collect::<Vec<_>>()
    });
    let (stop, is_stopped) = watch::channel(false);
    let publishing = tokio::spawn(publish(cluster.routers[0].api(), is_stopped));
    peaks(&cluster.routers, MEASURED_FOR / 2).await; // Caches and buffers fill.
    let calm_from = Instant::now();
    let before = peaks(&cluster.routers, MEASURED_FOR).await;
    let stopped_from = Instant::now();
    cluster.gateways[1].pause();
    let during = peaks(&cluster.routers, STOPPED_FOR).await;
    cluster.gateways[1].go_on();
    let stopped_to = Instant::now();
    stop.send_replace(true);
    let count = publishing.await.expect("everything is acked");
    goal.send_replace(Some(count));
    let caught_up = async |tasks| {
        let all = tokio::time::timeout(PATIENCE, join_all::<Vec<JoinHandle<_>>>(tasks)).await;
        let all = all.expect("all of it came in time");
        all.into_iter().map(|seen| seen.expect("all in order")).collect::<Vec<_>>()
    };
    let well = caught_up(well).await;
    let stopped = caught_up(stopped).await;
    let rate = count as f64 / (stopped_to - calm_from + MEASURED_FOR / 2).as_secs_f64();
    let (calm, while_stopped) =
        (median(&well, calm_from, stopped_from), median(&well, stopped_from, stopped_to));
    let growth: Vec<u64> = during.iter().zip(&before).map(|(to, from)| to.saturating_sub(*from)).collect();
    eprintln!(
        "{rate:.0} events/s; routers' memory {before:?}, then {during:?}; the other gateway's p50 {calm} us, then \
         {while_stopped} us; caught up after {:?}",
        stopped_to.elapsed()
    );
    assert!(growth.iter().all(|bytes| *bytes <= GROWTH_MOST), "{growth:?}");
    // Who waited for the stopped one would wait for seconds; how much less it is, is printed: machines are noisy.
    assert!(
        while_stopped <= 5 * calm + 100_000,
        "the other gateway's clients: {calm} us, then {while_stopped} us"
    );
    let total: usize = stopped.iter().map(Vec::len).sum();
    assert_eq!(total as u64, count, "all of it");
}
