//! Forgetting. The upkeep is called here and now; the thread that calls it otherwise finds nothing left to do.

use super::*;

fn with(clock: &Clock, events_ms: u64) -> EmbeddedOptions {
    let retention = RetentionMs { events: events_ms, ..RetentionMs::same(1000) };
    EmbeddedOptions { clock: Arc::clone(clock), retention, ..options() }
}

#[tokio::test]
async fn each_topic_has_its_own_retention_and_only_records_move_time() {
    let directory = directory();
    let (now_ms, clock) = manual_clock(10_000);
    let log = open(&directory, with(&clock, 500)).expect("opens");
    let inbox = PartitionId { topic: Topic::Inbox, number: 0 };
    for partition in [P, inbox] {
        put(&log, partition, "old").await;
    }
    now_ms.store(10_800, Ordering::SeqCst);
    log.shared.upkeep();
    assert_eq!(
        log.start(P).await,
        Ok(Offset(0)),
        "a clock that runs on while nothing is written forgets nothing"
    );
    put(&log, P, "new").await;
    log.shared.upkeep();
    assert_eq!(log.start(P).await, Ok(Offset(1)));
    assert_eq!(log.start(inbox).await, Ok(Offset(0)), "800 ms are within 1000");
    assert_eq!(log.read(P, Offset(1), 10, 1000).await.expect("readable").len(), 1);
    assert_eq!(log.shared.records.len().expect("countable"), 2);
}

#[tokio::test]
async fn an_emptied_partition_keeps_its_offsets_and_its_time() {
    let directory = directory();
    let (now_ms, clock) = manual_clock(10_000);
    let log = open(&directory, with(&clock, 500)).expect("opens");
    for _ in 0..3000 {
        drop(log.append(P, Bytes::new(), Bytes::new()));
    }
    let last = put(&log, P, "last").await.offset;
    now_ms.store(20_000, Ordering::SeqCst);
    let elsewhere = PartitionId { topic: Topic::Upstream, number: 0 };
    put(&log, elsewhere, "newer").await;
    log.shared.upkeep();
    assert_eq!(log.start(P).await, Ok(last.next()));
    // Deleting tables may bring back a row of a partition that is empty.
    let forgotten = codec::record_key(P, 7);
    log.shared.records.insert(forgotten, codec::record_value(1, &NewRecord::default())).expect("written");
    drop(log);
    now_ms.store(1, Ordering::SeqCst);
    let log = open(&directory, with(&clock, 500)).expect("opens again");
    assert_eq!(log.shared.newest_ms(), 20_000);
    let next = put(&log, P, "next").await;
    assert_eq!((next.offset, next.time_ms), (last.next(), 10_000));
    assert_eq!(log.read(P, Offset(7), 1, 1).await, Err(ReadError::BelowStart { start: last.next() }));
}

/// Readers beside the upkeep read rows without a gap from where they asked, or are told that they are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_beside_the_upkeep_shows_no_hole() {
    let directory = directory();
    let (now_ms, clock) = manual_clock(10_000);
    let log = open(&directory, with(&clock, 50)).expect("opens");
    let done = Arc::new(AtomicBool::new(false));
    let beside = |work: fn(&EmbeddedLog)| {
        let (log, done) = (Arc::clone(&log), Arc::clone(&done));
        std::thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                work(&log);
            }
        })
    };
    let threads =
        [beside(|log| log.shared.upkeep()), beside(read_from_the_start), beside(read_from_the_start)];
    // Until the upkeep has forgotten 7000 rows beside the readers, however the threads were scheduled.
    let mut round = 0;
    while log.start(P).await.expect("start") <= Offset(7000) {
        for _ in 0..20 {
            now_ms.fetch_add(1, Ordering::SeqCst);
            drop(log.append(P, Bytes::new(), Bytes::from_static(b"v")));
        }
        put(&log, P, &round.to_string()).await;
        round += 1;
        assert!(round < 20_000, "the upkeep forgets nothing");
    }
    done.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().expect("no panic");
    }
}

fn read_from_the_start(log: &EmbeddedLog) {
    let from = Offset(log.shared.known(P).expect("known").start());
    match log.shared.read(P, from, 256, 1 << 20) {
        Ok(rows) => assert!(rows.iter().zip(from.0..).all(|(row, offset)| row.offset.0 == offset)),
        Err(error) => assert!(matches!(error, ReadError::BelowStart { start } if start > from), "{error}"),
    }
}

#[tokio::test]
async fn what_is_not_synced_is_not_shown() {
    let directory = directory();
    let log = open(&directory, options()).expect("opens");
    put(&log, P, "synced").await;
    // In the store and not yet announced: where a batch is between its commit and its answer.
    let not_yet = NewRecord { value: Bytes::from_static(b"not yet"), ..NewRecord::default() };
    let value = codec::record_value(u64::MAX, &not_yet);
    log.shared.records.insert(codec::record_key(P, 1), value).expect("written");
    let rows = log.read(P, Offset(0), 10, 1000).await.expect("readable");
    assert_eq!(rows.len(), 1);
    assert_eq!(log.read(P, Offset(1), 10, 1000).await, Ok(vec![]));
    assert_eq!(log.offset_at(P, u64::MAX).await, Ok(Offset(1)));
}
