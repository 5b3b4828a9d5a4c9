//! Tokens that are taken back before they end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_e2e::{Follow, Follower, SECRET, Server, Setup, Transport, http, now_s, token};

use crate::Rig;

fn strict() -> Setup {
    Setup::new().set("auth.hmac_secret", SECRET).set("auth.insecure", false).set("auth.anonymous", false)
}

fn with(user: &str, issued_s: u64, id: &str) -> Follow {
    follow("a", user, issued_s, id)
}

fn follow(channel: &str, user: &str, issued_s: u64, id: &str) -> Follow {
    let claims = json!({"sub": user, "iat": issued_s, "jti": id, "exp": now_s() + 600});
    Follow::channels([channel]).header("authorization", &format!("Bearer {}", token(&claims)))
}

async fn revoke(server: &Server, body: Value) -> http::Response {
    http::post(server.api(), "/v1/revoke", &[], &body.to_string()).await
}

async fn open_all(server: &Server, follow: &Follow) -> Vec<Follower> {
    let mut clients = Vec::new();
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Ndjson] {
        let mut client = Follower::open(server.public(), transport, follow).await;
        client.state().await;
        clients.push(client);
    }
    clients
}

async fn all_end(clients: Vec<Follower>) {
    for mut client in clients {
        let (close, _) = client.closed().await;
        assert_eq!((&close["code"], &close["reason"]), (&json!(4401), &json!("token_revoked")), "{close}");
    }
}

#[tokio::test]
async fn a_revoked_token_ends_its_connections_and_opens_no_more() {
    let server = Server::start(strict()).await;
    let neighbour = Rig::neighbour(&server, &follow("neighbour", "neighbour", now_s(), "n")).await;
    let mut rig = Rig { server, neighbour, count: 0 };
    let issued = now_s() - 60;
    let (one, other) = (with("alice", issued, "t1"), with("alice", issued, "t2"));
    let (first, second) = (open_all(&rig.server, &one).await, open_all(&rig.server, &other).await);

    let begun = Instant::now();
    let answer = revoke(&rig.server, json!({"user": "alice", "token_id": "t1"})).await;
    assert!(answer.status() == 200 && answer.json()["pos"].is_string(), "{}", answer.text());
    all_end(first).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "everywhere within 5 s");
    rig.refused_everywhere(&one, 401, "token_revoked").await;
    let said = http::post(
        rig.server.public(),
        "/v1/messages",
        &[(
            "authorization",
            &format!(
                "Bearer {}",
                token(&json!({"sub": "alice", "iat": issued, "jti": "t1", "exp": now_s() + 600}))
            ),
        )],
        r#"{"channel":"a","data":1}"#,
    )
    .await;
    assert_eq!((said.status(), said.problem().as_str()), (401, "token_revoked"));

    assert_eq!(revoke(&rig.server, json!({"user": "alice"})).await.status(), 200);
    all_end(second).await;
    rig.refused_everywhere(&other, 401, "token_revoked").await;
    // One that is issued afterwards is good.
    open_all(&rig.server, &with("alice", now_s() + 2, "t3")).await;
    rig.end().await;
}

#[tokio::test]
async fn what_is_revoked_stays_so_over_a_restart() {
    let mut server = Server::start(strict()).await;
    let follow = with("alice", now_s() - 60, "t1");
    assert_eq!(revoke(&server, json!({"user": "alice", "issued_before": now_s()})).await.status(), 200);
    server.restart().await;
    match Follower::try_open(server.public(), Transport::Ndjson, &follow).await {
        Ok(Err(refusal)) => {
            assert_eq!((refusal.status(), refusal.problem().as_str()), (401, "token_revoked"))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_revocation_is_refused() {
    let server = Server::start(strict()).await;
    for body in [
        json!({}),
        json!({"user": ""}),
        json!({"user": "a b"}),
        json!({"user": "alice", "token_id": ""}),
        json!({"user": "alice", "token_id": "x".repeat(257)}),
        json!({"user": "alice", "token_id": "x", "issued_before": 1}),
        json!({"user": "alice", "issued_before": -1}),
        json!({"user": "alice", "issued_befor": 1}),
        json!([1]),
    ] {
        let answer = revoke(&server, body.clone()).await;
        assert_eq!((answer.status(), answer.problem().as_str()), (400, "bad_request"), "{body}");
    }
}
