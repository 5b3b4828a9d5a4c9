//! Clients that do not read, and clients that come too often: what each policy and each cap does, and a process without files.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use tidegate_e2e::http::{HttpConn, get, request};
use tidegate_e2e::{Follow, Follower, Heard, PATIENCE, QUIET, Server, Setup, Transport, eventually};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

const OUTBOX: f64 = 256.0 * 1024.0;
const EVENTS: u64 = 200;

/// A stream of lines that nobody reads for now. HTTP/1.0, so that lines are all there is.
async fn deaf(server: &Server, query: &str) -> HttpConn {
    let mut conn = HttpConn::connect_slow(server.public()).await.expect("connects");
    let request =
        format!("GET /v1/events?{query} HTTP/1.0\r\nhost: localhost\r\naccept: application/x-ndjson\r\n\r\n");
    conn.send(request).await.expect("sent");
    conn.head().await.expect("a head");
    conn
}

/// Reads lines until one is an event with this number.
async fn read_until(conn: HttpConn, last: u64) -> Vec<Value> {
    let (stream, buffered) = conn.into_parts();
    let mut lines = BufReader::new(std::io::Cursor::new(buffered).chain(stream)).lines();
    let mut objects = Vec::new();
    while let Some(line) = lines.next_line().await.expect("readable") {
        let Ok(object) = serde_json::from_str::<Value>(&line) else { continue };
        let is_last = object["data"]["n"] == last;
        objects.push(object);
        if is_last {
            return objects;
        }
    }
    panic!("the stream ended before event {last}: {} objects", objects.len());
}

/// Numbers of a channel's events, rising, with a gap exactly where some are missing.
fn numbers_with_gaps(objects: &[Value], channel: &str) -> Vec<u64> {
    let (mut numbers, mut is_told) = (Vec::new(), false);
    for object in objects.iter().filter(|object| object["channel"] == channel) {
        if object["type"] == "gap" {
            assert_eq!(object["reason"], "slow");
            is_told = true;
        } else if object["type"] == "event" {
            let number = object["data"]["n"].as_u64().expect("a number");
            let expected = numbers.last().map_or(0, |last| last + 1);
            assert!(number >= expected, "in order: {number} after {numbers:?}");
            assert_eq!(is_told, number > expected, "a gap exactly where some are missing: {number}");
            is_told = false;
            numbers.push(number);
        }
    }
    numbers
}

async fn publish_all(server: &Server, channel: &str, neighbour: &mut Follower) {
    let text = "x".repeat(60_000);
    for n in 0..EVENTS {
        server.publish(json!({"channel": channel, "data": {"n": n, "text": text}})).await;
        assert_eq!(neighbour.event().await.json()["n"], n);
        assert!(server.metric("tidegate_gateway_outbox_bytes", &[]).await <= OUTBOX);
    }
}

/// Under a policy that leaves out: nobody is closed, memory stays within its bound, what is missing is told, the latest comes,
/// and the cursor after it brings nothing twice.
async fn check_policy(policy: &str) -> Vec<u64> {
    let setup =
        Setup::new().set("limits.outbox_size", "256KiB").set("namespaces.score.slow_consumers", policy);
    let mut server = Server::start(setup).await;
    let follow = Follow::channels(["score:1"]);
    let mut neighbour = Follower::open(server.public(), Transport::WebSocket, &follow).await;
    neighbour.state().await;
    let conn = deaf(&server, "channel=score:1&channel=other").await;
    server.metric_becomes("tidegate_gateway_connections", &["transport=\"ndjson\""], 1.0).await;
    publish_all(&server, "score:1", &mut neighbour).await;
    let label = format!("policy=\"{policy}\"");
    assert!(server.metric("tidegate_gateway_slow_dropped_total", &[label.as_str()]).await > 0.0);
    let closed = "tidegate_gateway_connections_closed_total";
    assert_eq!(server.metric(closed, &["reason=\"slow_consumer\""]).await, 0.0);
    let objects = read_until(conn, EVENTS - 1).await;
    let numbers = numbers_with_gaps(&objects, "score:1");
    assert!((numbers.len() as u64) < EVENTS, "something was left out");
    server.metric_becomes("tidegate_gateway_outbox_bytes", &[], 0.0).await;
    if let Some(cursor) = objects.last().and_then(|last| last["id"].as_str()) {
        let resumed = Follow::channels(["score:1", "other"]).resume(cursor);
        let mut again = Follower::open(server.public(), Transport::Sse, &resumed).await;
        assert_eq!(again.state().await["lost"], json!([]));
        server.publish(json!({"channel": "score:1", "data": {"n": EVENTS}})).await;
        assert_eq!(again.event().await.json()["n"], EVENTS, "what was told as gone does not come back");
    }
    server.assert_well().await;
    numbers
}

