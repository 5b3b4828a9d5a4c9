//! The cases that need nothing but the log.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_vocab::{Offset, PartitionId, Topic};

use super::{P, Q, Subject, put, read_all, soon, values};
use crate::{Assignment, EventLog, ReadError};

pub(super) async fn appends_keep_their_order(log: &dyn EventLog) {
    let end = log.high_watermark(P).await.expect("high watermark");
    // Not awaited in between: the order of the calls counts, not of the answers.
    let queued: Vec<_> = (0..500)
        .map(|i| log.append(P, Bytes::from(format!("key {i}")), Bytes::from(format!("value {i}"))))
        .collect();
    let mut acked = Vec::new();
    for append in queued {
        acked.push(append.await.expect("acked"));
    }
    assert!(acked[0].offset >= end);
    assert!(
        acked.windows(2).all(|pair| pair[0].offset < pair[1].offset),
        "offsets rise in the order of calls"
    );
    let rows = read_all(log, P, end).await;
    assert_eq!(rows.len(), acked.len());
    for (i, (row, acked)) in rows.iter().zip(&acked).enumerate() {
        assert_eq!((row.offset, row.time_ms), (acked.offset, acked.time_ms));
        assert_eq!(row.key, format!("key {i}"));
        assert_eq!(row.value, format!("value {i}"));
    }
}

pub(super) async fn partitions_are_apart(log: &dyn EventLog) {
    let places = [
        P,
        Q,
        PartitionId { topic: Topic::Inbox, number: 0 },
        PartitionId { topic: Topic::Upstream, number: 1 },
    ];
    let mut ends = Vec::new();
    for partition in places {
        ends.push(log.high_watermark(partition).await.expect("high watermark"));
        put(log, partition, &partition.to_string()).await;
    }
    for (partition, end) in places.into_iter().zip(ends) {
        assert_eq!(values(&read_all(log, partition, end).await), [partition.to_string()]);
    }
    // Nothing and everything are values, too.
    let end = log.high_watermark(P).await.expect("high watermark");
    let all_bytes: Vec<u8> = (0..=255).collect();
    for value in [Bytes::new(), Bytes::from(all_bytes.clone()), Bytes::from(vec![7; 100_000])] {
        log.append(P, Bytes::from(all_bytes.clone()), value).await.expect("acked");
    }
    let rows = read_all(log, P, end).await;
    assert_eq!(rows.iter().map(|row| row.value.len()).collect::<Vec<_>>(), [0, 256, 100_000]);
    assert!(rows.iter().all(|row| row.key == all_bytes));
}

pub(super) async fn what_was_acked_is_visible_at_once(log: &dyn EventLog) {
    for i in 0..50 {
        let acked = put(log, P, &i.to_string()).await;
        let end = log.high_watermark(P).await.expect("high watermark");
        assert!(end > acked.offset, "an acked record lies below the high watermark");
        let rows = log.read(P, acked.offset, 10, 1000).await.expect("readable");
        assert_eq!(values(&rows), [i.to_string()], "and is read");
    }
    assert!(log.health().is_ok());
}

pub(super) async fn a_dropped_append_is_not_withdrawn(log: &dyn EventLog) {
    let end = log.high_watermark(P).await.expect("high watermark");
    drop(log.append(P, Bytes::new(), Bytes::from_static(b"dropped")));
    put(log, P, "awaited").await;
    assert_eq!(values(&read_all(log, P, end).await), ["dropped", "awaited"]);
}

