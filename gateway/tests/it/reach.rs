//! Direct messages: taken by every connection of the user or not counted, and never on an old word.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prometheus::Registry;
use tidegate_gateway::{AuthConfig, Gateway, GatewayConfig, Secret};
use tidegate_link::RouterLink;
use tidegate_router::Router;
use tidegate_router::publish::Data;
use tidegate_router::users::{Told, direct_request};
use tokio::sync::watch;

use crate::harness::{
    Client, Reticent, RouterProcess, SECRET, counts, eventually, gateway_config, is_fresh, token,
};

async fn tell(router: &Router, data: u64) -> Told {
    let data = Data::Json(Bytes::from(data.to_string()));
    let told = router.direct(direct_request(vec!["alice".into()], None, data)).await.expect("well formed");
    told[0].1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_message_needs_no_owner_of_the_inbox_but_a_fresh_word() {
    let directory = tempfile::tempdir().expect("directory");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let process = RouterProcess::start(directory.path(), any).await;
    let link = Arc::new(Reticent {
        router: Arc::clone(&process.router),
        is_silent: AtomicBool::new(false),
        is_closed: true,
    });
    let named = BTreeMap::from([("router".to_owned(), Arc::clone(&link) as Arc<dyn RouterLink>)]);
    let (routers, watching) = watch::channel(named);
    let registry = Registry::new();
    let auth = AuthConfig { hmac_secret: Some(Secret::new(SECRET)), ..gateway_config().auth };
    let config = GatewayConfig { auth, ..gateway_config() };
    let gateway = Gateway::start(config, watching, counts(), &registry, None).expect("starts");
    eventually("the gateway can be asked", || process.router.list_nodes().len() == 1).await;
    eventually("somebody vouches", || is_fresh(&registry)).await;

    assert_eq!(tell(&process.router, 0).await.accepted, 0, "she is not there yet");
    let query = format!("&token={}", token("alice", 1_000));
    let mut alice = Client::try_connect(gateway.local_addr(), &query).await.expect("let in");
    let mut bob = Client::try_connect(gateway.local_addr(), &format!("&token={}", token("bob", 1_000)))
        .await
        .expect("let in");
    // Before the first `state` it is held behind it, after that it goes out, though the channels are pending all the while.
    let first = tell(&process.router, 1).await;
    assert_eq!((first.routed, first.accepted), (1, 1));
    alice.hear("state").await;
    alice.hears_events(1..2).await;
    let second = tell(&process.router, 2).await;
    assert_eq!((second.routed, second.accepted, second.written), (1, 1, 1));
    alice.hears_events(2..3).await;
    bob.hear("state").await;
    bob.hears_nothing(Duration::from_millis(200)).await;

    link.is_silent.store(true, Ordering::SeqCst);
    eventually("nobody vouches any more", || !is_fresh(&registry)).await;
    let refused = tell(&process.router, 3).await;
    assert_eq!((refused.routed, refused.accepted, refused.unanswered), (0, 0, 1), "it is not held for later");
    link.is_silent.store(false, Ordering::SeqCst);
    eventually("somebody vouches again", || is_fresh(&registry)).await;
    assert_eq!(tell(&process.router, 4).await.accepted, 1);
    alice.hears_events(4..5).await;
    tokio::time::timeout(Duration::from_secs(10), gateway.stop()).await.expect("it stops");
    eventually("the router has let go of the node", || process.router.list_nodes().is_empty()).await;
    drop((routers, link));
    process.stop().await;
}
