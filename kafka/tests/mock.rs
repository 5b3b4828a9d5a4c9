//! Errors of brokers that no real one returns on demand: librdkafka's own mock cluster does.

#[path = "support/waits.rs"]
mod waits;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};
use tidegate_eventlog::{AppendError, EventLog, ReadError};
use tidegate_kafka::{EpochSource, KafkaLog, KafkaOptions, Verify};
use tidegate_vocab::{Offset, PartitionCounts, PartitionId, Topic};

use self::waits::{P, eventually, put, soon, take, values};

const Q: PartitionId = PartitionId { topic: Topic::Events, number: 1 };

type Cluster = MockCluster<'static, DefaultProducerContext>;

async fn open(brokers: i32) -> (Cluster, Arc<KafkaLog>) {
    let cluster = MockCluster::new(brokers).expect("mock cluster");
    let mut options = KafkaOptions::new(cluster.bootstrap_servers(), PartitionCounts::same(2));
    options.topic_prefix = "mock.".into();
    options.verify = Verify::Partitions;
    options.epoch_source = EpochSource::Fixed;
    // The mock checks no sequence numbers: with several requests under way it would take a later one before an
    // earlier one that it refused, which no broker does.
    let one_at_a_time = ("max.in.flight.requests.per.connection".into(), "1".into());
    options.properties = BTreeMap::from([one_at_a_time]);
    // In newer versions its answers name the leader, which crashes it when there is none.
    cluster.apiversion(RDKafkaApiKey::Produce, None, Some(9)).expect("version");
    cluster.apiversion(RDKafkaApiKey::Fetch, None, Some(11)).expect("version");
    for topic in Topic::ALL {
        let partitions = i32::try_from(options.counts.of(topic)).expect("few");
        cluster.create_topic(&options.topic_name(topic), partitions, brokers).expect("topic");
    }
    let log = KafkaLog::open(options).await.expect("log opens");
    (cluster, log)
}

