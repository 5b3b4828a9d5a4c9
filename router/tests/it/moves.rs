//! Partitions that come and go.

use std::sync::Arc;

use tidegate_eventlog::Assignment;
use tidegate_tenure::WantFrom;
use tidegate_vocab::{Channel, PartitionCounts};

use crate::harness::{TestNode, TestRouter, eventually};

/// Taken away and given back at once, and again: the task that serves on is over before the next begins, what is followed
/// has every event once and in order, and nobody has written the same history twice at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_taken_and_given_back_loses_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let (router, faults) = TestRouter::open_faulty(directory.path()).await;
    let node = TestNode::attach(&router).await;
    node.follow("a", WantFrom::Now).await;
    let id = PartitionCounts::same(2).partition_of(&Channel::parse("a").expect("valid"));
    let assign = faults.assign.lock().expect("lock").clone().expect("assignments are taken");
    let mut all = Vec::new();
    for round in 0..20 {
        all.push(format!("{round}"));
        router.publish("a", &all[round]).await;
        for change in [Assignment::Revoked(id), Assignment::Assigned(id)] {
            assign.send(change).await.expect("the router listens");
        }
        if round % 3 == 0 {
            eventually("it serves again", || router.router.ready().ok()).await;
        }
    }
    eventually("all, once and in order", || (node.data("a") == all).then_some(())).await;
    eventually("it serves again", || router.router.ready().ok()).await;
    assert_eq!(router.metric("tidegate_router_store_errors_total"), 0.0);
    // The gauge follows at its own pace.
    let assigned = || (router.metric("tidegate_router_partitions_assigned") == 4.0).then_some(());
    eventually("all are assigned", assigned).await;
    drop((Arc::clone(&faults), assign));
    faults.assign.lock().expect("lock").take();
    router.close().await;
}
