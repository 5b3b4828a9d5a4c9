//! What goes wrong around the log, done to a real Apache Kafka.

#[path = "support/broker.rs"]
mod broker;
#[path = "support/waits.rs"]
mod waits;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tidegate_eventlog::{AppendError, Assignment, EventLog, ReadError};
use tidegate_kafka::topics::{self, Severity};
use tidegate_kafka::{KafkaLog, OpenError};
use tidegate_vocab::{Offset, PartitionId, Topic};
use tokio::sync::mpsc;

use self::broker::Broker;
use self::waits::{P, eventually, put, soon, take, values};

fn client<T: rdkafka::config::FromClientConfig>(broker: &Broker, settings: &[(&str, &str)]) -> T {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap());
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config.create().expect("client")
}

fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    client(broker, &[])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_has_another_epoch() {
    let broker = Broker::shared();
    let log = broker.open("anew").await;
    let epochs = Topic::ALL.map(|topic| log.epoch(topic));
    for i in 0..3 {
        put(&*log, P, &format!("old {i}")).await.expect("acked");
    }
    let deleted =
        admin(&broker).delete_topics(&["anew.events"], &AdminOptions::new()).await.expect("answered");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    // The deletion goes on after its answer: until then there is nothing to make.
    eventually("the topic is made anew", Duration::from_secs(20), || async {
        topics::apply(&broker.options("anew")).await.is_ok_and(|applied| !applied.done.is_empty())
    })
    .await;
    let made = Instant::now();
    eventually("the epoch changes", Duration::from_secs(5), || async {
        log.epoch(Topic::Events) != epochs[0]
    })
    .await;
    eprintln!("epoch changed {:?} after the topic was made anew", made.elapsed());
    assert_eq!(log.epoch(Topic::Inbox), epochs[1], "the others keep theirs");
    // Filled above the offset where a consumer stood: that is what librdkafka does not tell.
    eventually("appends go on", Duration::from_secs(20), || async { put(&*log, P, "new").await.is_ok() })
        .await;
    for i in 0..10 {
        put(&*log, P, &format!("new {i}")).await.expect("acked");
    }
    let mut stream = log.consume(P, Offset(0));
    assert!(values(&take(&mut stream, 1).await)[0].starts_with("new"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_partition_count_and_a_missing_topic_refuse_appends() {
    let broker = Broker::shared();
    let log = broker.open("counts").await;
    put(&*log, P, "before").await.expect("acked");
    let more = NewPartitions::new("counts.events", 3);
    let results = admin(&broker).create_partitions([&more], &AdminOptions::new()).await.expect("answered");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    eventually("it is noticed", Duration::from_secs(5), || async { log.health().is_err() }).await;
    let Err(AppendError::Unavailable { reason }) = put(&*log, P, "after").await else { panic!("refused") };
    assert!(reason.contains("has 3 partitions and 2 are configured"), "{reason}");
    let elsewhere = PartitionId { topic: Topic::Inbox, number: 0 };
    put(&*log, elsewhere, "other topics go on").await.expect("acked");
    let findings = topics::check(&broker.options("counts")).await.expect("checked");
    assert!(matches!(&findings[..], [one] if one.severity == Severity::Error), "{findings:?}");

    let deleted =
        admin(&broker).delete_topics(&["counts.inbox"], &AdminOptions::new()).await.expect("answered");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    eventually("it is noticed", Duration::from_secs(10), || async {
        matches!(put(&*log, elsewhere, "gone").await,
            Err(AppendError::Unavailable { reason }) if reason.contains("tidegate topics apply"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_records_and_an_open_transaction_do_not_stall_anyone() {
    let broker = Broker::shared();
    let log = broker.open("foreign").await;
    let foreign: BaseProducer = client(&broker, &[("transactional.id", "stranger")]);
    let foreign = tokio::task::spawn_blocking(move || {
        foreign.init_transactions(Duration::from_secs(20)).expect("initialised");
        foreign.begin_transaction().expect("begun");
        foreign
            .send(BaseRecord::<(), [u8]>::to("foreign.events").partition(0).payload(&[0xff, 0]))
            .expect("queued");
        // Neither key nor value.
        foreign.send(BaseRecord::<(), ()>::to("foreign.events").partition(0)).expect("queued");
        foreign.flush(Duration::from_secs(20)).expect("sent");
        foreign
    })
    .await
    .expect("no panic");
    let ours = put(&*log, P, "ours").await.expect("acked");
    assert_eq!(log.high_watermark(P).await, Ok(Offset(ours.offset.0 + 1)), "above what is not committed");
    let mut stream = log.consume(P, Offset(0));
    let rows = take(&mut stream, 3).await;
    assert_eq!((rows[0].key.len(), &rows[0].value[..]), (0, &[0xff, 0][..]));
    assert_eq!((rows[1].key.len(), rows[1].value.len()), (0, 0));
    assert_eq!(rows[2].value, "ours");
    assert_eq!(log.read(P, Offset(0), 10, 1000).await.expect("readable"), rows);
    tokio::task::spawn_blocking(move || foreign.abort_transaction(Duration::from_secs(20)).expect("aborted"))
        .await
        .expect("no panic");
    // The end is now the mark of the abortion, which is no record: a read must not wait for one.
    let end = Ok(Offset(ours.offset.0 + 2));
    eventually("it is marked", Duration::from_secs(10), || async { log.high_watermark(P).await == end })
        .await;
    assert_eq!(log.read(P, Offset(ours.offset.0 + 1), 10, 1000).await, Ok(vec![]));
    put(&*log, P, "behind it").await.expect("acked");
    assert_eq!(values(&take(&mut stream, 1).await), ["behind it"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_took_is_told_to_who_wants_it() {
    let broker = Broker::shared();
    let log = broker.open("retention").await;
    for i in 0..10 {
        put(&*log, P, &i.to_string()).await.expect("acked");
    }
    let mut before = TopicPartitionList::new();
    before.add_partition_offset("retention.events", 0, rdkafka::Offset::Offset(6)).expect("added");
    admin(&broker).delete_records(&before, &AdminOptions::new()).await.expect("deleted");
    let gone = Err(ReadError::BelowStart { start: Offset(6) });
    assert_eq!(log.read(P, Offset(5), 10, 1000).await, gone);
    let mut stream = log.consume(P, Offset(5));
    assert_eq!(soon("an answer", stream.next()).await, gone);
    assert_eq!(soon("an answer", stream.next()).await, gone, "as often as it is asked");
    drop(stream);
    let mut stream = log.consume(P, Offset(6));
    assert_eq!(values(&take(&mut stream, 4).await), ["6", "7", "8", "9"]);
}

/// Follows what a member is told until it owns exactly so many partitions.
async fn owns(told: &mut mpsc::Receiver<Assignment>, owned: &mut BTreeSet<PartitionId>, wanted: usize) {
    while owned.len() != wanted {
        match soon("a change of what is owned", told.recv()).await.expect("open") {
            Assignment::Assigned(partition) => assert!(owned.insert(partition), "assigned once"),
            Assignment::Revoked(partition) => assert!(owned.remove(&partition), "revoked what was assigned"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_partitions_and_one_that_closes_leaves_at_once() {
    let broker = Broker::shared();
    let first = broker.open("members").await;
    let (mut told_first, mut owned_first) = (first.assignments(), BTreeSet::new());
    owns(&mut told_first, &mut owned_first, 4).await;
    let second = KafkaLog::open(broker.options("members")).await.expect("opens");
    let (mut told_second, mut owned_second) = (second.assignments(), BTreeSet::new());
    let began = Instant::now();
    owns(&mut told_second, &mut owned_second, 2).await;
    owns(&mut told_first, &mut owned_first, 2).await;
    eprintln!("shared {:?} after the second came", began.elapsed());
    assert!(owned_first.is_disjoint(&owned_second));

    let began = Instant::now();
    let closing = tokio::task::spawn_blocking({
        let first = first.clone();
        move || {
            let began = Instant::now();
            first.close();
            began.elapsed()
        }
    });
    owns(&mut told_second, &mut owned_second, 4).await;
    let took = began.elapsed();
    eprintln!(
        "all owned {took:?} after the first began to close, which took {:?}",
        closing.await.expect("no panic")
    );
    assert!(took < Duration::from_secs(4), "long before the session would have run out, not {took:?}");
    owns(&mut told_first, &mut owned_first, 0).await;
    assert!(put(&*first, P, "closed").await.is_err());

    second.commit(P, Offset(1));
    put(&*second, P, "committed").await.expect("acked");
    let reader: rdkafka::consumer::BaseConsumer = client(&broker, &[("group.id", "members-events")]);
    eventually("the commit is seen", Duration::from_secs(10), || async {
        use rdkafka::consumer::Consumer as _;
        let mut asked = TopicPartitionList::new();
        asked.add_partition("members.events", 0);
        let seen = reader.committed_offsets(asked, Duration::from_secs(5)).expect("answered");
        seen.elements()[0].offset() == rdkafka::Offset::Offset(1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_consume_one_partition_and_streams_come_and_go() {
    let broker = Broker::shared();
    let log = broker.open("several").await;
    for i in 0..20 {
        put(&*log, P, &i.to_string()).await.expect("acked");
    }
    let mut streams: Vec<_> = (0..3).map(|i| log.consume(P, Offset(i * 5))).collect();
    for (i, stream) in streams.iter_mut().enumerate() {
        assert_eq!(take(stream, 20 - i * 5).await[0].offset, Offset(i as u64 * 5));
    }
    put(&*log, P, "all").await.expect("acked");
    for stream in &mut streams {
        assert_eq!(values(&take(stream, 1).await), ["all"]);
    }
    // The same place in librdkafka is used again and again, from any offset, with or without a look.
    for round in 0..30_u64 {
        streams.pop();
        let mut stream = log.consume(P, Offset(round % 20));
        if round % 3 != 0 {
            assert_eq!(take(&mut stream, 1).await[0].offset, Offset(round % 20));
        }
        streams.insert(0, stream);
    }
    drop(streams);
    let mut stream = log.consume(P, Offset(7));
    assert_eq!(take(&mut stream, 14).await[0].offset, Offset(7));
    put(&*log, P, "after all").await.expect("acked");
    assert_eq!(values(&take(&mut stream, 1).await), ["after all"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_verified_and_put_right() {
    let broker = Broker::shared();
    let Err(OpenError::Unusable(reasons)) = KafkaLog::open(broker.options("wrong")).await else {
        panic!("there are no topics")
    };
    assert_eq!(reasons.len(), Topic::COUNT);
    assert!(
        reasons[0].contains("wrong.events") && reasons[0].contains("tidegate topics apply"),
        "{reasons:?}"
    );
    drop(broker.open("wrong").await);
    let wrong = AlterConfig::new(ResourceSpecifier::Topic("wrong.events"))
        .set("retention.ms", "1000")
        .set("message.timestamp.type", "CreateTime")
        .set("segment.bytes", "2000000");
    admin(&broker).alter_configs([&wrong], &AdminOptions::new()).await.expect("altered");
    eventually("it is found", Duration::from_secs(10), || async {
        topics::check(&broker.options("wrong")).await.expect("checked").len() == 2
    })
    .await;
    let Err(OpenError::Unusable(reasons)) = KafkaLog::open(broker.options("wrong")).await else {
        panic!("the settings are wrong")
    };
    assert!(
        reasons.iter().any(|reason| reason.contains("message.timestamp.type is CreateTime")),
        "{reasons:?}"
    );
    let applied = topics::apply(&broker.options("wrong")).await.expect("applied");
    assert_eq!((applied.done.len(), applied.left.len()), (1, 0), "{applied:?}");
    drop(broker.open("wrong").await);
}
