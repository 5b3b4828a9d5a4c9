//! What clients say: to the log, acked, and read by a backend in order.

use serde_json::{Value, json};
use tidegate_e2e::{Follow, Follower, PATIENCE, SECRET, Server, Setup, Transport, http, now_s, token};
use tidegate_proto::upstream::v1::message::Payload;
use tidegate_proto::upstream::v1::read_request::From;
use tidegate_proto::upstream::v1::read_response::Item;
use tidegate_proto::upstream::v1::upstream_client::UpstreamClient;
use tidegate_proto::upstream::v1::{Message, ReadRequest, ReadResponse};
use tonic::Streaming;

async fn read(server: &Server, from: From) -> Streaming<ReadResponse> {
    let mut client = UpstreamClient::connect(format!("http://{}", server.api())).await.expect("connects");
    client.read(ReadRequest { from: Some(from) }).await.expect("opens").into_inner()
}

/// So many messages, and the token behind them.
async fn take(stream: &mut Streaming<ReadResponse>, count: usize) -> (Vec<Message>, String) {
    let (mut messages, mut resume) = (Vec::new(), String::new());
    while messages.len() < count || resume.is_empty() {
        let next = tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time");
        let response = next.expect("no error").expect("no end");
        resume = response.resume;
        match response.item {
            Some(Item::Message(message)) => messages.push(message),
            Some(Item::Lost(lost)) => panic!("{lost:?}"),
            None => {}
        }
    }
    (messages, resume)
}

fn said(message: &Message) -> Value {
    match message.payload.as_ref().expect("a payload") {
        Payload::Json(text) => serde_json::from_str(text).expect("JSON"),
        Payload::Binary(bytes) => json!({"bytes": bytes.to_vec()}),
    }
}

#[tokio::test]
async fn frames_and_bodies_are_acked_and_read_in_order() {
    let mut server = Server::start(Setup::new()).await;
    let mut from_now = read(&server, From::Now(true)).await;
    let (_, at_start) = take(&mut from_now, 0).await;
    let follow = Follow::channels(["room:1"]).user("alice");
    let mut alice = Follower::open(server.public(), Transport::WebSocket, &follow).await;
    alice.state().await;
    let mut positions = Vec::new();
    for n in 0..10 {
        alice.say(&json!({"data": {"n": n}, "ref": n}).to_string()).await;
        let ack = alice.object().await.value;
        assert_eq!(
            (&ack["type"], &ack["ref"], &ack["seq"]),
            (&json!("ack"), &json!(n), &json!(n + 1)),
            "{ack}"
        );
        positions.push(ack["pos"].clone());
    }
    alice.say_bytes(&[0, 255, 7]).await;
    let ack = alice.object().await.value;
    assert_eq!((&ack["type"], &ack["seq"], &ack["ref"]), (&json!("ack"), &json!(11), &Value::Null), "{ack}");
    for n in 11..14 {
        let body = json!({"channel": "room:1", "data": {"n": n}, "ref": "post"}).to_string();
        let ack = http::post(server.public(), "/v1/messages?user=alice", &[], &body).await;
        assert_eq!((ack.status(), &ack.json()["ref"]), (200, &json!("post")), "{}", ack.text());
    }
    let (messages, _) = take(&mut from_now, 14).await;
    for (n, message) in messages.iter().enumerate() {
        assert_eq!((message.user.as_str(), message.channel.as_str()), ("alice", "room:1"));
        match n {
            10 => assert_eq!(said(message), json!({"bytes": [0, 255, 7]})),
            _ => assert_eq!(said(message), json!({"n": n})),
        }
        if n < 10 {
            assert_eq!(json!(message.pos), positions[n], "the position that the ack said");
            assert_eq!(message.seq, n as u64 + 1);
            assert_eq!(message.connection, messages[0].connection);
        }
    }
    assert_ne!(messages[13].connection, messages[0].connection);
    // Resumable, in the middle and over a restart.
    let (first, middle) = take(&mut read(&server, From::Resume(at_start)).await, 5).await;
    assert_eq!(first, messages[..5]);
    server.restart().await;
    let (rest, _) = take(&mut read(&server, From::Resume(middle)).await, 9).await;
    assert_eq!(rest, messages[5..]);
    let (all, _) = take(&mut read(&server, From::Start(true)).await, 14).await;
    assert_eq!(all, messages);
    server.assert_well().await;
}

