//! A real Apache Kafka that goes away and comes back, and how long a record takes while it is there.

#[path = "support/broker.rs"]
mod broker;
#[path = "support/waits.rs"]
mod waits;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_eventlog::{AppendError, Appended, Assignment, EventLog, LogRecord, NewRecord};
use tidegate_kafka::KafkaLog;
use tidegate_kafka::topics::{self, TopicSpec};
use tidegate_vocab::{Offset, PartitionCounts, PartitionId, Topic};

use self::broker::Broker;
use self::waits::{P, eventually, put, soon, take, values};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_on_when_kafka_comes_back() {
    let broker = Arc::new(Broker::start());
    let log = broker.open("restart").await;
    let mut told = log.assignments();
    let mut stream = log.consume(P, Offset(0));
    let mut acked = Vec::new();
    for i in 0..20 {
        put(&*log, P, &i.to_string()).await.expect("acked");
        acked.push(i.to_string());
    }
    let stopping = Arc::clone(&broker);
    tokio::task::spawn_blocking(move || stopping.stop()).await.expect("Kafka is ended");
    let began = Instant::now();
    let answer = put(&*log, P, "into the void").await;
    eprintln!("answered after {:?}: {answer:?}", began.elapsed());
    assert!(answer.is_err() && began.elapsed() < Duration::from_secs(9));
    eventually("health tells", Duration::from_secs(10), || async { log.health().is_err() }).await;
    assert!(soon("an answer", log.high_watermark(P)).await.is_err());
    let starting = Arc::clone(&broker);
    tokio::task::spawn_blocking(move || starting.start_again()).await.expect("Kafka is back");
    let began = Instant::now();
    eventually("health tells", Duration::from_secs(20), || async { log.health().is_ok() }).await;
    eprintln!("healthy {:?} after Kafka was back", began.elapsed());
    eventually("appends go on", Duration::from_secs(20), || async { put(&*log, P, "back").await.is_ok() })
        .await;
    eprintln!("appending {:?} after Kafka was back", began.elapsed());
    acked.push("back".into());
    let end = log.high_watermark(P).await.expect("high watermark");
    let rows = take(&mut stream, acked.len()).await;
    assert_eq!(rows.last().map(|last| last.offset.next()), Some(end));
    let seen: Vec<_> = values(&rows).into_iter().filter(|value| value != "into the void").collect();
    assert_eq!(seen, acked, "nothing acked is lost, doubled or out of place");

    // The session may have run out meanwhile: what was taken away comes back.
    let mut owned = BTreeSet::new();
    while owned.len() < 4 {
        match soon("the partitions", told.recv()).await.expect("open") {
            Assignment::Assigned(partition) => _ = owned.insert(partition),
            Assignment::Revoked(partition) => _ = owned.remove(&partition),
        }
    }
}

