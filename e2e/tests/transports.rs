//! One cursor, one set of objects, five transports.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::json;
use tidegate_e2e::http::{HttpConn, Response, get, request};
use tidegate_e2e::{Follow, Follower, Heard, Server, Setup, Transport};

/// One client on each transport, its first state told.
async fn five(server: &Server, follow: &Follow) -> Vec<Follower> {
    join_all(Transport::ALL.map(async |transport| {
        let mut follower = Follower::open(server.public(), transport, follow).await;
        follower.state().await;
        follower
    }))
    .await
}

#[tokio::test]
async fn one_event_reaches_five_clients_with_the_same_pos() {
    let mut server = Server::start(Setup::new()).await;
    let mut clients = five(&server, &Follow::channels(["score:42"])).await;
    let body = json!({"channel": "score:42", "event": "goal", "data": {"by": 7}});
    let pos = server.publish(body).await["pos"].clone();
    for client in &mut clients {
        let event = client.event().await;
        assert_eq!(json!(event.pos), pos, "{:?}", client.transport);
        assert_eq!((event.name.as_str(), event.json()), ("goal", json!({"by": 7})));
        assert!(event.cursor.is_some(), "{:?}: a cursor with each event of one channel", client.transport);
    }
    let cursors: BTreeSet<&str> = clients.iter().map(Follower::cursor).collect();
    assert_eq!(cursors.len(), 1, "one token on all transports");
    server.assert_well().await;
}

#[tokio::test]
async fn state_is_first_on_each_transport() {
    let server = Server::start(Setup::new()).await;
    for transport in Transport::ALL {
        server.publish(json!({"channel": "a", "data": 1})).await;
        let follow = Follow::channels(["a"]).since("start").user("alice");
        let mut client = Follower::open(server.public(), transport, &follow).await;
        let mut heard = client.hear().await;
        if transport == Transport::Sse {
            assert!(matches!(heard, Heard::Retry(2_000)), "an event stream begins with retry: {heard:?}");
            heard = client.hear().await;
        }
        let Heard::Object(state) = heard else { panic!("{transport:?}: {heard:?}") };
        assert_eq!(state.kind, "state", "{transport:?}: {}", state.raw);
        let fresh = state.value["fresh"].as_array().expect("a list").iter();
        let told: BTreeSet<_> = fresh.filter_map(serde_json::Value::as_str).collect();
        assert_eq!(told, BTreeSet::from(["a", "everyone", "user:alice"]));
        assert_eq!(client.event().await.json(), 1);
    }
}

/// Two channels of different partitions.
fn on_two_partitions() -> [String; 2] {
    let counts = tidegate_vocab::PartitionCounts::same(8);
    let of = |name: &str| counts.partition_of(&tidegate_vocab::Channel::parse(name).expect("valid"));
    let first = "two:0".to_owned();
    let second = (1..).map(|n| format!("two:{n}")).find(|name| of(name) != of(&first)).expect("endless");
    [first, second]
}

#[tokio::test]
async fn two_channels_on_two_partitions_in_one_cursor() {
    let mut server = Server::start(Setup::new()).await;
    let names = on_two_partitions();
    for (at, transport) in Transport::ALL.into_iter().enumerate() {
        let follow = Follow::channels(&names);
        let mut client = Follower::open(server.public(), transport, &follow).await;
        client.state().await;
        for name in names.iter().cycle().take(6) {
            server.publish(json!({"channel": name, "data": at})).await;
        }
        client.events(6).await;
        let cut = client.cut();
        let mut missed = BTreeSet::new();
        for (n, name) in names.iter().cycle().take(10).enumerate() {
            server.publish(json!({"channel": name, "data": {"missed": n}})).await;
            missed.insert(n as u64);
        }
        let other = Transport::ALL[(at + 1) % 5];
        let mut client = Follower::open(server.public(), other, &follow.resume(cut.cursor)).await;
        let state = client.state().await;
        assert_eq!(state["fresh"], json!([]), "{state}");
        assert_eq!(state["lost"], json!([]), "{state}");
        while !missed.is_empty() {
            // Repeats of what came before the cut may come first: the cursor rides on the last event of a flush.
            if let Some(n) = client.event().await.json()["missed"].as_u64() {
                missed.remove(&n);
            }
        }
    }
    server.assert_well().await;
}

async fn poll(server: &Server, query: &str, headers: &[(&str, &str)]) -> Response {
    let answer = get(server.public(), &format!("/v1/events?{query}"), headers).await;
    let dates = answer.head.headers.iter().filter(|(name, _)| name == "date");
    assert_eq!(dates.count(), 1, "{:?}", answer.head);
    answer
}