pub(super) async fn concurrent_appenders(log: Arc<dyn EventLog>) {
    const APPENDERS: usize = 16;
    const EACH: usize = 60;
    let mut ends = HashMap::new();
    for partition in [P, Q] {
        ends.insert(partition, log.high_watermark(partition).await.expect("high watermark"));
    }
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|appender| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut acked = Vec::new();
                for i in 0..EACH {
                    let partition = if (appender + i) % 3 == 0 { Q } else { P };
                    acked.push((partition, put(&*log, partition, &format!("{appender} {i}")).await));
                }
                acked
            })
        })
        .collect();
    let mut acked = HashMap::new();
    for (appender, task) in appenders.into_iter().enumerate() {
        let places = task.await.expect("no panic");
        for (i, (partition, place)) in places.into_iter().enumerate() {
            let before = acked.insert((partition, place.offset), format!("{appender} {i}"));
            assert_eq!(before, None, "no offset is given twice");
        }
    }
    assert_eq!(acked.len(), APPENDERS * EACH);
    let mut seen = 0;
    for (partition, end) in ends {
        let mut last_of = [None; APPENDERS];
        for row in read_all(&*log, partition, end).await {
            let value = String::from_utf8_lossy(&row.value).into_owned();
            assert_eq!(
                acked.get(&(partition, row.offset)),
                Some(&value),
                "records are where they were acked"
            );
            let (appender, i) = value.split_once(' ').expect("two numbers");
            let last = &mut last_of[appender.parse::<usize>().expect("number")];
            let i: usize = i.parse().expect("number");
            assert!(last.is_none_or(|last| last < i), "one caller's records keep their order");
            *last = Some(i);
            seen += 1;
        }
    }
    assert_eq!(seen, acked.len());
}

pub(super) async fn offsets_by_time(log: &dyn EventLog) {
    assert_eq!(
        log.offset_at(P, u64::MAX).await,
        log.high_watermark(P).await,
        "nothing is newer than the end of time"
    );
    let mut acked = Vec::new();
    for i in 0..40 {
        acked.push(put(log, P, &i.to_string()).await);
    }
    let end = log.high_watermark(P).await.expect("high watermark");
    let first_at =
        |time_ms| acked.iter().find(|place| place.time_ms >= time_ms).map_or(end, |place| place.offset);
    for place in &acked {
        for time_ms in [place.time_ms, place.time_ms + 1] {
            assert_eq!(log.offset_at(P, time_ms).await, Ok(first_at(time_ms)), "at {time_ms}");
        }
    }
    assert_eq!(log.offset_at(P, 0).await, log.start(P).await);
}

pub(super) async fn reads_keep_their_bounds(log: &dyn EventLog) {
    let start = log.start(P).await.expect("start");
    assert_eq!(log.read(P, start, 10, 1000).await, Ok(vec![]), "an empty log has nothing");
    for i in 0..20 {
        put(log, P, &format!("{i:0>100}")).await;
    }
    let end = log.high_watermark(P).await.expect("high watermark");
    assert_eq!(log.read(P, start, 7, 1 << 20).await.expect("readable").len(), 7);
    let some = log.read(P, start, 20, 350).await.expect("readable").len();
    assert!((3..=7).contains(&some), "about 350 bytes are about four rows of 100, not {some}");
    assert_eq!(log.read(P, start, 20, 1).await.expect("readable").len(), 1, "at least one");
    assert_eq!(log.read(P, start, 0, 1000).await.expect("readable").len(), 1, "at least one");
    assert_eq!(log.read(P, end, 10, 1000).await, Ok(vec![]), "the end is empty");
    let beyond = Offset(end.0 + 1);
    assert_eq!(log.read(P, beyond, 10, 1000).await, Err(ReadError::BeyondEnd { end }));
    let mut consumer = log.consume(P, beyond);
    assert_eq!(soon("an answer", consumer.next()).await, Err(ReadError::BeyondEnd { end }));
    let nowhere = PartitionId { topic: Topic::Events, number: log.counts().of(Topic::Events) };
    assert!(log.read(nowhere, Offset(0), 1, 1).await.is_err());
    assert!(log.high_watermark(nowhere).await.is_err());
    assert!(soon("an answer", log.consume(nowhere, Offset(0)).next()).await.is_err());
    assert!(log.append(nowhere, Bytes::new(), Bytes::new()).await.is_err());
}