/// Appends so many without waiting in between, and demands that all are there once, in that order.
async fn append_in_order(log: &KafkaLog, count: usize) {
    let end = log.high_watermark(P).await.expect("high watermark");
    let queued: Vec<_> =
        (0..count).map(|i| log.append(P, Bytes::new(), Bytes::from(i.to_string()))).collect();
    for (i, append) in queued.into_iter().enumerate() {
        let place = append.await.expect("retried until it is acked");
        assert_eq!(place.offset, Offset(end.0 + i as u64), "in order, and none twice");
    }
    let mut stream = log.consume(P, end);
    let rows = take(&mut stream, count).await;
    assert_eq!(values(&rows), (0..count).map(|i| i.to_string()).collect::<Vec<_>>());
    assert_eq!(log.high_watermark(P).await, Ok(Offset(end.0 + count as u64)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passing_errors_are_retried_in_order_and_without_duplicates() {
    let (cluster, log) = open(3).await;
    append_in_order(&log, 100).await;
    for code in [
        Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ] {
        eprintln!("{code:?}");
        cluster.request_errors(RDKafkaApiKey::Produce, &[code, code]);
        append_in_order(&log, 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_that_stay_are_answered_and_told_apart() {
    let (cluster, log) = open(1).await;
    cluster.request_errors(RDKafkaApiKey::Produce, &[Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    let answer = put(&*log, P, "too large").await;
    assert!(matches!(answer, Err(AppendError::Unavailable { .. })), "it was refused: {answer:?}");
    put(&*log, P, "fits").await.expect("acked");

    let lasting = vec![Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT; 2000];
    cluster.request_errors(RDKafkaApiKey::Produce, &lasting);
    let began = Instant::now();
    let answer = put(&*log, P, "doubtful").await;
    assert!(matches!(answer, Err(AppendError::Indeterminate { .. })), "it may have been written: {answer:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    eventually("appends go on", Duration::from_secs(10), || async { put(&*log, P, "again").await.is_ok() })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_go_and_come_back() {
    let (cluster, log) = open(2).await;
    put(&*log, P, "before").await.expect("acked");
    let mut stream = log.consume(P, Offset(0));
    take(&mut stream, 1).await;
    for broker in [1, 2] {
        cluster.broker_down(broker).expect("down");
    }
    let began = Instant::now();
    let answer = put(&*log, P, "meanwhile").await;
    eprintln!("answered after {:?}: {answer:?}", began.elapsed());
    assert!(matches!(answer, Err(AppendError::Unavailable { .. } | AppendError::Indeterminate { .. })));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    eventually("health tells", Duration::from_secs(10), || async { log.health().is_err() }).await;
    let answer = soon("an answer", log.read(P, Offset(0), 10, 1000)).await;
    assert!(matches!(answer, Err(ReadError::Unavailable { .. })), "{answer:?}");
    for broker in [1, 2] {
        cluster.broker_up(broker).expect("up");
    }
    eventually("health tells", Duration::from_secs(10), || async { log.health().is_ok() }).await;
    eventually("appends go on", Duration::from_secs(10), || async { put(&*log, P, "after").await.is_ok() })
        .await;
    let rows = take(&mut stream, 1).await;
    assert!(["meanwhile", "after"].contains(&&*values(&rows)[0]), "the stream goes on by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_without_leader_blocks_no_other() {
    let (cluster, log) = open(3).await;
    put(&*log, P, "before").await.expect("acked");
    put(&*log, Q, "before").await.expect("acked");
    cluster.partition_leader("mock.events", 0, None).expect("no leader");
    // More than one partition may have in flight: what is above is refused at once, and nothing of it is written.
    let mut queued = Vec::new();
    for i in 0..5000 {
        queued.push(log.append(P, Bytes::new(), Bytes::from(i.to_string())));
    }
    let refused = soon("an answer", queued.pop().expect("one")).await;
    assert_eq!(refused, Err(AppendError::Busy));
    let asking: Vec<_> = (0..40)
        .map(|_| {
            let log = Arc::clone(&log);
            tokio::spawn(async move { (log.high_watermark(P).await, log.read(P, Offset(0), 1, 1).await) })
        })
        .collect();
    for i in 0..20 {
        let began = Instant::now();
        put(&*log, Q, &i.to_string()).await.expect("the other partition takes appends");
        log.high_watermark(Q).await.expect("and answers");
        log.read(Q, Offset(0), 10, 1000).await.expect("and is read");
        assert!(began.elapsed() < Duration::from_secs(2), "at once, not in {:?}", began.elapsed());
    }
    eventually("questions about it are answered at once", Duration::from_secs(10), || async {
        let began = Instant::now();
        let answer = log.high_watermark(P).await;
        matches!(answer, Err(ReadError::Unavailable { .. })) && began.elapsed() < Duration::from_millis(50)
    })
    .await;
    for task in asking {
        let _ = soon("an answer", task).await.expect("no panic");
    }
    let first = soon("an answer", queued.swap_remove(0)).await;
    assert!(matches!(first, Err(AppendError::Unavailable { .. })), "it was never sent: {first:?}");
    drop(queued);
    cluster.partition_leader("mock.events", 0, Some(2)).expect("a leader");
    eventually("it goes on", Duration::from_secs(15), || async { put(&*log, P, "after").await.is_ok() })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_cannot_go_on_is_replaced() {
    let (cluster, log) = open(1).await;
    put(&*log, P, "before").await.expect("acked");
    // The first answer leaves open whether it was written, the second that a retry would write it once only: here
    // an idempotent producer ends.
    let errors = [Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, Code::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID];
    cluster.request_errors(RDKafkaApiKey::Produce, &errors);
    let answer = put(&*log, P, "doubtful").await;
    assert!(matches!(answer, Err(AppendError::Indeterminate { .. })), "{answer:?}");
    eventually("appends go on", Duration::from_secs(10), || async { put(&*log, P, "after").await.is_ok() })
        .await;
    append_in_order(&log, 100).await;
    assert_eq!(log.stats().producers_rebuilt, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_is_bounded_when_no_broker_answers() {
    let (cluster, log) = open(1).await;
    let _told = log.assignments();
    put(&*log, P, "before").await.expect("acked");
    let mut stream = log.consume(P, Offset(1));
    cluster.broker_down(1).expect("down");
    let left = log.append(P, Bytes::new(), Bytes::from_static(b"left"));
    let began = Instant::now();
    let closing = Arc::clone(&log);
    tokio::task::spawn_blocking(move || closing.close()).await.expect("no panic");
    eprintln!("closed in {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(16), "{:?}", began.elapsed());
    assert!(soon("an answer", left).await.is_err());
    assert!(matches!(soon("an answer", stream.next()).await, Err(ReadError::Unavailable { .. })));
    assert!(log.health().is_err());
}

#[tokio::test]
async fn properties_that_librdkafka_lacks_are_refused_by_name() {
    let mut options = KafkaOptions::new("127.0.0.1:1", PartitionCounts::same(1));
    options.verify = Verify::Partitions;
    options.properties = BTreeMap::from([("security.protocol".into(), "ssl".into())]);
    let Err(error) = KafkaLog::open(options).await else { panic!("there is no TLS") };
    assert!(error.to_string().contains("security.protocol"), "{error}");
}