#[tokio::test]
async fn a_poll_has_an_entity_tag_and_answers_304_for_it() {
    let server = Server::start(Setup::new()).await;
    let first = poll(&server, "channel=a", &[]).await;
    let tag = first.header("etag").expect("a tag").to_owned();
    assert_eq!(tag, format!("\"{}\"", first.json()["cursor"].as_str().expect("a cursor")));
    let again = poll(&server, "channel=a", &[("if-none-match", &tag)]).await;
    assert_eq!((again.status(), again.header("etag"), again.body.len()), (304, Some(tag.as_str()), 0));
    assert_eq!(again.header("content-length"), None);
    server.publish(json!({"channel": "a", "data": 1})).await;
    let news = poll(&server, "channel=a", &[("if-none-match", &tag)]).await;
    assert_eq!((news.status(), &news.json()["events"][0]["data"]), (200, &json!(1)));
    // A poll holds no session: asked again, it answers the same.
    let same = poll(&server, "channel=a", &[("if-none-match", &tag)]).await;
    assert_eq!(same.json()["events"], news.json()["events"]);
    let waiting =
        poll(&server, "channel=a&wait=100ms", &[("if-none-match", news.header("etag").expect("a tag"))])
            .await;
    assert_eq!(
        (waiting.status(), &waiting.json()["events"]),
        (200, &json!([])),
        "a timeout is 200 with no events"
    );
}

#[tokio::test]
async fn as_beats_what_headers_ask_for() {
    let server = Server::start(Setup::new()).await;
    let address = server.public();
    for (name, transport) in
        [("sse", Transport::Sse), ("ndjson", Transport::Ndjson), ("ws", Transport::WebSocket)]
    {
        let mut bare = request("GET", &format!("/v1/events?channel=a&as={name}"), &[], "");
        if transport == Transport::WebSocket {
            bare = bare.replace(
                "\r\n\r\n",
                "\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\naccept: text/event-stream\r\n\r\n",
            );
        }
        let mut conn = HttpConn::connect(address).await.expect("connects");
        conn.send(bare).await.expect("sent");
        let head = conn.head().await.expect("a head");
        match name {
            "sse" => assert_eq!(head.header("content-type"), Some("text/event-stream")),
            "ndjson" => assert_eq!(head.header("content-type"), Some("application/x-ndjson")),
            _ => assert_eq!(head.status, 101),
        }
    }
    let json = get(address, "/v1/events?channel=a&as=json", &[("accept", "text/event-stream")]).await;
    assert_eq!(json.header("content-type"), Some("application/json"));
    // A browser's EventSource asks like this.
    let mut client = Follower::open(address, Transport::Sse, &Follow::channels(["a"])).await;
    client.state().await;
}

