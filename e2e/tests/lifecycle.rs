//! How connections and the process end, and what the numbers say meanwhile.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tidegate_e2e::http::{HttpConn, get, request};
use tidegate_e2e::{Follow, Follower, Heard, SECRET, Server, Setup, Transport, eventually, now_s, token};

/// A client that has its state, and for a long poll a request that waits.
async fn settled(server: &Server, transport: Transport, follow: &Follow) -> Follower {
    let mut client = Follower::open(server.public(), transport, follow).await;
    client.state().await;
    client
}

#[tokio::test]
async fn sigterm_tells_every_client_when_to_come_back_and_exits_with_0() {
    let setup =
        Setup::new().set("drain.window", "1s").set("drain.wait", "300ms").set("drain.retry_window", "4s");
    let mut server = Server::start(setup).await;
    let follow = Follow::channels(["a"]);
    let mut web_socket = settled(&server, Transport::WebSocket, &follow).await;
    let mut sse = settled(&server, Transport::Sse, &follow).await;
    let mut ndjson = settled(&server, Transport::Ndjson, &follow).await;
    let mut old = settled(&server, Transport::Sse, &Follow { http_10: true, ..follow.clone() }).await;
    let cursor = sse.cursor().to_owned();
    let mut poll = HttpConn::connect(server.public()).await.expect("connects");
    let path = format!("/v1/events?channel=a&wait=50s&cursor={cursor}");
    poll.send(request("GET", &path, &[], "")).await.expect("sent");
    server.metric_becomes("tidegate_gateway_connections", &["transport=\"poll\""], 1.0).await;
    let begun = Instant::now();
    server.sigterm();
    let ready = async || get(server.admin(), "/readyz", &[]).await.status();
    eventually("not ready at once", async || (ready().await == 503).then_some(())).await;
    assert!(begun.elapsed() < Duration::from_millis(300), "not ready before the first client is closed");
    let check = |close: &Value| {
        assert_eq!((&close["code"], &close["reason"]), (&json!(1012), &json!("draining")), "{close}");
        assert!(close["retry_ms"].as_u64().is_some_and(|ms| ms <= 4_000), "{close}");
    };
    let (close, after) = web_socket.closed().await;
    check(&close);
    assert!(
        matches!(after.as_slice(), [Heard::CloseFrame(1012, reason), Heard::End { is_clean: true }] if reason == "draining"),
        "{after:?}"
    );
    let (close, after) = sse.closed().await;
    check(&close);
    let retry_ms = close["retry_ms"].as_u64().expect("a number");
    assert!(
        matches!(after.as_slice(), [Heard::Retry(ms), Heard::End { is_clean: true }] if *ms == retry_ms),
        "{after:?}"
    );
    let (close, after) = ndjson.closed().await;
    check(&close);
    assert!(matches!(after.as_slice(), [Heard::End { is_clean: true }]), "{after:?}");
    check(&old.closed().await.0);
    let answer = poll.response().await.expect("a waiting poll is answered");
    assert_eq!((answer.status(), &answer.json()["events"]), (200, &json!([])));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(server.exit_code().await, Some(0), "{}", server.stderr());
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}

#[tokio::test]
async fn a_drain_is_paced_over_its_window() {
    let mut server = Server::start(Setup::new().set("drain.window", "2s")).await;
    let clients = join_all((0..60).map(async |number| {
        let transport = Transport::ALL[number % 3];
        settled(&server, transport, &Follow::channels(["a"])).await
    }));
    let clients = clients.await;
    let begun = Instant::now();
    server.sigterm();
    let closing = clients.into_iter().map(async |mut client| {
        client.closed().await;
        begun.elapsed()
    });
    let mut closed = join_all(closing).await;
    closed.sort_unstable();
    let (first, median, last) = (closed[0], closed[30], closed[59]);
    assert!(first < Duration::from_millis(800), "the first slice goes early: {closed:?}");
    assert!((500..1_800).contains(&median.as_millis()), "half of them by half of the window: {closed:?}");
    assert!((1_200..4_000).contains(&last.as_millis()), "the last by the end of the window: {closed:?}");
    let most = closed.windows(20).map(|slice| slice[19] - slice[0]).min().expect("some");
    assert!(most > Duration::from_millis(200), "no third of them at once: {closed:?}");
    assert_eq!(server.exit_code().await, Some(0));
}

