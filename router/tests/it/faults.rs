//! Records that nobody can read, foreign takeovers, and a log that fails.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message as _;
use tidegate_eventlog::{AppendError, EventLog as _, NewRecord};
use tidegate_proto::log::v1 as proto;
use tidegate_tenure::{LostReason, Outcome, WantFrom};
use tidegate_vocab::{Channel, ErrorKind, Offset, PartitionCounts, PartitionId, Position, Topic};

use crate::faulty_log::AppendFault;
use crate::harness::{PATIENCE, TestNode, TestRouter, event, eventually};

fn partition_of(channel: &str) -> PartitionId {
    PartitionCounts::same(2).partition_of(&Channel::parse(channel).expect("valid"))
}

async fn append(router: &TestRouter, partition: PartitionId, key: &'static str, value: Vec<u8>) {
    router.log.append(partition, Bytes::from_static(key.as_bytes()), value.into()).await.expect("appended");
}

fn takeover() -> Vec<u8> {
    let takeover = proto::Takeover {
        incarnation: Bytes::from_static(&[1; 16]),
        nonce: Bytes::from_static(&[2; 16]),
        address: String::new(),
    };
    proto::Record { version: 1, body: Some(proto::record::Body::Takeover(takeover)) }.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_told_to_its_followers_and_the_partition_moves_on() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let node = TestNode::attach(&router).await;
    node.follow("a", WantFrom::Now).await;
    append(&router, partition_of("a"), "a", b"\xff\xff not a record".to_vec()).await;
    router.publish("a", "2").await;
    node.hears("a", &["2"]).await;
    assert!(node.is_lost("a"));
    assert_eq!(router.metric("tidegate_router_dead_letters_total"), 1.0);
    assert!(router.router.ready().is_ok());
    router.close().await;
}

/// As it was, keyed by where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_kept() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let dead = PartitionId { topic: Topic::Dead, number: 0 };
    let record = NewRecord {
        key: Bytes::from_static(b"a"),
        value: Bytes::from_static(b"\xff\xff not a record"),
        headers: vec![("h".into(), Bytes::from_static(b"1"))],
    };
    let at = router.log.append_record(partition_of("a"), record.clone()).await.expect("appended");
    let mut kept = router.log.consume(dead, Offset(0));
    let copies = tokio::time::timeout(PATIENCE, kept.next()).await.expect("in time").expect("readable");
    let [copy] = copies.as_slice() else { panic!("{copies:?}") };
    let epoch = router.log.epoch(Topic::Events);
    let position = Position::new(epoch, partition_of("a"), at.offset);
    assert_eq!(copy.key, format!("events.{position}"));
    assert_eq!(copy.value, record.value);
    let headers: Vec<_> = copy.headers.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
    let time_ms = at.time_ms.to_string();
    let expected: [(&str, &[u8]); 4] = [
        ("h", b"1"),
        ("tidegate-key", b"a"),
        ("tidegate-reason", b"malformed"),
        ("tidegate-time-ms", time_ms.as_bytes()),
    ];
    assert_eq!(headers, expected);
    assert_eq!(router.metric("tidegate_router_dead_letters_unkept_total"), 0.0);
    drop(kept);
    router.close().await;
}

/// A reader that comes later, even after a restart, is told of the hole, and is live from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_in_the_history_is_told_to_who_reads_over_it() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let first: Position = router.publish("a", "1").await.parse().expect("a position");
    append(&router, partition_of("a"), "a", b"\xff\xff not a record".to_vec()).await;
    let last: Position = router.publish("a", "3").await.parse().expect("a position");
    router.close().await;
    let router = TestRouter::open(directory.path()).await;
    let next = |offset: Offset| WantFrom::Next { epoch: first.epoch, offset };
    let before = TestNode::attach(&router).await;
    assert_eq!(before.follow("a", next(first.offset.next())).await, Outcome::Lost(LostReason::Expired));
    let behind = TestNode::attach(&router).await;
    assert_eq!(behind.follow("a", next(last.offset)).await, Outcome::Recovered);
    behind.hears("a", &["3"]).await;
    let fresh = TestNode::attach(&router).await;
    assert_eq!(fresh.follow("a", WantFrom::Start).await, Outcome::Fresh);
    fresh.hears("a", &["1", "3"]).await;
    router.publish("a", "4").await;
    before.hears("a", &["4"]).await;
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_on_the_wrong_partition_is_a_dead_letter() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let here = partition_of("a");
    let elsewhere = PartitionId { number: 1 - here.number, ..here };
    append(&router, elsewhere, "a", takeover()).await;
    let event = proto::Event { payload: Some(proto::event::Payload::Json("1".into())), ..Default::default() };
    let record = proto::Record { version: 1, body: Some(proto::record::Body::Event(event)) };
    append(&router, elsewhere, "a", record.encode_to_vec()).await;
    eventually("dead letter", || (router.metric("tidegate_router_dead_letters_total") == 1.0).then_some(()))
        .await;
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_with_a_record_of_a_newer_version_is_given_up() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let newer = proto::Record { version: 99, body: None }.encode_to_vec();
    append(&router, partition_of("a"), "a", newer).await;
    let reason = eventually("not ready", || router.router.ready().err()).await;
    assert!(reason.contains("newer version"), "{reason}");
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_foreign_takeover_the_partition_is_taken_back() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let node = TestNode::attach(&router).await;
    node.follow("a", WantFrom::Now).await;
    let before = router.metric("tidegate_router_takeovers_total");
    append(&router, partition_of("a"), "", takeover()).await;
    eventually("tenure ends", || router.router.ready().err()).await;
    router.publish("a", "1").await;
    eventually("tenure begins", || router.router.ready().ok()).await;
    router.publish("a", "2").await;
    node.hears("a", &["1", "2"]).await;
    assert_eq!(router.metric("tidegate_router_takeovers_total"), before + 1.0);
    router.close().await;
}