/// Appends one after the other until so many are acked; what is in doubt is given up for the next.
async fn append_until(
    log: &KafkaLog,
    partition: PartitionId,
    acked: &mut Vec<(Appended, String)>,
    wanted: usize,
) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut number, mut in_doubt) = (acked.len() * 1000, 0);
    while acked.len() < wanted {
        assert!(Instant::now() < deadline, "{partition} takes no appends");
        number += 1;
        match put(log, partition, &number.to_string()).await {
            Ok(place) => acked.push((place, number.to_string())),
            Err(AppendError::Indeterminate { .. }) => in_doubt += 1,
            Err(_) => {}
        }
    }
    in_doubt
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_costs_nothing_that_was_acked() {
    let broker = Broker::start_brokers(3);
    let mut options = broker.options("killed");
    options.counts = PartitionCounts::same(6);
    options.spec = TopicSpec::default();
    assert_eq!(topics::apply(&options).await.expect("topics are made").left, vec![]);
    let log = KafkaLog::open(options).await.expect("opens");
    let mut running = Vec::new();
    for number in 0..6 {
        let (log, partition) = (Arc::clone(&log), PartitionId { topic: Topic::Events, number });
        let (warm, warmed) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let stream = log.consume(partition, Offset(0));
            let mut acked = Vec::new();
            let mut in_doubt = append_until(&log, partition, &mut acked, 200).await;
            // The others may still be at it.
            let _ = warm.send(());
            let began = Instant::now();
            in_doubt += append_until(&log, partition, &mut acked, 1500).await;
            (partition, acked, stream, in_doubt, began.elapsed())
        });
        running.push((task, warmed));
    }
    let mut tasks = Vec::new();
    for (task, warmed) in running {
        warmed.await.expect("no panic");
        tasks.push(task);
    }
    broker.kill(2);
    let mut ended = Vec::new();
    for task in tasks {
        ended.push(task.await.expect("no panic"));
    }
    // What is in doubt on one partition makes the producer begin a new epoch, in which what waits on any of them is
    // repeated: once for each time, and with one record in flight, one record.
    let repeats_limit: u32 = ended.iter().map(|(_, _, _, in_doubt, _)| in_doubt).sum();
    for (partition, acked, mut stream, in_doubt, took) in ended {
        let end = log.high_watermark(partition).await.expect("high watermark");
        let mut rows = Vec::new();
        while rows.last().is_none_or(|last: &LogRecord| last.offset.next() < end) {
            rows.extend(take(&mut stream, 1).await);
        }
        eprintln!(
            "{partition}: {} acked, {in_doubt} in doubt, {} in the log, {took:?}",
            acked.len(),
            rows.len()
        );
        let seen: std::collections::HashMap<_, _> =
            rows.iter().map(|row| (row.offset, String::from_utf8_lossy(&row.value).into_owned())).collect();
        assert_eq!(seen.len(), rows.len(), "no offset comes twice");
        let unique: BTreeSet<_> = seen.values().collect();
        assert!(
            rows.len() - unique.len() <= repeats_limit as usize,
            "nothing is repeated but for what was in doubt"
        );
        assert!(
            acked.iter().all(|(place, value)| seen.get(&place.offset) == Some(value)),
            "each is where it was acked"
        );
        assert!(unique.len() <= acked.len() + in_doubt as usize, "what is called unwritten is not written");
        let mut times = std::collections::HashMap::<_, u32>::new();
        seen.values().for_each(|value| *times.entry(value).or_default() += 1);
        for (place, value) in &acked {
            assert!(times[value] == 1 || place.may_repeat, "{value} is there twice, and its ack denied it");
        }
        assert!(acked.windows(2).all(|pair| pair[0].0.offset < pair[1].0.offset), "in order");
    }
    assert_eq!(log.health(), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_arrives_as_it_was_and_soon() {
    let broker = Broker::start();
    let log = broker.open("latency").await;
    let headers =
        vec![("traceparent".to_owned(), Bytes::from_static(b"00-ab-cd-01")), (String::new(), Bytes::new())];
    let record = NewRecord { key: "k".into(), value: "v".into(), headers };
    let place = log.append_record(P, record.clone()).await.expect("acked");
    let mut stream = log.consume(P, Offset(0));
    let NewRecord { key, value, headers } = record;
    let expected = LogRecord { offset: place.offset, time_ms: place.time_ms, key, value, headers };
    assert_eq!(take(&mut stream, 1).await, std::slice::from_ref(&expected));
    assert_eq!(log.read(P, place.offset, 1, 1).await, Ok(vec![expected]));

    let (mut acks, mut arrivals, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..3000 {
        let began = Instant::now();
        let value = i.to_string();
        let append = put(&*log, P, &value);
        let arrival = async {
            let row = take(&mut stream, 1).await;
            (row, began.elapsed())
        };
        let acked = async { append.await.map(|place| (place, began.elapsed())) };
        let (acked, (row, arrived)) = tokio::join!(acked, arrival);
        let (place, acked) = acked.expect("acked");
        assert_eq!(row[0].offset, place.offset);
        if i >= 1000 {
            acks.push(acked);
            arrivals.push(arrived);
        }
        if i % 100 == 0 {
            let began = Instant::now();
            log.high_watermark(P).await.expect("high watermark");
            reads.push(began.elapsed());
        }
    }
    for (what, mut times) in [("acked", acks), ("arrived", arrivals), ("high watermark", reads)] {
        times.sort();
        let [p50, p99] = [50, 99].map(|percent| times[times.len() * percent / 100]);
        eprintln!("{what}: p50 {p50:?}, p99 {p99:?}");
    }
    let began = Instant::now();
    let (mut next, mut count) = (Offset(0), 0);
    while let Some(last) = log.read(P, next, 256, 1 << 18).await.expect("readable").last() {
        next = last.offset.next();
        count += 1;
    }
    eprintln!("read all in {count} pieces in {:?}; {:?}", began.elapsed(), log.stats());
    assert_eq!(next, log.high_watermark(P).await.expect("high watermark"));
}