/// Load balancers need a while to notice: until then newcomers are served, and drained with the others.
#[tokio::test]
async fn newcomers_are_served_while_it_waits_and_then_nobody_is_let_in() {
    let mut server = Server::start(Setup::new().set("drain.wait", "3s").set("drain.window", "300ms")).await;
    server.sigterm();
    let ready = async || (get(server.admin(), "/readyz", &[]).await.status() == 503).then_some(());
    eventually("not ready", ready).await;
    let mut newcomers = Vec::new();
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Ndjson] {
        newcomers.push(settled(&server, transport, &Follow::channels(["a"])).await);
    }
    server.publish(json!({"channel": "a", "data": "still served"})).await;
    for newcomer in &mut newcomers {
        assert_eq!(newcomer.event().await.json(), "still served");
    }
    for newcomer in &mut newcomers {
        assert_eq!(newcomer.closed().await.0["reason"], "draining");
    }
    let connected = HttpConn::connect(server.public()).await;
    assert!(connected.is_err(), "nobody listens any more");
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn metrics_are_clean() {
    let server = Server::start(Setup::new()).await;
    let mut clients = Vec::new();
    for transport in Transport::ALL {
        clients.push(settled(&server, transport, &Follow::channels(["a"]).user("alice")).await);
    }
    server.publish(json!({"channel": "a", "data": 1})).await;
    for client in &mut clients {
        client.event().await;
    }
    let metrics = server.metrics().await;
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = spawned
        .expect("promtool is missing: it comes with the Debian package `prometheus`; put it on the PATH");
    std::io::Write::write_all(&mut promtool.stdin.take().expect("piped"), metrics.as_bytes()).expect("taken");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "promtool check metrics: {said}");
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        assert!(!line.contains("alice"), "no user is a label: {line}");
        assert!(line.starts_with("tidegate_") || line.starts_with("process_"), "{line}");
    }
}

#[tokio::test]
async fn the_connection_limit_refuses_with_retry_after() {
    let server = Server::start(Setup::new().set("limits.connections", 3)).await;
    let mut inside = Vec::new();
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Ndjson] {
        inside.push(settled(&server, transport, &Follow::channels(["a"])).await);
    }
    for transport in [Transport::WebSocket, Transport::Ndjson, Transport::ShortPoll] {
        let refusal = match Follower::try_open(server.public(), transport, &Follow::channels(["a"])).await {
            Ok(Err(response)) => *response,
            Ok(Ok(mut client)) => match client.hear().await {
                Heard::Refused(response) => *response,
                other => panic!("{transport:?}: {other:?}"),
            },
            Err(error) => panic!("{transport:?}: {error}"),
        };
        assert_eq!((refusal.status(), refusal.problem().as_str()), (503, "overloaded"), "{transport:?}");
        let seconds = refusal.header("retry-after").and_then(|text| text.parse::<u64>().ok());
        assert!(seconds.is_some_and(|seconds| (1..=60).contains(&seconds)), "{transport:?}");
    }
    let mut sse = Follower::open(server.public(), Transport::Sse, &Follow::channels(["a"])).await;
    assert!(matches!(sse.hear().await, Heard::Retry(1_000..)), "an EventSource is told inside");
    assert_eq!(sse.closed().await.0["reason"], "overloaded");
    assert!(server.metric("tidegate_gateway_refused_total", &["overloaded"]).await >= 4.0);
    server.publish(json!({"channel": "a", "data": 1})).await;
    for client in &mut inside {
        assert_eq!(client.event().await.json(), 1);
    }
    drop(inside.pop());
    eventually("room again", async || {
        let opened = Follower::try_open(server.public(), Transport::Ndjson, &Follow::channels(["a"])).await;
        opened.ok()?.ok()
    })
    .await;
}

#[tokio::test]
async fn metrics_return_to_their_baseline_when_all_have_left() {
    let server = Server::start(Setup::new()).await;
    let mut opened = 0.0;
    for round in 0..4 {
        let mut clients = Vec::new();
        for number in 0..20 {
            let channel = format!("c{}", number % 7);
            let follow = Follow::channels([&channel, "all"]).user(&format!("u{number}"));
            clients.push(settled(&server, Transport::ALL[number % 4], &follow).await);
        }
        server.publish(json!({"channel": "all", "data": round})).await;
        for client in &mut clients {
            client.event().await;
        }
        let gauge = server.metric("tidegate_gateway_connections", &[]).await;
        assert!((15.0..=20.0).contains(&gauge), "{gauge}");
        drop(clients);
        server.metric_becomes("tidegate_gateway_connections", &[], 0.0).await;
        server.metric_becomes("tidegate_gateway_outbox_bytes", &[], 0.0).await;
        let now_opened = server.metric("tidegate_gateway_connections_opened_total", &[]).await;
        assert!(now_opened > opened);
        opened = now_opened;
    }
    let closed = server.metric("tidegate_gateway_connections_closed_total", &[]).await;
    assert_eq!(opened, closed, "each connection ends once");
}

