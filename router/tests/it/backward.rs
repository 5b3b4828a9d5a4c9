//! A router whose history is gone begins at the log's tail and loads the rest backwards.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_tenure::{LostReason, Outcome, WantFrom};
use tidegate_vocab::{Offset, Position};

use crate::faulty_log::Faults;
use crate::harness::{TestNode, TestRouter, event, eventually};

/// More than one chunk and one window's worth of keys, repeats among them: every cursor gets what it got before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_history_comes_back_from_the_log_without_its_repeats() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let mut positions: Vec<Position> = Vec::new();
    for first in (0..3_000).step_by(500) {
        let items = (first..first + 500).map(|n| {
            let mut item = event("a", &n.to_string());
            item.idempotency_key = Some(format!("key {n}"));
            Ok(item)
        });
        let items: Vec<_> = items.collect();
        for _ in 0..2 {
            let published = router.router.publish_batch(tidegate_router::Api::Local, items.clone()).await;
            let places = published.expect("accepted").into_iter().map(crate::harness::pos);
            positions.extend(places.map(|pos| pos.parse::<Position>().expect("a position")));
        }
    }
    positions.dedup();
    let all: Vec<String> = (0..3_000).map(|n| n.to_string()).collect();
    router.close_and_forget_history().await;
    let router = TestRouter::open_with(directory.path(), |config| config.tail_ms = 0).await;
    let node = TestNode::attach(&router).await;
    let from = WantFrom::Next { epoch: positions[0].epoch, offset: Offset(0) };
    assert_eq!(node.follow("a", from).await, Outcome::Recovered);
    eventually("all, each once and in order", || (node.data("a") == all).then_some(())).await;
    assert!(router.metric("tidegate_router_backfill_chunks_total") >= 5.0, "in chunks");
    router.publish("a", "\"live\"").await;
    eventually("and live", || (node.data("a").len() == 3_001).then_some(())).await;
    router.close().await;
}

/// What is older than any channel keeps is neither loaded nor waited for: such a cursor is told at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_loaded_that_retention_excludes() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let first: Position = router.publish("a", "1").await.parse().expect("a position");
    let begun = std::time::Instant::now();
    eventually("time passes", || (begun.elapsed().as_millis() > 50).then_some(())).await;
    router.publish("a", "2").await;
    router.close_and_forget_history().await;
    let configure = |config: &mut tidegate_router::RouterConfig| {
        config.tail_ms = 0;
        config.history_ages_ms = [20; 2];
    };
    let router = TestRouter::open_with(directory.path(), configure).await;
    let node = TestNode::attach(&router).await;
    let outcome = node.follow("a", WantFrom::Next { epoch: first.epoch, offset: first.offset }).await;
    assert_eq!(outcome, Outcome::Lost(LostReason::Expired));
    router.close().await;
}

/// The log ends in offsets that hold no record, as the marks of foreign transactions: a new owner begins all the same, and
/// loads what lies below them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_in_nothing_readable_is_served() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let first: Position = router.publish("a", "0").await.parse().expect("a position");
    for n in 1..5 {
        router.publish("a", &n.to_string()).await;
    }
    let mark: Position = router.publish("a", "\"mark\"").await.parse().expect("a position");
    router.close_and_forget_history().await;
    let faults = Arc::new(Faults::default());
    faults.mark_before.store(mark.offset.next().0, Ordering::SeqCst);
    let configure = |config: &mut tidegate_router::RouterConfig| config.tail_ms = 0;
    let (router, _) = TestRouter::open_faulty_from_the_start(directory.path(), configure, faults).await;
    let node = TestNode::attach(&router).await;
    let from = WantFrom::Next { epoch: first.epoch, offset: Offset(0) };
    assert_eq!(node.follow("a", from).await, Outcome::Recovered);
    node.hears("a", &["0", "1", "2", "3", "4"]).await;
    router.close().await;
}