#[tokio::test]
async fn conflate_leaves_the_latest() {
    check_policy("conflate").await;
}

#[tokio::test]
async fn drop_oldest_leaves_what_fits() {
    let numbers = check_policy("drop_oldest").await;
    let tail = numbers.iter().rev().zip((0..EVENTS).rev()).take_while(|(a, b)| **a == *b).count();
    assert!(tail > 1, "more than the latest: {numbers:?}");
}

#[tokio::test]
async fn another_channel_of_the_same_client_loses_nothing() {
    let setup =
        Setup::new().set("limits.outbox_size", "256KiB").set("namespaces.score.slow_consumers", "conflate");
    let server = Server::start(setup).await;
    let mut neighbour =
        Follower::open(server.public(), Transport::WebSocket, &Follow::channels(["score:1"])).await;
    neighbour.state().await;
    let conn = deaf(&server, "channel=score:1&channel=chat:1").await;
    server.metric_becomes("tidegate_gateway_connections", &["transport=\"ndjson\""], 1.0).await;
    publish_all(&server, "score:1", &mut neighbour).await;
    for n in 0..50 {
        server.publish(json!({"channel": "chat:1", "data": {"n": n}})).await;
    }
    server.publish(json!({"channel": "chat:1", "data": {"n": 1_000_000}})).await;
    let objects = read_until(conn, 1_000_000).await;
    let chat = objects.iter().filter(|object| object["channel"] == "chat:1" && object["type"] == "event");
    assert_eq!(chat.count(), 51, "chat may lose nothing");
    assert!(objects.iter().all(|object| object["type"] != "gap" || object["channel"] == "score:1"));
    numbers_with_gaps(&objects, "score:1");
}

#[tokio::test]
async fn a_user_has_so_many_connections_and_gets_them_back() {
    let server = Server::start(Setup::new().set("limits.connections_per_user", 2)).await;
    let follow = Follow::channels(["a"]).user("alice");
    let mut first = Follower::open(server.public(), Transport::Sse, &follow).await;
    first.state().await;
    let mut second = Follower::open(server.public(), Transport::WebSocket, &follow).await;
    second.state().await;
    let path = "/v1/events?channel=a&user=alice";
    let refusal = get(server.public(), path, &[]).await;
    assert_eq!((refusal.status(), refusal.problem().as_str()), (429, "rate_limited"));
    assert!(refusal.header("retry-after").is_some());
    let mut sse = Follower::open(server.public(), Transport::Sse, &follow).await;
    assert!(matches!(sse.hear().await, Heard::Retry(1_000..)), "an EventSource is told inside");
    assert_eq!(sse.closed().await.0["reason"], "rate_limited");
    let bob = Follow::channels(["a"]).user("bob");
    Follower::open(server.public(), Transport::Sse, &bob).await.state().await;
    drop(first);
    eventually("there is room again", async || {
        (get(server.public(), path, &[]).await.status() == 200).then_some(())
    })
    .await;
    server.publish(json!({"channel": "a", "data": 1})).await;
    assert_eq!(second.event().await.json(), 1, "who was there first stays");
}