#[tokio::test]
async fn a_slow_consumer_is_closed_and_its_neighbour_unaffected() {
    let mut server = Server::start(Setup::new().set("limits.outbox_size", "256KiB")).await;
    let mut neighbour = settled(&server, Transport::WebSocket, &Follow::channels(["a"])).await;
    let mut stuck = Vec::new();
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let mut conn = HttpConn::connect_slow(server.public()).await.expect("connects");
        conn.send(request("GET", "/v1/events?channel=a", &[("accept", accept)], "")).await.expect("sent");
        conn.head().await.expect("a head");
        stuck.push(conn);
    }
    server.metric_becomes("tidegate_gateway_connections", &[], 3.0).await;
    let text = "x".repeat(60_000);
    let closed = async || {
        server.metric("tidegate_gateway_connections_closed_total", &["reason=\"slow_consumer\""]).await
    };
    for n in 0..300 {
        server.publish(json!({"channel": "a", "data": {"n": n, "text": text}})).await;
        assert_eq!(neighbour.event().await.json()["n"], n);
        if n % 20 == 19 && closed().await >= 2.0 {
            break;
        }
    }
    assert_eq!(closed().await, 2.0, "each is closed, and counted once");
    server.metric_becomes("tidegate_gateway_connections", &[], 1.0).await;
    server.metric_becomes("tidegate_gateway_outbox_bytes", &[], 0.0).await;
    for conn in &mut stuck {
        conn.until_closed().await;
    }
    server.assert_well().await;
}

#[tokio::test]
async fn a_socket_that_takes_nothing_for_too_long_is_closed() {
    let server = Server::start(Setup::new().set("limits.outbox_age", "1s")).await;
    let mut conn = HttpConn::connect_slow(server.public()).await.expect("connects");
    conn.send(request("GET", "/v1/events?channel=a", &[("accept", "text/event-stream")], ""))
        .await
        .expect("sent");
    conn.head().await.expect("a head");
    let text = "x".repeat(60_000);
    // Until something waits for the socket, and then no more.
    eventually("something waits", async || {
        server.publish(json!({"channel": "a", "data": text})).await;
        (server.metric("tidegate_gateway_outbox_bytes", &[]).await > 0.0).then_some(())
    })
    .await;
    let closed = "tidegate_gateway_connections_closed_total";
    server.metric_becomes(closed, &["transport=\"sse\"", "reason=\"slow_consumer\""], 1.0).await;
    server.metric_becomes("tidegate_gateway_outbox_bytes", &[], 0.0).await;
}

#[tokio::test]
async fn a_token_that_expires_ends_its_connections() {
    let setup = Setup::new().set("auth.hmac_secret", SECRET).set("auth.anonymous", false);
    let mut server = Server::start(setup).await;
    let lasting = token(&json!({"sub": "bob", "exp": now_s() + 600}));
    let brief = token(&json!({"sub": "alice", "exp": now_s() + 3}));
    let with = |token: &str| Follow::channels(["a"]).header("authorization", &format!("Bearer {token}"));
    let mut neighbour = settled(&server, Transport::WebSocket, &with(&lasting)).await;
    let mut clients = Vec::new();
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Ndjson] {
        clients.push(settled(&server, transport, &with(&brief)).await);
    }
    let mut poll = settled(&server, Transport::LongPoll, &with(&brief)).await;
    for client in &mut clients {
        let (close, after) = client.closed().await;
        assert_eq!((&close["code"], &close["reason"]), (&json!(4401), &json!("token_expired")), "{close}");
        assert_eq!(close.get("retry_ms"), None, "final: {close}");
        if client.transport == Transport::WebSocket {
            assert!(matches!(&after[0], Heard::CloseFrame(4401, _)), "{after:?}");
        }
    }
    let refused = loop {
        match poll.hear().await {
            Heard::Refused(response) => break response,
            Heard::Object(object) if object.kind == "ping" => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((refused.status(), refused.problem().as_str()), (401, "token_expired"));
    server.publish(json!({"channel": "a", "data": 1})).await;
    assert_eq!(neighbour.event().await.json(), 1);
    server.assert_well().await;
}
