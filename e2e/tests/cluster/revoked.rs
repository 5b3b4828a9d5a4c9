//! Tokens are taken back on every node, and stay so whoever dies.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_e2e::{
    Cluster, Follow, Follower, Heard, Node, SECRET, Shape, Transport, eventually, http, now_s, token,
};

use crate::in_time;

fn with(user: &str, id: &str) -> Follow {
    let claims = json!({"sub": user, "iat": now_s() - 60, "jti": id, "exp": now_s() + 600});
    Follow::channels(["r:1"]).header("authorization", &format!("Bearer {}", token(&claims)))
}

async fn is_refused(cluster: &Cluster, gateway: usize, follow: &Follow) -> bool {
    let address = cluster.gateways[gateway].public();
    match Follower::try_open(address, Transport::Ndjson, follow).await {
        Ok(Err(refusal)) => refusal.status() == 401 && refusal.problem() == "token_revoked",
        _ => false,
    }
}

/// Asks again under its key while no owner can tell what became of it.
async fn publish(router: &Node, data: u64) {
    let body = json!({"channel": "r:1", "data": data, "idempotency_key": format!("revoked-{data}")});
    eventually("it is published", async || {
        let answer = router.try_publish(&[], &body).await;
        (answer.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_in_force_everywhere_whoever_dies() {
    let shape = Shape::new("revoked").gateway_set("auth.hmac_secret", SECRET);
    let mut cluster = Cluster::start(shape).await;
    let (alice, bob) = (with("alice", "t1"), with("bob", "t2"));
    let (mut gone, mut steady) = (Vec::new(), Vec::new());
    for gateway in &cluster.gateways {
        for transport in [Transport::WebSocket, Transport::Sse, Transport::Ndjson] {
            for (follow, into) in [(&alice, &mut gone), (&bob, &mut steady)] {
                let mut client = Follower::open(gateway.public(), transport, follow).await;
                client.state().await;
                into.push(client);
            }
        }
    }
    let begun = Instant::now();
    let body = json!({"user": "alice", "token_id": "t1"}).to_string();
    let answer = http::post(cluster.routers[1].api(), "/v1/revoke", &[], &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    for mut client in gone {
        let (close, _) = in_time(client.closed()).await;
        assert_eq!(close["reason"], "token_revoked", "{close}");
    }
    let took = begun.elapsed();
    eprintln!("closed on every node within {took:?}");
    assert!(took < Duration::from_secs(5), "promise 5");
    for gateway in 0..cluster.gateways.len() {
        assert!(is_refused(&cluster, gateway, &alice).await);
    }

    // One router less, and nobody is held up; then none, and a gateway that begins anew waits until one has read all.
    cluster.routers[0].kill9();
    publish(&cluster.routers[1], 1).await;
    for client in &mut steady {
        assert_eq!(in_time(client.event()).await.json(), 1);
    }
    cluster.kill_routers().await;
    cluster.gateways[0].kill9();
    cluster.gateways[0].spawn_again();
    let address = cluster.gateways[0].public();
    eventually("the gateway refuses while it knows nothing", async || {
        match Follower::try_open(address, Transport::Ndjson, &bob).await {
            Ok(Err(refusal)) if refusal.status() == 503 => Some(()),
            Ok(Ok(_)) => panic!("let in before it knows what is revoked"),
            _ => None,
        }
    })
    .await;
    cluster.spawn_routers_again();
    cluster.wait_until_ready().await;
    assert!(is_refused(&cluster, 0, &alice).await, "it is read from the log's start");
    publish(&cluster.routers[0], 2).await;
    // The first three were connected to the gateway that was killed.
    for client in &mut steady[3..] {
        assert_eq!(in_time(client.event()).await.json(), 2);
    }
    let mut back = Follower::open(address, Transport::WebSocket, &bob).await;
    back.state().await;
    assert!(!matches!(back.hear_within(Duration::from_millis(100)).await, Some(Heard::End { .. })));
}
