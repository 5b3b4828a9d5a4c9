//! Publishing through the Rust call: positions, keys, batches, and what survives a restart.

use tidegate_router::Api;
use tidegate_router::publish::{Accepted, Data, PublishRequest, Target};
use tidegate_tenure::{Outcome, WantFrom};
use tidegate_vocab::{ErrorKind, Position, Problem};

use crate::harness::{TestNode, TestRouter, event, eventually, pos};

fn keyed(channel: &str, json: &str, key: &str) -> PublishRequest {
    PublishRequest { idempotency_key: Some(key.into()), ..event(channel, json) }
}

async fn refusal(router: &TestRouter, request: PublishRequest) -> ErrorKind {
    router.try_publish(request).await.expect_err("refused").problem.kind
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_history_positions_and_verdicts() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let first = router.publish("score:1", "{ \"home\": 1 }").await;
    let second = pos(Ok(router.must_publish(keyed("score:1", "2", "goal-2")).await));
    let old: Position = first.parse().expect("a position");
    let new: Position = second.parse().expect("a position");
    assert!(old.epoch == new.epoch && old.partition == new.partition && old.offset < new.offset);
    router.close().await;

    let router = TestRouter::open(directory.path()).await;
    let again = router.must_publish(keyed("score:1", "2", "goal-2")).await;
    let duplicate = Accepted::Durable { pos: second, duplicate: true };
    assert_eq!(again.results[0].outcome, Ok(duplicate));
    assert_eq!(refusal(&router, keyed("score:1", "3", "goal-2")).await, ErrorKind::Conflict);
    router.publish("score:1", "4").await;
    let node = TestNode::attach(&router).await;
    assert_eq!(node.follow("score:1", WantFrom::Start).await, Outcome::Fresh);
    node.hears("score:1", &["{\"home\":1}", "2", "4"]).await;
    assert_eq!(node.events("score:1")[0].offset, Some(old.offset));
    let late = TestNode::attach(&router).await;
    let cursor = WantFrom::Next { epoch: old.epoch, offset: old.offset.next() };
    assert_eq!(late.follow("score:1", cursor).await, Outcome::Recovered);
    late.hears("score:1", &["2", "4"]).await;
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_counts_within_its_channel_and_its_body() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let node = TestNode::attach(&router).await;
    node.follow("a", WantFrom::Now).await;
    let first = pos(Ok(router.must_publish(keyed("a", "[1, 2]", "k")).await));
    let again = router.must_publish(keyed("a", "[1,2]", "k")).await;
    assert_eq!(again.results[0].outcome, Ok(Accepted::Durable { pos: first, duplicate: true }));
    assert_eq!(again.idempotency_key.as_deref(), Some("k"));
    pos(Ok(router.must_publish(keyed("b", "[1,2]", "k")).await));
    assert_eq!(refusal(&router, keyed("a", "[1,3]", "k")).await, ErrorKind::Conflict);
    let named = PublishRequest { event: Some("goal".into()), ..keyed("a", "[1,2]", "k") };
    assert_eq!(refusal(&router, named).await, ErrorKind::Conflict);
    let short = PublishRequest { ttl_ms: Some(1_000), ..keyed("a", "[1,2]", "k") };
    assert_eq!(refusal(&router, short).await, ErrorKind::Conflict);
    router.publish("a", "\"end\"").await;
    node.hears("a", &["[1,2]", "\"end\""]).await;
    assert_eq!(router.metric("tidegate_publish_duplicates_total"), 1.0);
    assert_eq!(router.metric("tidegate_publish_conflicts_total"), 3.0);
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_publishes_with_one_key_are_one_event() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let calls = (0..32).map(|_| router.must_publish(keyed("a", "1", "once")));
    let answers: Vec<_> =
        futures::future::join_all(calls).await.into_iter().map(|published| pos(Ok(published))).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let node = TestNode::attach(&router).await;
    node.follow("a", WantFrom::Start).await;
    node.hears("a", &["1"]).await;
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_everyone_and_many_targets() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let node = TestNode::attach(&router).await;
    for channel in ["user:alice", "everyone", "a"] {
        node.follow(channel, WantFrom::Now).await;
    }
    let targets = vec![
        Target::Channel("a".into()),
        Target::Channel("not a channel".into()),
        Target::User("alice".into()),
        Target::Everyone,
    ];
    let published = router.try_publish(PublishRequest { targets, ..event("", "7") }).await.expect("several");
    assert_eq!(published.failed(), 1);
    let failed = published.results[1].outcome.as_ref().expect_err("bad name");
    assert_eq!(failed.kind, ErrorKind::BadChannel);
    for channel in ["user:alice", "everyone", "a"] {
        node.hears(channel, &["7"]).await;
    }
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_keeps_its_order_and_goes_on_after_a_bad_item() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let mut items: Vec<Result<_, _>> = (0..200).map(|n| Ok(event("a", &n.to_string()))).collect();
    items[7] = Ok(event("a", "{broken"));
    items[9] = Err(Problem::new(ErrorKind::BadRequest, "not even parsed"));
    items[11] = Ok(event("b\n", "1"));
    let results = router.router.publish_batch(Api::Local, items).await.expect("taken");
    let kinds: Vec<_> = results
        .iter()
        .enumerate()
        .filter_map(|(n, result)| Some((n, result.as_ref().err()?.problem.kind)))
        .collect();
    assert_eq!(kinds, [(7, ErrorKind::BadJson), (9, ErrorKind::BadRequest), (11, ErrorKind::BadChannel)]);
    let node = TestNode::attach(&router).await;
    node.follow("a", WantFrom::Start).await;
    let expected: Vec<String> = (0..200).filter(|n| ![7, 9, 11].contains(n)).map(|n| n.to_string()).collect();
    eventually("all of the batch", || (node.data("a") == expected).then_some(())).await;
    let none = router.router.publish_batch(Api::Local, Vec::new()).await.expect_err("empty");
    assert_eq!(none.kind, ErrorKind::BadRequest);
    let many = (0..1001).map(|_| Ok(event("a", "1"))).collect();
    assert_eq!(
        router.router.publish_batch(Api::Local, many).await.expect_err("many").kind,
        ErrorKind::TooMany
    );
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ephemeral_event_reaches_followers_and_no_log() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let node = TestNode::attach(&router).await;
    node.follow("typing", WantFrom::Now).await;
    let ephemeral = |json| PublishRequest { ephemeral: true, ..event("typing", json) };
    let published = router.try_publish(ephemeral("1")).await.expect("routed");
    assert_eq!(published.results[0].outcome, Ok(Accepted::Ephemeral { routed: 1 }));
    assert_eq!(published.idempotency_key, None);
    node.hears("typing", &["1"]).await;
    assert_eq!(node.events("typing")[0].offset, None);
    let nobody = PublishRequest { targets: vec![Target::Channel("empty".into())], ..ephemeral("1") };
    let published = router.try_publish(nobody).await.expect("routed to nobody");
    assert_eq!(published.results[0].outcome, Ok(Accepted::Ephemeral { routed: 0 }));
    let late = TestNode::attach(&router).await;
    late.follow("typing", WantFrom::Start).await;
    router.publish("typing", "2").await;
    late.hears("typing", &["2"]).await;
    let keyed = PublishRequest { idempotency_key: Some("k".into()), ..ephemeral("1") };
    assert_eq!(refusal(&router, keyed).await, ErrorKind::BadRequest);
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_past_its_ttl_is_live_but_not_in_a_replay() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let node = TestNode::attach(&router).await;
    node.follow("a", WantFrom::Now).await;
    pos(Ok(router.must_publish(PublishRequest { ttl_ms: Some(1), ..event("a", "1") }).await));
    router.publish("a", "2").await;
    node.hears("a", &["1", "2"]).await;
    let expires = node.events("a")[0].expires_ms.expect("has a ttl");
    eventually("the event expires", || (now_ms() > expires).then_some(())).await;
    let late = TestNode::attach(&router).await;
    late.follow("a", WantFrom::Start).await;
    late.hears("a", &["2"]).await;
    router.close().await;
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_before_the_log() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let base = || event("a", "1");
    let json = |text: String| PublishRequest { data: Data::Json(text.into()), ..base() };
    let table = [
        ("bad_json", ErrorKind::BadJson, json("{\"a\":".into())),
        ("bad_json: two values", ErrorKind::BadJson, json("1 2".into())),
        ("bad_json: too deep", ErrorKind::BadJson, json("[".repeat(65) + &"]".repeat(65))),
        ("payload_over_the_limit", ErrorKind::TooLarge, json(format!("\"{}\"", "x".repeat(65_535)))),
        (
            "payload_over_the_limit: binary",
            ErrorKind::TooLarge,
            PublishRequest { data: Data::Binary(vec![0; 65_537].into()), ..base() },
        ),
        ("bad_channel_names: empty", ErrorKind::BadChannel, event("", "1")),
        ("bad_channel_names: space", ErrorKind::BadChannel, event("a b", "1")),
        ("bad_channel_names: long", ErrorKind::BadChannel, event(&"x".repeat(256), "1")),
        ("bad_channel_names: nobody", ErrorKind::BadChannel, event("user:", "1")),
        (
            "bad user",
            ErrorKind::BadChannel,
            PublishRequest { targets: vec![Target::User(String::new())], ..base() },
        ),
        ("no target", ErrorKind::BadRequest, PublishRequest { targets: Vec::new(), ..base() }),
        (
            "too many targets",
            ErrorKind::TooMany,
            PublishRequest { targets: vec![Target::Everyone; 1001], ..base() },
        ),
        ("event name", ErrorKind::BadEventName, PublishRequest { event: Some("a\nb".into()), ..base() }),
        ("reserved", ErrorKind::BadEventName, PublishRequest { event: Some("tidegate.x".into()), ..base() }),
        ("ttl", ErrorKind::BadRequest, PublishRequest { ttl_ms: Some(0), ..base() }),
        ("empty key", ErrorKind::BadRequest, keyed("a", "1", "")),
        ("long key", ErrorKind::BadRequest, keyed("a", "1", &"k".repeat(129))),
        ("control in key", ErrorKind::BadRequest, keyed("a", "1", "k\n")),
    ];
    for (name, expected, request) in table {
        assert_eq!(refusal(&router, request).await, expected, "{name}");
    }
    pos(Ok(router.must_publish(json(format!("\"{}\"", "x".repeat(65_534)))).await));
    router.close().await;
}
