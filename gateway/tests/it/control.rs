//! What is delivered while nobody vouches for what is revoked: nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prometheus::Registry;
use tidegate_gateway::{AuthConfig, Gateway, GatewayConfig, Secret};
use tidegate_link::RouterLink;
use tidegate_vocab::limits::CONTROL_FRESH_MS;
use tidegate_vocab::{Revocation, RevocationScope, UserId};
use tokio::sync::watch;

use crate::harness::{
    Client, Reticent, RouterProcess, SECRET, counts, eventually, gateway_config, is_fresh, token,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_delivered_while_nobody_vouches_for_what_is_revoked() {
    let directory = tempfile::tempdir().expect("directory");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let process = RouterProcess::start(directory.path(), any).await;
    let link = Arc::new(Reticent {
        router: Arc::clone(&process.router),
        is_silent: AtomicBool::new(false),
        is_closed: false,
    });
    let named = BTreeMap::from([("router".to_owned(), Arc::clone(&link) as Arc<dyn RouterLink>)]);
    let (routers, watching) = watch::channel(named);
    let registry = Registry::new();
    let auth = AuthConfig { hmac_secret: Some(Secret::new(SECRET)), ..gateway_config().auth };
    let config = GatewayConfig { auth, ..gateway_config() };
    let gateway = Gateway::start(config, watching, counts(), &registry, None).expect("starts");
    eventually("the gateway is ready", || gateway.ready().is_ok()).await;

    let mut anonymous = Client::connect(gateway.local_addr(), "").await;
    let mut alice = Client::connect(gateway.local_addr(), &format!("&token={}", token("alice", 1_000))).await;
    process.publish(0).await;
    for client in [&mut anonymous, &mut alice] {
        client.hears_events(0..1).await;
    }

    link.is_silent.store(true, Ordering::SeqCst);
    let silent_since = Instant::now();
    eventually("nobody vouches any more", || !is_fresh(&registry)).await;
    assert!(
        silent_since.elapsed() < Duration::from_millis(CONTROL_FRESH_MS + 2_500),
        "it is noticed in time"
    );
    let scope = RevocationScope::IssuedBefore(1_001);
    let revocation = Revocation { user: UserId::parse("alice").expect("valid"), scope };
    process.router.revoke(&revocation).await.expect("in the log");
    process.publish(1).await;
    for client in [&mut anonymous, &mut alice] {
        client.hears_nothing(Duration::from_millis(700)).await;
    }

    link.is_silent.store(false, Ordering::SeqCst);
    // Who may hear it hears it; who may not is told why, and hears nothing first.
    anonymous.hears_events(1..2).await;
    assert_eq!(alice.hears_its_end().await, "token_revoked");
    let refused =
        Client::try_connect(gateway.local_addr(), &format!("&token={}", token("alice", 1_000))).await;
    assert_eq!(refused.err(), Some(401));
    let mut again = Client::connect(gateway.local_addr(), &format!("&token={}", token("alice", 1_001))).await;
    process.publish(2).await;
    again.hears_events(2..3).await;

    // Also while it is held a gateway stops.
    link.is_silent.store(true, Ordering::SeqCst);
    eventually("nobody vouches any more", || !is_fresh(&registry)).await;
    process.publish(3).await;
    again.hears_nothing(Duration::from_millis(300)).await;
    tokio::time::timeout(Duration::from_secs(10), gateway.stop()).await.expect("it stops");
    drop((anonymous, again, routers));
    drop(link);
    process.stop().await;
}