#[tokio::test]
async fn an_address_has_so_many_sockets_and_gets_them_back() {
    let server = Server::start(Setup::new().set("limits.connections_per_address", 3)).await;
    let mut inside = Vec::new();
    for _ in 0..3 {
        let mut client = Follower::open(server.public(), Transport::Sse, &Follow::channels(["a"])).await;
        client.state().await;
        inside.push(client);
    }
    let path = "/v1/events?channel=a";
    let refusal = get(server.public(), path, &[]).await;
    assert_eq!((refusal.status(), refusal.problem().as_str()), (429, "rate_limited"));
    assert_eq!(refusal.header("connection"), Some("close"), "the next socket may be let in");
    // Sockets without end are not even answered.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(HttpConn::connect(server.public()).await.expect("connects"));
    }
    eventually("the last ones are closed at once", async || {
        let refused = server.metric("tidegate_gateway_refused_total", &["rate_limited"]).await;
        (refused >= 20.0).then_some(())
    })
    .await;
    drop(silent);
    inside.pop();
    eventually("there is room again", async || {
        (get(server.public(), path, &[]).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn accepting_is_paced_and_everyone_is_served() {
    let server = Server::start(Setup::new().set("limits.accept_rate", 40).set("server.shards", 1)).await;
    let started = std::time::Instant::now();
    let requests: Vec<_> =
        (0..24).map(|_| async { get(server.public(), "/v1/events?channel=a", &[]).await.status() }).collect();
    let answers = futures::future::join_all(requests).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    // One at once and 23 at 40 a second: a machine that is slow only takes longer.
    assert!(started.elapsed() > Duration::from_millis(500), "{:?}", started.elapsed());
    assert!(
        server.metric("tidegate_gateway_accept_waits_total", &[]).await >= 1.0,
        "more came than the pace"
    );
}

/// Processor time of all threads, in ticks: USER_HZ is 100 wherever this runs.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, behind_name) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks = behind_name.split_ascii_whitespace().skip(11).take(2);
    Duration::from_millis(ticks.map(|ticks| ticks.parse::<u64>().expect("a number") * 10).sum())
}

/// From now on the process may have so many files more than it has.
fn leave_files(pid: u32, more: u64) {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count() as u64;
    let limit = Rlimit { current: Some(open + more), maximum: Some(open + more) };
    prlimit(Pid::from_raw(pid.cast_signed()), Resource::Nofile, limit).expect("the limit is set");
}

/// On a connection that is there: a new one needs a file.
async fn accept_errors(admin: &mut HttpConn) -> f64 {
    admin.send(request("GET", "/metrics", &[], "")).await.expect("sent");
    let text = admin.response().await.expect("an answer").text();
    let line = text.lines().find_map(|line| line.strip_prefix("tidegate_gateway_accept_errors_total "));
    line.expect("the metric").parse().expect("a number")
}

async fn publish_on(api: &mut HttpConn, number: u64) {
    let body = json!({"channel": "a", "data": number}).to_string();
    api.send(request("POST", "/v1/publish", &[], &body)).await.expect("sent");
    assert_eq!(api.response().await.expect("an answer").status(), 200);
}

/// The listen queue keeps a socket readable that cannot be accepted: whoever tries again at once tries without end.
#[tokio::test]
async fn without_a_file_to_spare_nobody_spins_and_who_is_there_goes_on() {
    const FILES: usize = 5;
    let mut server = Server::start(Setup::new()).await;
    let mut inside = Follower::open(server.public(), Transport::WebSocket, &Follow::channels(["a"])).await;
    inside.state().await;
    let mut admin = HttpConn::connect(server.admin()).await.expect("connects");
    let mut api = HttpConn::connect(server.api()).await.expect("connects");
    assert_eq!(accept_errors(&mut admin).await, 0.0);
    publish_on(&mut api, 0).await;
    assert_eq!(inside.event().await.json(), 0);
    leave_files(server.pid(), FILES as u64);
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut conn = HttpConn::connect(server.public()).await.expect("the kernel answers");
        conn.send(request("GET", "/v1/events?channel=a&as=ndjson", &[], "")).await.expect("sent");
        waiting.push(conn);
    }
    eventually("accepting fails", async || (accept_errors(&mut admin).await > 0.0).then_some(())).await;
    let (used, begun) = (cpu_time(server.pid()), Instant::now());
    let (mut served, mut unserved) = (Vec::new(), Vec::new());
    for mut conn in waiting {
        match tokio::time::timeout(QUIET, conn.head()).await {
            Ok(head) => served.push((conn, head.expect("a head"))),
            Err(_) => unserved.push(conn),
        }
    }
    // Some of what it had open then was its own and is closed now: a few more than that.
    assert!((1..=FILES + 5).contains(&served.len()), "{} of 20 were let in", served.len());
    eventually("3 s without files", async || (begun.elapsed() >= Duration::from_secs(3)).then_some(())).await;
    let (used, wall) = (cpu_time(server.pid()) - used, begun.elapsed());
    assert!(used < wall / 4, "{used:?} of processor time in {wall:?}");
    let errors = accept_errors(&mut admin).await;
    assert!(errors >= 10.0, "it tries again by itself: {errors}");
    let said = server.stderr().matches("accept failed").count();
    assert!((1..=12).contains(&said), "said {said} times, not {errors} times: {}", server.stderr());
    publish_on(&mut api, 1).await;
    assert_eq!(inside.event().await.json(), 1, "who is there goes on");
    drop(served);
    let heads = unserved
        .into_iter()
        .map(|mut conn| Box::pin(async move { conn.head().await.map(|head| (conn, head)) }));
    let (_let_in, others) = tokio::time::timeout(PATIENCE, futures::future::select_ok(heads))
        .await
        .expect("some are let in when others leave")
        .expect("a head");
    drop(others);
    let mut newcomer = Follower::open(server.public(), Transport::Sse, &Follow::channels(["a"])).await;
    newcomer.state().await;
    publish_on(&mut api, 2).await;
    assert_eq!((inside.event().await.json(), newcomer.event().await.json()), (2.into(), 2.into()));
    assert!(server.stderr().contains("accepting again"), "{}", server.stderr());
    server.assert_well().await;
}
