//! Verdicts, ephemeral events, and the key.

use bytes::Bytes;
use tidegate_deliver::{Dialer, Key};
use tidegate_link::{ControlAsk, ControlStanding, Routed, RouterLink as _, Settled};
use tidegate_vocab::{ErrorKind, Incarnation, LogEpoch, Offset, RevocationScope};

use crate::harness::{PARTITION, Served, event, message};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_and_ephemeral_events_go_there_and_back() {
    let served = Served::start(None).await;
    let link = served.dial();
    let verdicts = [Settled::Fresh, Settled::DuplicateOf(Offset(0)), Settled::Conflict, Settled::Unreadable];
    for (offset, verdict) in verdicts.into_iter().enumerate() {
        assert_eq!(link.resolve(PARTITION, Offset(offset as u64)).await, Ok(verdict));
    }
    let refused = link.resolve(PARTITION, Offset(4)).await.expect_err("not the owner");
    assert_eq!((refused.kind, refused.detail.as_str()), (ErrorKind::LogUnavailable, "not mine"));
    assert_eq!(link.ephemeral(event(None, &Bytes::from_static(b"123"))).await, Ok(Routed::Nodes(3)));
    assert_eq!(link.ephemeral(event(None, &Bytes::new())).await, Ok(Routed::NotOwner));
    let durable = link.ephemeral(event(Some(1), &Bytes::new())).await.expect_err("has an offset");
    assert_eq!(durable.kind, ErrorKind::BadRequest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_records_and_their_freshness_go_there_and_back() {
    let served = Served::start(None).await;
    let ask = ControlAsk { epoch: LogEpoch(9), next: Offset(7) };
    let answer = served.dial().control(ask).await.expect("answered");
    assert_eq!((answer.epoch, answer.next), (LogEpoch(9), Offset(8)));
    assert_eq!(answer.standing, ControlStanding::Fresh { age_ms: 42 });
    let [(Offset(7), revocation)] = answer.records.as_slice() else { panic!("{answer:?}") };
    assert_eq!(
        (revocation.user.as_str(), &revocation.scope),
        ("alice", &RevocationScope::IssuedBefore(1_800_000_000))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_key_opens() {
    let key = |text: &str| Some(Key::parse(text).expect("a key"));
    let mut served = Served::start(key("the key of the cluster".replace(' ', "-").as_str())).await;
    for wrong in [None, key("another-key-altogether"), key("the-key-of-the-clusteR")] {
        let link = Dialer { key: wrong, metrics: served.metrics.clone() }.remote(served.wire.address);
        let unauthorized = Some(ErrorKind::Unauthorized);
        assert_eq!(link.attach(Incarnation(1)).await.err().map(|problem| problem.kind), unauthorized);
        assert_eq!(link.upstream(message("a", 1)).await.err().map(|problem| problem.kind), unauthorized);
        assert_eq!(link.resolve(PARTITION, Offset(0)).await.err().map(|problem| problem.kind), unauthorized);
        let ephemeral = link.ephemeral(event(None, &Bytes::new())).await;
        assert_eq!(ephemeral.err().map(|problem| problem.kind), unauthorized);
    }
    assert!(served.nodes.try_recv().is_err() && served.router.said.lock().expect("no panic").is_empty());
    let key = key("the-key-of-the-cluster");
    let link = Dialer { key, metrics: served.metrics.clone() }.remote(served.wire.address);
    served.attach(&*link).await;
    assert!(link.upstream(message("a", 1)).await.is_ok());
}
