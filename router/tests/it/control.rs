//! The control topic as a router tells it to nodes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use tidegate_eventlog::EventLog as _;
use tidegate_link::{ControlAnswer, ControlAsk, ControlStanding, RouterLink as _};
use tidegate_proto::log::v1 as proto;
use tidegate_vocab::{LogEpoch, Offset, PartitionId, Revocation, RevocationScope, Topic, UserId, limits};

use crate::harness::{PATIENCE, TestRouter, eventually};

const CONTROL: PartitionId = PartitionId { topic: Topic::Control, number: 0 };

fn of(user: &str) -> Revocation {
    let user = UserId::parse(user).expect("valid");
    Revocation { user, scope: RevocationScope::IssuedBefore(7) }
}

async fn ask(router: &TestRouter, epoch: LogEpoch, next: u64) -> ControlAnswer {
    router.router.control(ControlAsk { epoch, next: Offset(next) }).await.expect("answered")
}

/// Asks from the start until the answer is as wanted.
async fn until(router: &TestRouter, wanted: impl Fn(&ControlAnswer) -> bool) -> ControlAnswer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(router, LogEpoch(0), 0).await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "not in time: {answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn users(answer: &ControlAnswer) -> Vec<&str> {
    answer.records.iter().map(|(_, revocation)| revocation.user.as_str()).collect()
}

async fn append(router: &TestRouter, value: Vec<u8>) {
    router.log.append(CONTROL, Bytes::from_static(b"x"), value.into()).await.expect("appended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_told_from_where_a_node_has_read() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let epoch = router.log.epoch(Topic::Control);
    let empty = until(&router, |answer| matches!(answer.standing, ControlStanding::Fresh { .. })).await;
    assert_eq!((empty.epoch, empty.next, users(&empty)), (epoch, Offset(0), vec![]));
    for user in ["a", "b", "c"] {
        let position = router.router.revoke(&of(user)).await.expect("in the log");
        assert_eq!(position.epoch, epoch);
    }
    let all = until(&router, |answer| answer.next == Offset(3)).await;
    assert_eq!(users(&all), ["a", "b", "c"]);
    assert_eq!(all.records[1], (Offset(1), of("b")));
    assert_eq!(users(&ask(&router, epoch, 2).await), ["c"]);
    assert_eq!(users(&ask(&router, epoch, 3).await), [""; 0]);
    // Another log's place is no place here; one ahead of this router gets nothing new and takes nothing back.
    assert_eq!(users(&ask(&router, LogEpoch(epoch.0 ^ 1), 2).await), ["a", "b", "c"]);
    assert_eq!(users(&ask(&router, epoch, 99).await), [""; 0]);
    // A garbled record is a dead letter, and what comes after it counts.
    append(&router, b"\xff\xff not a record".to_vec()).await;
    router.router.revoke(&of("d")).await.expect("in the log");
    let all = until(&router, |answer| answer.next == Offset(5)).await;
    assert_eq!(users(&all), ["a", "b", "c", "d"]);
    assert_eq!(router.metric("tidegate_router_dead_letters_total"), 1.0);
    router.close().await;
    let router = TestRouter::open(directory.path()).await;
    let all = until(&router, |answer| answer.next == Offset(5)).await;
    assert_eq!(users(&all), ["a", "b", "c", "d"], "from the log's start");
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_records_are_told_piece_by_piece() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let count = limits::CONTROL_RECORDS_AT_ONCE as u64 + 5;
    let revoking = (0..count).map(|n| {
        let router = &router;
        async move { router.router.revoke(&of(&format!("u{n}"))).await.expect("in the log") }
    });
    futures::future::join_all(revoking).await;
    let first = until(&router, |answer| answer.records.len() == limits::CONTROL_RECORDS_AT_ONCE).await;
    let epoch = first.epoch;
    eventually("all are read", || {
        (router.metric("tidegate_router_control_records") == count as f64).then_some(())
    })
    .await;
    let first = ask(&router, epoch, 0).await;
    assert_eq!(
        (first.standing, first.next),
        (ControlStanding::More, Offset(limits::CONTROL_RECORDS_AT_ONCE as u64))
    );
    let rest = ask(&router, epoch, first.next.0).await;
    assert_eq!((rest.records.len(), rest.next), (5, Offset(count)));
    assert!(matches!(rest.standing, ControlStanding::Fresh { .. }), "{:?}", rest.standing);
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_vouches_past_a_record_of_a_newer_version() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    router.router.revoke(&of("a")).await.expect("in the log");
    append(&router, b"\xff\xff not a record".to_vec()).await;
    append(&router, proto::Record { version: 99, body: None }.encode_to_vec()).await;
    let wanted =
        |answer: &ControlAnswer| answer.standing == ControlStanding::Loading && answer.next == Offset(2);
    let answer = until(&router, wanted).await;
    assert_eq!(users(&answer), ["a"], "what stands before it counts");
    let begun = Instant::now();
    let looks = || (begun.elapsed() > Duration::from_millis(1_200)).then_some(());
    eventually("it has looked again, twice", looks).await;
    assert_eq!(router.metric("tidegate_router_dead_letters_total"), 1.0, "and is not read again");
    let reason = eventually("not ready", || router.router.ready().err()).await;
    assert!(reason.contains("version 99"), "{reason}");
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_log_and_what_retention_took_start_over() {
    let directory = tempfile::tempdir().expect("directory");
    let (router, faults) = TestRouter::open_faulty(directory.path()).await;
    for user in ["a", "b", "c"] {
        router.router.revoke(&of(user)).await.expect("in the log");
    }
    let before = until(&router, |answer| answer.next == Offset(3)).await;
    faults.start.store(2, Ordering::SeqCst);
    let after = until(&router, |answer| answer.start == Offset(2)).await;
    assert_eq!((users(&after), after.next), (vec!["c"], Offset(3)));
    faults.start.store(0, Ordering::SeqCst);
    faults.epoch.store(1, Ordering::SeqCst);
    let anew = until(&router, |answer| answer.epoch != before.epoch && answer.next == Offset(3)).await;
    assert_eq!(users(&anew), ["a", "b", "c"]);
    faults.epoch.store(0, Ordering::SeqCst);
    until(&router, |answer| answer.epoch == before.epoch && answer.next == Offset(3)).await;
    router.close().await;
}
