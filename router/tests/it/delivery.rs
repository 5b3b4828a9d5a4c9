//! From the log to nodes: order, slow nodes, newer streams.

use std::sync::atomic::Ordering;

use tidegate_link::RouterLink as _;
use tidegate_router::Api;
use tidegate_tenure::{Outcome, WantFrom};
use tidegate_vocab::{Incarnation, LogEpoch, Offset};

use crate::harness::{TestNode, TestRouter, event, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_is_heard_by_every_follower_and_by_nobody_else() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let (one, other) = (TestNode::attach(&router).await, TestNode::attach(&router).await);
    one.follow("a", WantFrom::Now).await;
    one.follow("b", WantFrom::Now).await;
    other.follow("a", WantFrom::Now).await;
    for n in 0..20 {
        router.publish("a", &n.to_string()).await;
        router.publish("b", &n.to_string()).await;
    }
    let all: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    eventually("all of a and b", || (one.data("a") == all && one.data("b") == all).then_some(())).await;
    eventually("all of a", || (other.data("a") == all).then_some(())).await;
    assert!(other.data("b").is_empty());
    assert_eq!(router.metric("tidegate_router_pushes_total"), 60.0);
    assert_eq!(router.metric("tidegate_router_events_wanted_total"), 60.0);
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_another_log_or_from_the_future_is_told() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let pos: tidegate_vocab::Position = router.publish("a", "1").await.parse().expect("a position");
    let node = TestNode::attach(&router).await;
    let foreign = WantFrom::Next { epoch: LogEpoch(1), offset: Offset(0) };
    let outcome = node.follow("a", foreign).await;
    assert_eq!(outcome, Outcome::Lost(tidegate_tenure::LostReason::Epoch));
    let future = WantFrom::Next { epoch: pos.epoch, offset: Offset(1_000_000) };
    let node = TestNode::attach(&router).await;
    assert_eq!(node.follow("a", future).await, Outcome::Lost(tidegate_tenure::LostReason::BadCursor));
    router.publish("a", "2").await;
    node.hears("a", &["2"]).await;
    router.close().await;
}

/// More than the stream's 8 MiB and the ring's 4 MiB wait while the node does not read: it goes on from the log, in
/// order and without a hole, and a neighbour notices nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_node_falls_behind_the_ring_and_catches_up() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let (slow, quick) = (TestNode::attach(&router).await, TestNode::attach(&router).await);
    slow.follow("a", WantFrom::Now).await;
    quick.follow("a", WantFrom::Now).await;
    slow.read(false);
    let count = 700;
    publish_large(&router, count).await;
    eventually("the quick node has all", || (quick.events("a").len() == count).then_some(())).await;
    eventually("a tenure is behind", || {
        (router.metric("tidegate_router_tenures_behind") > 0.0).then_some(())
    })
    .await;
    slow.read(true);
    eventually("the slow node has all", || (slow.events("a").len() == count).then_some(())).await;
    for (n, data) in slow.data("a").iter().enumerate() {
        assert!(data.starts_with(&format!("\"{n} ")), "event {n} is in its place");
    }
    assert!(router.metric("tidegate_router_replay_reads_total") > 0.0, "the log was read for it");
    assert!(!slow.is_lost("a") && !slow.is_lost("*"));
    router.close().await;
}

/// What retention took while the node did not read is told, and the rest comes in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_node_is_told_what_retention_took() {
    let directory = tempfile::tempdir().expect("directory");
    let (router, faults) = TestRouter::open_faulty(directory.path()).await;
    let slow = TestNode::attach(&router).await;
    slow.follow("a", WantFrom::Now).await;
    slow.read(false);
    let count = 700;
    publish_large(&router, count).await;
    eventually("a tenure is behind", || {
        (router.metric("tidegate_router_tenures_behind") > 0.0).then_some(())
    })
    .await;
    let start = 400;
    faults.start.store(start, Ordering::SeqCst);
    slow.read(true);
    let last = || slow.data("a").last().is_some_and(|data| data.starts_with("\"699 ")).then_some(());
    eventually("the slow node is at the end", last).await;
    assert!(slow.is_lost("*"));
    let offsets: Vec<u64> =
        slow.events("a").iter().filter_map(|event| event.offset).map(|offset| offset.0).collect();
    let behind = offsets.iter().position(|offset| *offset >= start).expect("some are left");
    let is_whole = |part: &[u64]| part.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    assert!(is_whole(&offsets[behind..]), "no hole behind the loss: {offsets:?}");
    assert!(is_whole(&offsets[..behind]), "no hole before the loss: {offsets:?}");
    router.close().await;
}

/// More than a stream and the ring hold: 40 KB each, in batches.
pub(crate) async fn publish_large(router: &TestRouter, count: usize) {
    let filler = "x".repeat(40_000);
    for first in (0..count).step_by(100) {
        let items = (first..first + 100).map(|n| Ok(event("a", &format!("\"{n} {filler}\"")))).collect();
        let results = router.router.publish_batch(Api::Local, items).await.expect("taken");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_stream_of_a_node_closes_the_older() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let incarnation = Incarnation::random();
    let mut older = router.router.attach(incarnation).await.expect("attaches");
    let newer = TestNode::on(router.router.attach(incarnation).await.expect("attaches"));
    while older.from_router.next(64).await.is_some() {}
    newer.follow("a", WantFrom::Now).await;
    router.publish("a", "1").await;
    newer.hears("a", &["1"]).await;
    eventually("one stream is left", || (router.metric("tidegate_router_streams") == 1.0).then_some(()))
        .await;
    drop(newer);
    eventually("no stream is left", || (router.metric("tidegate_router_streams") == 0.0).then_some(())).await;
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_streams_and_refuses_what_comes() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let mut stream = router.router.attach(Incarnation::random()).await.expect("attaches");
    router.router.shutdown().await;
    while stream.from_router.next(64).await.is_some() {}
    assert!(router.router.ready().is_err());
    let refused = router.try_publish(event("a", "1")).await.expect_err("refused");
    assert_eq!(refused.problem.kind, tidegate_vocab::ErrorKind::Draining);
    assert!(router.router.attach(Incarnation::random()).await.is_err());
    router.close().await;
}