pub(super) async fn a_consumer_waits_and_wakes(log: Arc<dyn EventLog>) {
    let from = log.high_watermark(P).await.expect("high watermark");
    let mut consumer = log.consume(P, from);
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 300 {
            seen.extend(soon("the next records", consumer.next()).await.expect("readable"));
        }
        seen
    });
    for i in 0..300 {
        put(&*log, P, &i.to_string()).await;
    }
    let seen = reader.await.expect("no panic");
    assert_eq!(values(&seen), (0..300).map(|i| i.to_string()).collect::<Vec<_>>());
    assert_eq!(seen, read_all(&*log, P, from).await, "a consumer sees what a reader reads");
    let mut late = log.consume(P, Offset(seen[100].offset.0));
    let rows = soon("old records", late.next()).await.expect("readable");
    assert_eq!(rows[0], seen[100], "a consumer starts where it was asked to");
}

pub(super) async fn a_cancelled_next_loses_nothing(log: &dyn EventLog) {
    let from = log.high_watermark(P).await.expect("high watermark");
    let mut consumer = log.consume(P, from);
    let mut seen = Vec::new();
    for i in 0..100 {
        let value = i.to_string();
        let append = put(log, P, &value);
        tokio::pin!(append);
        // Each round polls `next` and drops it, at a random one of the points where it can be.
        loop {
            tokio::select! {
                rows = consumer.next() => seen.extend(rows.expect("readable")),
                _ = &mut append => break,
            }
        }
    }
    while seen.len() < 100 {
        seen.extend(soon("the rest", consumer.next()).await.expect("readable"));
    }
    assert_eq!(values(&seen), (0..100).map(|i| i.to_string()).collect::<Vec<_>>());
}

pub(super) async fn assignments_are_taken_once(log: &dyn EventLog) {
    let mut assignments = log.assignments();
    let mut mine = Vec::new();
    for _ in log.counts().followed() {
        match soon("an assignment", assignments.recv()).await {
            Some(Assignment::Assigned(partition)) => mine.push(partition),
            other => panic!("the only member is assigned everything, not {other:?}"),
        }
    }
    mine.sort();
    assert_eq!(mine, log.counts().followed().collect::<Vec<_>>());
    let mut second = log.assignments();
    assert!(second.try_recv().is_err(), "the second hears nothing");
    assert!(!second.is_closed(), "and keeps hearing nothing");
}

pub(super) async fn a_reopened_log_goes_on(subject: &impl Subject) {
    let log = subject.open("reopen").await;
    let start = log.start(P).await.expect("start");
    for i in 0..30 {
        put(&*log, P, &i.to_string()).await;
    }
    let before = read_all(&*log, P, start).await;
    let end = log.high_watermark(P).await.expect("high watermark");
    let epochs = Topic::ALL.map(|topic| log.epoch(topic));
    drop(log);
    let log = subject.open("reopen").await;
    assert_eq!(Topic::ALL.map(|topic| log.epoch(topic)), epochs, "the same log has the same epochs");
    assert_eq!(log.start(P).await, Ok(start));
    assert_eq!(log.high_watermark(P).await, Ok(end));
    assert_eq!(read_all(&*log, P, start).await, before, "nothing is lost or changed");
    let next = put(&*log, P, "next").await;
    assert!(next.offset >= end, "offsets never go back");
    assert!(next.time_ms >= before[29].time_ms, "nor does time");
}

pub(super) async fn epochs_name_topics_and_logs(subject: &impl Subject) {
    let one = subject.open("epoch one").await;
    let mut epochs: Vec<_> = Topic::ALL.map(|topic| one.epoch(topic)).into();
    drop(one);
    let other = subject.open("epoch other").await;
    epochs.extend(Topic::ALL.map(|topic| other.epoch(topic)));
    epochs.sort();
    epochs.dedup();
    assert_eq!(epochs.len(), 2 * Topic::COUNT, "every topic of every log has an epoch of its own");
}
