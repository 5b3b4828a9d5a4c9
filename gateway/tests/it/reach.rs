//! Direct messages: taken by every connection of the user or not counted, and never on an old word.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jsonwebtoken::{EncodingKey, Header};
use prometheus::Registry;
use serde_json::json;
use tidegate_gateway::{AuthConfig, Gateway, GatewayConfig, Secret};
use tidegate_link::{
    BoxFuture, ControlAnswer, ControlAsk, DeliverStream, NodeHello, ReachStream, Routed, RouterLink, Settled,
    UpstreamMessage,
};
use tidegate_router::Router;
use tidegate_router::publish::Data;
use tidegate_router::users::{Told, direct_request};
use tidegate_vocab::{Event, Incarnation, Offset, PartitionId, Position, Problem};
use tokio::sync::watch;

use crate::harness::{Client, RouterProcess, counts, eventually, gateway_config};

const SECRET: [u8; 32] = [7; 32];

/// A router that nobody can attach to, so that every Want stays open; what it says of the control topic ends when told to.
struct Unattached {
    router: Arc<Router>,
    is_silent: AtomicBool,
}

impl RouterLink for Unattached {
    fn attach(&self, _: Incarnation) -> BoxFuture<'_, Result<DeliverStream, Problem>> {
        Box::pin(std::future::pending())
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

fn token(user: &str) -> String {
    let claims = json!({"sub": user, "exp": 4_000_000_000_u64});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(&SECRET)).expect("signed")
}

async fn tell(router: &Router, data: u64) -> Told {
    let data = Data::Json(Bytes::from(data.to_string()));
    let told = router.direct(direct_request(vec!["alice".into()], None, data)).await.expect("well formed");
    told[0].1
}

fn is_fresh(registry: &Registry) -> bool {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == "tidegate_gateway_control_fresh");
    family.expect("registered").get_metric()[0].get_gauge().get_value() == 1.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_message_needs_no_owner_of_the_inbox_but_a_fresh_word() {
    let directory = tempfile::tempdir().expect("directory");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let process = RouterProcess::start(directory.path(), any).await;
    let link =
        Arc::new(Unattached { router: Arc::clone(&process.router), is_silent: AtomicBool::new(false) });
    let named = BTreeMap::from([("router".to_owned(), Arc::clone(&link) as Arc<dyn RouterLink>)]);
    let (routers, watching) = watch::channel(named);
    let registry = Registry::new();
    let auth = AuthConfig { hmac_secret: Some(Secret::new(SECRET)), ..gateway_config().auth };
    let config = GatewayConfig { auth, ..gateway_config() };
    let gateway = Gateway::start(config, watching, counts(), &registry, None).expect("starts");
    eventually("the gateway can be asked", || process.router.list_nodes().len() == 1).await;
    eventually("somebody vouches", || is_fresh(&registry)).await;

    assert_eq!(tell(&process.router, 0).await.accepted, 0, "she is not there yet");
    let query = format!("&token={}", token("alice"));
    let mut alice = Client::try_connect(gateway.local_addr(), &query).await.expect("let in");
    let mut bob =
        Client::try_connect(gateway.local_addr(), &format!("&token={}", token("bob"))).await.expect("let in");
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
