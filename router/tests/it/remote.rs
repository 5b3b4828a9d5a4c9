//! Nodes of other processes: the same router behind a socket.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_deliver::{Dialer, Metrics, Remote, server};
use tidegate_link::{RouterLink, UpstreamMessage};
use tidegate_tenure::{Outcome, WantFrom};
use tidegate_vocab::{Channel, ConnectionId, ErrorKind, Incarnation, Payload, UserId};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::delivery::publish_large;
use crate::harness::{PATIENCE, TestNode, TestRouter, eventually};

/// The server of a router, and the router as nodes elsewhere see it.
struct Served {
    remote: Arc<Remote>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Served {
    async fn start(router: &TestRouter) -> Self {
        let metrics = Metrics::register(&prometheus::Registry::new()).expect("registers");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has an address");
        let link = Arc::clone(&router.router) as Arc<dyn RouterLink>;
        let serving = server(link, Incarnation(1), None, metrics.clone());
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            serving.serve(listener, async { drop(stopped.await) }).await.expect("serves");
        });
        Self { remote: Dialer { key: None, metrics }.remote(address), stop, server }
    }

    async fn attach(&self) -> TestNode {
        TestNode::on(self.remote.attach(Incarnation::random()).await.expect("attaches"))
    }

    /// The router first, as its process does.
    async fn close(self, router: TestRouter) {
        router.router.shutdown().await;
        self.stop.send(()).expect("the server runs");
        tokio::time::timeout(PATIENCE, self.server).await.expect("in time").expect("ends well");
        router.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_elsewhere_hears_what_one_here_hears() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let served = Served::start(&router).await;
    let (here, elsewhere) = (TestNode::attach(&router).await, served.attach().await);
    assert_eq!(here.follow("a", WantFrom::Now).await, Outcome::Fresh);
    assert_eq!(elsewhere.follow("a", WantFrom::Now).await, Outcome::Fresh);
    for n in 0..300 {
        router.publish("a", &n.to_string()).await;
    }
    let all: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    eventually("all of a", || (here.data("a") == all && elsewhere.data("a") == all).then_some(())).await;
    let late = served.attach().await;
    late.follow("a", WantFrom::Start).await;
    eventually("all of the past", || (late.data("a") == all).then_some(())).await;
    served.close(router).await;
}

/// More than all queues and windows on the way hold: the router's queue fills, the tenure falls behind and catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_node_elsewhere_falls_behind_and_catches_up() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let served = Served::start(&router).await;
    let slow = served.attach().await;
    slow.follow("a", WantFrom::Now).await;
    slow.read(false);
    let count = 700;
    publish_large(&router, count).await;
    eventually("a tenure is behind", || {
        (router.metric("tidegate_router_tenures_behind") > 0.0).then_some(())
    })
    .await;
    slow.read(true);
    eventually("the slow node has all", || (slow.events("a").len() == count).then_some(())).await;
    for (n, data) in slow.data("a").iter().enumerate() {
        assert!(data.starts_with(&format!("\"{n} ")), "event {n} is in its place");
    }
    assert!(!slow.is_lost("a") && !slow.is_lost("*"));
    served.close(router).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_stream_of_a_node_elsewhere_closes_the_older() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let served = Served::start(&router).await;
    let incarnation = Incarnation::random();
    let mut older = served.remote.attach(incarnation).await.expect("attaches");
    let newer = TestNode::on(served.remote.attach(incarnation).await.expect("attaches"));
    let ended = async { while older.from_router.next(64).await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the older ends");
    newer.follow("a", WantFrom::Now).await;
    router.publish("a", "1").await;
    newer.hears("a", &["1"]).await;
    eventually("one stream is left", || (router.metric("tidegate_router_streams") == 1.0).then_some(()))
        .await;
    served.close(router).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_elsewhere_stands_where_it_would_stand_here() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let served = Served::start(&router).await;
    let message = |seq| UpstreamMessage {
        connection: ConnectionId(1, 2),
        user: Some(UserId::parse("alice").expect("valid")),
        channel: Channel::parse("a").expect("valid"),
        payload: Payload::Json(Bytes::from_static(b"1")),
        seq,
        trace_parent: None,
    };
    let here = router.router.upstream(message(1)).await.expect("accepted");
    let elsewhere = served.remote.upstream(message(2)).await.expect("accepted");
    assert_eq!((elsewhere.epoch, elsewhere.partition), (here.epoch, here.partition));
    assert_eq!(elsewhere.offset, here.offset.next());
    let remote = Arc::clone(&served.remote);
    served.close(router).await;
    let refused = remote.upstream(message(3)).await.expect_err("nobody is there");
    assert_eq!(refused.kind, ErrorKind::Draining);
}
