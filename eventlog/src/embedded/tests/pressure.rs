//! Full queues, a writer that hangs, a closed log. The clock is called by the writer thread: one that waits holds it.

use std::sync::mpsc;

use super::*;

/// A clock that makes the writer wait until the returned sender is dropped.
fn held_clock() -> (mpsc::Sender<()>, Clock) {
    let (release, held) = mpsc::channel();
    let held = Mutex::new(held);
    let clock = move || {
        let _ = held.lock().expect("not poisoned").recv();
        1
    };
    (release, Arc::new(clock))
}

fn append(log: &EmbeddedLog, bytes: usize) -> BoxFuture<'static, Result<Appended, AppendError>> {
    log.append(P, Bytes::new(), Bytes::from(vec![0; bytes]))
}

/// The answer that an append has already.
async fn at_once(append: BoxFuture<'static, Result<Appended, AppendError>>) -> Option<AppendError> {
    tokio::select! {
        biased;
        answer = append => answer.err(),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test]
async fn a_full_queue_is_busy_and_loses_nothing() {
    let directory = directory();
    let (release, clock) = held_clock();
    let log = open(&directory, EmbeddedOptions { clock, ..options() }).expect("opens");
    let mut queued = 0_u64;
    let busy = loop {
        match at_once(append(&log, 1)).await {
            None => queued += 1,
            Some(error) => break error,
        }
    };
    assert_eq!(busy, AppendError::Busy);
    let limit = limits::APPEND_QUEUE_LIMIT as u64;
    assert!((limit..=limit + 1024).contains(&queued), "the queue and what the writer holds: {queued}");
    drop(release);
    log.close();
    assert_eq!(
        log.high_watermark(P).await,
        Ok(Offset(queued)),
        "what was queued is written, also by a close"
    );
    assert_eq!(log.shared.queued_bytes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn queued_bytes_are_bounded_too() {
    let directory = directory();
    let (release, clock) = held_clock();
    let log = open(&directory, EmbeddedOptions { clock, ..options() }).expect("opens");
    // The writer takes the first at once or later: it is not counted on.
    let mut queued = 0;
    while at_once(append(&log, RECORD_BYTES_LIMIT)).await.is_none() {
        queued += 1;
    }
    assert!((8..=9).contains(&queued), "{queued} of 8 MiB");
    drop(release);
    let big = append(&log, RECORD_BYTES_LIMIT + 1).await.expect_err("refused");
    assert!(matches!(big, AppendError::Unavailable { .. }), "{big}");
    let key = log.append(P, Bytes::from(vec![0; 65_536]), Bytes::new()).await.expect_err("refused");
    assert!(matches!(key, AppendError::Unavailable { .. }), "{key}");
    log.close();
    assert_eq!(log.high_watermark(P).await, Ok(Offset(queued)));
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_not_answered_is_indeterminate() {
    let directory = directory();
    let (release, clock) = held_clock();
    let log = open(&directory, EmbeddedOptions { clock, ..options() }).expect("opens");
    let answer = append(&log, 1).await;
    assert!(matches!(answer, Err(AppendError::Indeterminate { .. })), "{answer:?}");
    drop(release);
    log.close();
    assert_eq!(log.high_watermark(P).await, Ok(Offset(1)), "indeed: it was written");
}

#[tokio::test]
async fn closing_answers_who_waits_and_ends_the_streams() {
    let directory = directory();
    let (release, clock) = held_clock();
    let log = open(&directory, EmbeddedOptions { clock, ..options() }).expect("opens");
    let mut consumer = log.consume(P, Offset(0));
    let waiting: Vec<_> = (0..100).map(|_| append(&log, 1)).collect();
    drop(release);
    log.close();
    for append in waiting {
        append.await.expect("acked");
    }
    let mut seen = 0;
    let end = loop {
        match consumer.next().await {
            Ok(rows) => seen += rows.len(),
            Err(error) => break error,
        }
    };
    assert_eq!((seen, end), (100, reader::unavailable("the log is closed".into())));
    assert!(matches!(append(&log, 1).await, Err(AppendError::Unavailable { .. })));
    log.close();
    assert_eq!(log.read(P, Offset(99), 1, 1).await.expect("a closed log is still read").len(), 1);
}

/// Below the reserve nothing is written; what is there is read.
#[tokio::test]
async fn full_by_reserve() {
    let directory = directory();
    put(&open(&directory, options()).expect("opens"), P, "a").await;
    let log = open(&directory, EmbeddedOptions { disk_reserve_bytes: u64::MAX, ..options() }).expect("opens");
    for _ in 0..2 {
        let full = append(&log, 1).await.expect_err("refused");
        assert!(
            matches!(&full, AppendError::Full { reason } if reason.contains("free some space")),
            "{full}"
        );
        assert_eq!(
            log.health().map_err(|error| std::mem::discriminant(&error)),
            Err(std::mem::discriminant(&full))
        );
    }
    assert_eq!(log.read(P, Offset(0), 10, 1000).await.expect("readable").len(), 1);
}

/// The engine takes no write after one of its own background writes failed, and says so only when asked.
#[tokio::test]
async fn a_store_that_has_failed_is_noticed_without_an_append() {
    let directory = directory();
    let log = open(&directory, options()).expect("opens");
    put(&log, P, "a").await;
    assert!(log.health().is_ok());
    std::fs::remove_dir_all(log.shared.records.path()).expect("removed");
    log.shared.records.rotate_memtable().expect("the flush is left to the background");
    let deadline = Instant::now() + Duration::from_secs(30);
    let health = loop {
        assert!(Instant::now() < deadline, "the failure is not noticed");
        log.shared.upkeep();
        if let Err(error) = log.health() {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert!(health.to_string().contains("restart"), "{health}");
    assert_eq!(append(&log, 1).await, Err(health));
    assert_eq!(log.high_watermark(P).await, Ok(Offset(1)));
}
