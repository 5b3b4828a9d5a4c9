//! Records that nobody can read, foreign takeovers, and a log that fails.

use bytes::Bytes;
use prost::Message as _;
use tidegate_eventlog::EventLog as _;
use tidegate_proto::log::v1 as proto;
use tidegate_tenure::WantFrom;
use tidegate_vocab::{Channel, PartitionCounts, PartitionId};

use crate::harness::{TestNode, TestRouter, eventually};

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
