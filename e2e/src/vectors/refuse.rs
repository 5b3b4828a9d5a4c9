//! `refusals.json`, `messages.json` and `publish.json`: what is said wrongly, and what is answered.

use serde_json::{Value, json};

use super::{cases, expand, expand_text, name_of, transports, unique};
use crate::follow::{Follow, Transport};
use crate::follower::{Follower, Heard};
use crate::http::{self, Response};
use crate::server::Server;

/// `refusals.json`, on every transport.
///
/// # Panics
/// When a case does not hold.
pub async fn run_refusals(server: &Server, file: &Value) -> usize {
    for case in cases(file) {
        let mut query = expand_text(case["query"].as_str().unwrap_or_default());
        if let Some(count) = case["channels"].as_u64() {
            query = (0..count).map(|n| format!("channel=c{n}")).collect::<Vec<_>>().join("&");
        }
        for transport in transports(case) {
            let mut follow = Follow::default().query(&query);
            if transport == Transport::LongPoll && query.contains("wait=") {
                continue; // It would be asked for twice.
            }
            for (name, value) in case["headers"].as_object().into_iter().flatten() {
                follow = follow.header(name, value.as_str().expect("a text"));
            }
            refused(server, transport, &follow, &case["expect"], name_of(case)).await;
        }
    }
    cases(file).len()
}

async fn refused(server: &Server, transport: Transport, follow: &Follow, expect: &Value, name: &str) {
    let (kind, status) =
        (expect["kind"].as_str().expect("a kind"), expect["status"].as_u64().expect("a status"));
    let what = format!("{name:?}, {transport:?}");
    let is_stream = transport == Transport::Sse && ![401, 403].contains(&status);
    let opened = Follower::try_open(server.public(), transport, follow).await.expect("an answer");
    let response: Response = match opened {
        Err(response) => *response,
        Ok(mut follower) if is_stream => {
            assert!(
                matches!(follower.hear().await, Heard::Retry(500..=60_000)),
                "{what}: retry: comes first"
            );
            let (close, after) = follower.closed().await;
            assert_eq!(close["code"], expect["close"], "{what}: {close}");
            assert_eq!(close["reason"], kind, "{what}: {close}");
            assert!(close["retry_ms"].is_u64(), "{what}: {close}");
            assert!(matches!(after.as_slice(), [Heard::End { is_clean: true }]), "{what}: {after:?}");
            return;
        }
        Ok(mut follower) => match follower.hear().await {
            Heard::Refused(response) => *response,
            other => panic!("{what}: not refused: {other:?}"),
        },
    };
    assert!(!is_stream, "{what}: an EventSource would give up for good: {}", response.status());
    assert_eq!(u64::from(response.status()), status, "{what}: {}", response.text());
    assert_eq!(response.problem(), kind, "{what}");
}

/// `messages.json`, as frames and as bodies.
///
/// # Panics
/// When a case does not hold.
pub async fn run_messages(server: &Server, file: &Value) -> usize {
    for (number, case) in cases(file).iter().enumerate() {
        let text = match case["message_text"].as_str() {
            Some(text) => expand_text(text),
            None => expand(&case["message"]).to_string(),
        };
        let is_for = |place: &str| case["only"].as_array().is_none_or(|only| only.iter().any(|o| o == place));
        if is_for("websocket") {
            said_as_frame(server, case, &text, number).await;
        }
        if is_for("post") {
            said_as_body(server, case, &text).await;
        }
    }
    cases(file).len()
}

async fn said_as_frame(server: &Server, case: &Value, text: &str, number: usize) {
    let name = name_of(case);
    let follows = case["follows"].as_array().cloned().unwrap_or_else(|| vec![json!("a")]);
    let follow = Follow::channels(follows.iter().map(|channel| channel.as_str().expect("a name")));
    let mut client = Follower::open(server.public(), Transport::WebSocket, &follow).await;
    client.state().await;
    for seq in 1..=2 {
        client.say(text).await;
        let answer = client.object().await.value;
        assert_eq!(answer["seq"], seq, "{name}: {answer}");
        check_answer(case, &answer, name);
    }
    // The connection has stayed, and hears what is published.
    server.publish(json!({"channel": "a", "data": {"after": number}})).await;
    assert_eq!(client.event().await.json(), json!({"after": number}), "{name}");
}

async fn said_as_body(server: &Server, case: &Value, text: &str) {
    let name = name_of(case);
    let response = http::post(server.public(), "/v1/messages", &[], text).await;
    match case["expect"]["nack"].as_str() {
        None => {
            assert_eq!(response.status(), 200, "{name}: {}", response.text());
            let ack = response.json();
            assert_eq!(ack["seq"], 1, "{name}: {ack}");
            check_answer(case, &ack, name);
        }
        Some(kind) => assert_eq!(response.problem(), kind, "{name}"),
    }
}

fn check_answer(case: &Value, answer: &Value, name: &str) {
    let expect = &case["expect"];
    if let Some(ack) = expect.get("ack") {
        assert_eq!(answer["type"], "ack", "{name}: {answer}");
        assert_eq!(answer.get("ref"), ack.get("ref"), "{name}: {answer}");
        assert!(answer["pos"].is_string(), "{name}: {answer}");
        return;
    }
    assert_eq!(answer["type"], "nack", "{name}: {answer}");
    assert_eq!(answer["error"]["title"], expect["nack"], "{name}: {answer}");
    if let Some(reference) = expect.get("ref") {
        assert_eq!(answer.get("ref"), Some(reference), "{name}: {answer}");
    }
}

/// `publish.json`: nothing of a refused publish arrives.
///
/// # Panics
/// When a case does not hold.
pub async fn run_publish_refusals(server: &Server, file: &Value) -> usize {
    let mut client = Follower::open(server.public(), Transport::Sse, &Follow::channels(["a", "b"])).await;
    client.state().await;
    for case in cases(file) {
        let text = match case["body_text"].as_str() {
            Some(text) => expand_text(text),
            None => expand(&case["body"]).to_string(),
        };
        let response = server.try_publish(&text).await;
        let name = name_of(case);
        assert_eq!(response.status(), case["expect"]["status"].as_u64().expect("a status") as u16, "{name}");
        assert_eq!(response.problem(), case["expect"]["kind"].as_str().expect("a kind"), "{name}");
    }
    let last = unique("last", "publish");
    server.publish(json!({"channel": "a", "data": last})).await;
    assert_eq!(client.event().await.json(), last, "nothing came before it");
    cases(file).len()
}