#[tokio::test]
async fn since_and_last_look_back() {
    let server = Server::start(Setup::new()).await;
    for n in 0..5 {
        server.publish(json!({"channel": "a", "data": n})).await;
    }
    for transport in Transport::ALL {
        for (follow, expected) in [
            (Follow::channels(["a"]).last(2), vec![3, 4]),
            (Follow::channels(["a"]).since("start"), vec![0, 1, 2, 3, 4]),
            (Follow::channels(["a"]).since("90s"), vec![0, 1, 2, 3, 4]),
            (Follow::channels(["a"]).since("0s"), vec![]),
            (Follow::channels(["a"]), vec![]),
        ] {
            let mut client = Follower::open(server.public(), transport, &follow).await;
            client.state().await;
            let events = client.events(expected.len()).await;
            let data: Vec<_> = events.iter().map(|event| event.json().as_u64().expect("a number")).collect();
            assert_eq!(data, expected, "{transport:?} {follow:?}");
            assert!(client.quiet().await.is_empty(), "{transport:?} {follow:?}");
        }
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_may_read() {
    let server = Server::start(Setup::new()).await;
    let origin = ("origin", "http://localhost:5173");
    let preflight = request("OPTIONS", "/v1/events", &[origin, ("access-control-request-method", "GET")], "");
    let preflight = tidegate_e2e::http::exchange(server.public(), preflight).await;
    assert_eq!(preflight.status(), 204);
    for name in ["authorization", "last-event-id", "if-none-match", "content-type"] {
        assert!(
            preflight.header("access-control-allow-headers").is_some_and(|all| all.contains(name)),
            "{name}"
        );
    }
    let mut answers = vec![preflight.head];
    for accept in ["text/event-stream", "application/x-ndjson", "*/*"] {
        let mut conn = HttpConn::connect(server.public()).await.expect("connects");
        let asked = request("GET", "/v1/events?channel=a", &[origin, ("accept", accept)], "");
        conn.send(asked).await.expect("sent");
        answers.push(conn.head().await.expect("a head"));
    }
    answers.push(poll(&server, "channel=", &[origin]).await.head); // A refusal can be read, too.
    for head in answers {
        assert_eq!(head.header("access-control-allow-origin"), Some("http://localhost:5173"), "{head:?}");
        assert!(head.header("vary").is_some_and(|vary| vary.contains("Origin")), "{head:?}");
        assert_eq!(head.header("access-control-allow-credentials"), None, "{head:?}");
    }
    let bare = poll(&server, "channel=a", &[]).await;
    assert_eq!(bare.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn http_1_0_clients_get_bodies_that_end_with_the_connection() {
    let server = Server::start(Setup::new()).await;
    for transport in [Transport::Sse, Transport::Ndjson, Transport::LongPoll, Transport::ShortPoll] {
        let follow = Follow { http_10: true, ..Follow::channels(["a"]) };
        let mut client = Follower::open(server.public(), transport, &follow).await;
        client.state().await;
        server.publish(json!({"channel": "a", "data": transport.name()})).await;
        assert_eq!(client.event().await.json(), transport.name());
    }
}

#[tokio::test]
async fn many_polls_share_one_connection() {
    let server = Server::start(Setup::new()).await;
    let mut conn = HttpConn::connect(server.public()).await.expect("connects");
    let mut cursor = String::new();
    for n in 0..50 {
        let wait = if n % 2 == 0 { "&wait=10s" } else { "" };
        if !cursor.is_empty() {
            // With a key: answered once the event can be read.
            server.publish(json!({"channel": "a", "data": n, "idempotency_key": n.to_string()})).await;
        }
        let wait = if cursor.is_empty() { "" } else { wait };
        let path = format!("/v1/events?channel=a&cursor={cursor}{wait}");
        conn.send(request("GET", &path, &[], "")).await.expect("the same connection");
        let answer = conn.response().await.expect("an answer on the same connection");
        assert_ne!(answer.header("connection"), Some("close"));
        let answer = answer.json();
        if n > 0 {
            assert_eq!(answer["events"].as_array().map(Vec::len), Some(1), "{n}: {answer}");
            assert_eq!(answer["events"][0]["data"], n);
        }
        cursor = answer["cursor"].as_str().expect("a cursor").to_owned();
    }
}

#[tokio::test]
async fn a_second_request_waits_behind_a_long_poll() {
    let server = Server::start(Setup::new()).await;
    let cursor =
        poll(&server, "channel=a", &[]).await.json()["cursor"].as_str().expect("a cursor").to_owned();
    let mut conn = HttpConn::connect(server.public()).await.expect("connects");
    let waiting = request("GET", &format!("/v1/events?channel=a&cursor={cursor}&wait=25s"), &[], "");
    let second = request("GET", "/v1/events?channel=b", &[], "");
    let third = request("GET", "/nothing", &[], "");
    conn.send(format!("{waiting}{second}{third}")).await.expect("sent");
    server.metric_becomes("tidegate_gateway_connections", &["transport=\"poll\""], 1.0).await;
    server.publish(json!({"channel": "a", "data": "first"})).await;
    assert_eq!(conn.response().await.expect("the first").json()["events"][0]["data"], "first");
    assert!(
        conn.response().await.expect("the second").json()["fresh"]
            .as_array()
            .is_some_and(|f| f.contains(&json!("b")))
    );
    assert_eq!(conn.response().await.expect("the third").status(), 404);
}

#[tokio::test]
async fn quiet_connections_are_pinged_and_pings_are_answered() {
    let server = Server::start(Setup::new().set("limits.ping_interval", "1s")).await;
    let mut clients = five(&server, &Follow::channels(["a"])).await;
    for client in clients.iter_mut().filter(|client| !client.transport.is_poll()) {
        for _ in 0..3 {
            let heard = client.hear().await;
            let is_ping =
                matches!(&heard, Heard::Ping) || matches!(&heard, Heard::Object(o) if o.kind == "ping");
            assert!(is_ping, "{:?}: {heard:?}", client.transport);
        }
    }
    server.publish(json!({"channel": "a", "data": 1})).await;
    for client in &mut clients {
        assert_eq!(client.event().await.json(), 1, "{:?} is still there", client.transport);
    }
}

/// 1,000 events of 10 KB come to a client that reads nothing for a while, and then slowly: more than fits an outbox.
#[tokio::test]
async fn a_large_history_reaches_a_slow_reader_whole() {
    let server = Server::start(Setup::new().set("history.rows", 2_000)).await;
    let text = "x".repeat(10_000);
    for from in (0..1_000).step_by(100) {
        let items: Vec<_> =
            (from..from + 100).map(|n| json!({"channel": "a", "data": {"n": n, "text": text}})).collect();
        let body = json!(items).to_string();
        let answer = tidegate_e2e::http::post(server.api(), "/v1/publish/batch", &[], &body).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    for (total, transport) in (1_000..).zip(Transport::ALL) {
        let follow = Follow::channels(["a"]).since("start");
        let mut client = Follower::open(server.public(), transport, &follow).await;
        let mut live = Follower::open(server.public(), Transport::Sse, &Follow::channels(["b"])).await;
        live.state().await;
        let mut expected = 0;
        client.state().await;
        for pause_at in [0, 300, 700] {
            while expected < pause_at {
                assert_eq!(client.event().await.json()["n"], expected, "{transport:?}");
                expected += 1;
            }
            // While this one reads nothing, others are served.
            for n in 0..20 {
                server.publish(json!({"channel": "b", "data": n})).await;
                assert_eq!(live.event().await.json(), n);
            }
        }
        while expected < total {
            assert_eq!(client.event().await.json()["n"], expected, "{transport:?}");
            expected += 1;
        }
        server.publish(json!({"channel": "a", "data": {"n": total}})).await;
        assert_eq!(client.event().await.json()["n"], total, "{transport:?} goes on live");
    }
    server.metric_becomes("tidegate_gateway_outbox_bytes", &[], 0.0).await;
}