#[tokio::test]
async fn many_talk_at_once_and_each_is_read_in_its_own_order() {
    let server = Server::start(Setup::new()).await;
    let mut reading = read(&server, From::Now(true)).await;
    take(&mut reading, 0).await;
    let talking = (0..10).map(async |number| {
        let follow = Follow::channels(["room:2"]).user(&format!("u{number}"));
        let mut client = Follower::open(server.public(), Transport::WebSocket, &follow).await;
        client.state().await;
        for n in 0..30 {
            client.say(&json!({"data": n}).to_string()).await;
        }
        for n in 0..30 {
            let ack = client.object().await.value;
            assert_eq!((&ack["type"], &ack["seq"]), (&json!("ack"), &json!(n + 1)), "{ack}");
        }
    });
    futures::future::join_all(talking).await;
    let (messages, _) = take(&mut reading, 300).await;
    for number in 0..10 {
        let user = format!("u{number}");
        let of: Vec<Value> = messages.iter().filter(|message| message.user == user).map(said).collect();
        assert_eq!(of, (0..30).map(|n| json!(n)).collect::<Vec<_>>(), "{user}");
    }
}

#[tokio::test]
async fn a_client_says_only_what_its_token_lets_it() {
    let setup =
        Setup::new().set("auth.hmac_secret", SECRET).set("auth.insecure", false).set("auth.anonymous", false);
    let server = Server::start(setup).await;
    let mut reading = read(&server, From::Now(true)).await;
    take(&mut reading, 0).await;
    let bearer =
        format!("Bearer {}", token(&json!({"sub": "alice", "exp": now_s() + 600, "channels": ["room:*"]})));
    let headers = [("authorization", bearer.as_str())];
    let say = async |channel: &str, headers: &[(&str, &str)]| {
        let body = json!({"channel": channel, "data": 1}).to_string();
        http::post(server.public(), "/v1/messages", headers, &body).await
    };
    assert_eq!(say("room:1", &headers).await.status(), 200);
    assert_eq!(say("hall:1", &headers).await.problem(), "forbidden");
    assert_eq!(say("user:alice", &headers).await.problem(), "forbidden");
    assert_eq!(say("room:1", &[]).await.problem(), "unauthorized");
    let (messages, _) = take(&mut reading, 1).await;
    assert_eq!((messages[0].user.as_str(), messages[0].channel.as_str()), ("alice", "room:1"));
}

/// Client to log to backend to publish to everyone; the backend and the server are killed on the way.
#[tokio::test]
async fn the_chat_room_of_the_example_works_end_to_end() {
    let mut server = Server::start(Setup::new()).await;
    let directory = tempfile::tempdir().expect("temporary directory");
    let api = format!("http://{}", server.api());
    let start = || {
        let options = tidegate_example_chat::Options {
            api: api.clone(),
            api_key: None,
            state: directory.path().join("chat.resume"),
        };
        let chat = tidegate_example_chat::Chat::new(options).expect("good options");
        tokio::spawn(async move { chat.run().await })
    };
    let backend = start();
    let room = Follow::channels(["chat:lobby"]);
    let mut listeners = Vec::new();
    for transport in Transport::ALL {
        let mut listener = Follower::open(server.public(), transport, &room).await;
        listener.state().await;
        listeners.push(listener);
    }
    let say = async |server: &Server, text: &str| {
        let body = json!({"channel": "chat:lobby", "data": {"text": text}}).to_string();
        let ack = http::post(server.public(), "/v1/messages?user=alice", &[], &body).await;
        assert_eq!(ack.status(), 200, "{}", ack.text());
    };
    say(&server, "hello").await;
    let mut positions = std::collections::BTreeSet::new();
    for listener in &mut listeners {
        let event = listener.event().await;
        assert!(event.data.as_deref().is_some_and(|data| data.contains("hello") && data.contains("alice")));
        positions.insert(event.pos);
    }
    assert_eq!(positions.len(), 1, "one event for everyone");
    backend.abort();
    say(&server, "while the backend was down").await;
    let cursors: Vec<String> = listeners.into_iter().map(|listener| listener.cut().cursor).collect();
    let backend = start();
    server.restart().await;
    say(&server, "after the restart").await;
    for (at, cursor) in cursors.into_iter().enumerate() {
        let transport = Transport::ALL[(at + 1) % 5];
        let mut listener = Follower::open(server.public(), transport, &room.clone().resume(cursor)).await;
        listener.state().await;
        for text in ["while the backend was down", "after the restart"] {
            let data = listener.event().await.data;
            assert!(data.as_deref().is_some_and(|data| data.contains(text)), "{transport:?}: {data:?}");
        }
        assert!(listener.quiet().await.is_empty(), "{transport:?}: each once");
    }
    assert!(!backend.is_finished(), "the backend came back by itself");
    backend.abort();
    server.assert_well().await;
}
