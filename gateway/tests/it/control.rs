//! What is delivered while nobody vouches for what is revoked: nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jsonwebtoken::{EncodingKey, Header};
use prometheus::Registry;
use serde_json::json;
use tidegate_gateway::{AuthConfig, Gateway, GatewayConfig, Secret};
use tidegate_link::{
    BoxFuture, ControlAnswer, ControlAsk, DeliverStream, NodeHello, ReachStream, Routed, RouterLink, Settled,
    UpstreamMessage,
};
use tidegate_router::Router;
use tidegate_vocab::limits::CONTROL_FRESH_MS;
use tidegate_vocab::{
    Event, Incarnation, Offset, PartitionId, Position, Problem, Revocation, RevocationScope, UserId,
};
use tokio::sync::watch;

use crate::harness::{Client, RouterProcess, counts, eventually, gateway_config};

const SECRET: [u8; 32] = [7; 32];

/// A router that, when told to, says nothing of the control topic, and everything else as ever.
struct Reticent {
    router: Arc<Router>,
    is_silent: AtomicBool,
}

impl RouterLink for Reticent {
    fn attach(&self, node: Incarnation) -> BoxFuture<'_, Result<DeliverStream, Problem>> {
        self.router.attach(node)
    }

    fn upstream(&self, message: UpstreamMessage) -> BoxFuture<'static, Result<Position, Problem>> {
        self.router.upstream(message)
    }

    fn resolve(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> BoxFuture<'static, Result<Settled, Problem>> {
        self.router.resolve(partition, offset)
    }

    fn control(&self, ask: ControlAsk) -> BoxFuture<'static, Result<ControlAnswer, Problem>> {
        if self.is_silent.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        self.router.control(ask)
    }

    fn reach(&self, node: NodeHello) -> BoxFuture<'_, Result<ReachStream, Problem>> {
        self.router.reach(node)
    }

    fn ephemeral(&self, event: Arc<Event>) -> BoxFuture<'static, Result<Routed, Problem>> {
        self.router.ephemeral(event)
    }
}

fn token(user: &str, issued_s: u64) -> String {
    let claims = json!({"sub": user, "iat": issued_s, "exp": 4_000_000_000_u64});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(&SECRET)).expect("signed")
}

fn is_fresh(registry: &Registry) -> bool {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == "tidegate_gateway_control_fresh");
    family.expect("registered").get_metric()[0].get_gauge().get_value() == 1.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_delivered_while_nobody_vouches_for_what_is_revoked() {
    let directory = tempfile::tempdir().expect("directory");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let process = RouterProcess::start(directory.path(), any).await;
    let link = Arc::new(Reticent { router: Arc::clone(&process.router), is_silent: AtomicBool::new(false) });
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