/// A repeated attempt is one event: where the publisher is told that it is, there it is delivered, and only there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_the_log_has_twice_is_one_event() {
    let directory = tempfile::tempdir().expect("directory");
    let (router, faults) = TestRouter::open_faulty(directory.path()).await;
    let node = TestNode::attach(&router).await;
    node.follow("a", WantFrom::Now).await;
    let before: Position = router.publish("a", "1").await.parse().expect("a position");
    *faults.append.lock().expect("lock") = Some(AppendFault::Repeats);
    let repeated: Position = router.publish("a", "2").await.parse().expect("a position");
    *faults.append.lock().expect("lock") = None;
    assert_eq!(repeated.offset, before.offset.next(), "the first of the two");
    let after: Position = router.publish("a", "3").await.parse().expect("a position");
    assert_eq!(after.offset.0, repeated.offset.0 + 2, "there are two");
    node.hears("a", &["1", "2", "3"]).await;
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failing_log_means_to_a_publisher() {
    let directory = tempfile::tempdir().expect("directory");
    let (router, faults) = TestRouter::open_impatient(directory.path()).await;
    let reason = || "secret path".to_string();
    let table = [
        (AppendFault::Fails(AppendError::Unavailable { reason: reason() }), ErrorKind::LogUnavailable),
        (AppendFault::Fails(AppendError::Busy), ErrorKind::Overloaded),
        (AppendFault::Fails(AppendError::Full { reason: reason() }), ErrorKind::StorageFull),
        (AppendFault::Fails(AppendError::Indeterminate { reason: reason() }), ErrorKind::Indeterminate),
        (AppendFault::NeverAnswers, ErrorKind::Indeterminate),
    ];
    for (fault, kind) in table {
        *faults.append.lock().expect("lock") = Some(fault);
        let refused = router.try_publish(event("a", "1")).await.expect_err("refused");
        assert_eq!(refused.problem.kind, kind);
        assert!(refused.problem.retry_ms.is_some(), "{kind}");
        let key = refused.idempotency_key.expect("names the key to retry with");
        assert_eq!(refused.problem.detail.contains(&key), kind == ErrorKind::Indeterminate, "{kind}");
        assert!(!refused.problem.detail.contains("secret"), "{kind}");
    }
    *faults.append.lock().expect("lock") = None;
    router.publish("a", "2").await;
    router.close().await;
}

/// The retry that the answer asks for finds out what became of the first attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_indeterminate_is_one_event() {
    let directory = tempfile::tempdir().expect("directory");
    let (router, faults) = TestRouter::open_impatient(directory.path()).await;
    *faults.append.lock().expect("lock") = Some(AppendFault::NeverAnswers);
    let refused = router.try_publish(event("a", "1")).await.expect_err("not answered");
    *faults.append.lock().expect("lock") = None;
    let mut again = event("a", "1");
    again.idempotency_key = refused.idempotency_key;
    router.must_publish(again).await;
    let node = TestNode::attach(&router).await;
    node.follow("a", WantFrom::Start).await;
    node.hears("a", &["1"]).await;
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_read_for_a_while_loses_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let (router, faults) = TestRouter::open_faulty(directory.path()).await;
    let node = TestNode::attach(&router).await;
    node.follow("a", WantFrom::Now).await;
    let errors = router.metric("tidegate_router_log_errors_total");
    faults.unreadable.store(true, Ordering::SeqCst);
    router.publish("a", "1").await;
    let noticed = || (router.metric("tidegate_router_log_errors_total") > errors).then_some(());
    eventually("the error is counted", noticed).await;
    faults.unreadable.store(false, Ordering::SeqCst);
    router.publish("a", "2").await;
    node.hears("a", &["1", "2"]).await;
    assert!(!node.is_lost("a") && !node.is_lost("*"));
    faults.unhealthy.store(true, Ordering::SeqCst);
    assert!(router.router.ready().is_err());
    router.close().await;
}

/// Another epoch ends every tenure; old cursors are told, and the history starts anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_log_epoch_ends_the_tenure() {
    let directory = tempfile::tempdir().expect("directory");
    let (router, faults) = TestRouter::open_faulty(directory.path()).await;
    let old: Position = router.publish("a", "1").await.parse().expect("a position");
    faults.epoch.store(1, Ordering::SeqCst);
    eventually("tenures end", || router.router.ready().err()).await;
    eventually("tenures begin", || router.router.ready().ok()).await;
    let new: Position = router.publish("a", "2").await.parse().expect("a position");
    assert_ne!(old.epoch, new.epoch);
    let node = TestNode::attach(&router).await;
    let cursor = WantFrom::Next { epoch: old.epoch, offset: old.offset };
    assert_eq!(node.follow("a", cursor).await, Outcome::Lost(LostReason::Epoch));
    router.close().await;
}
