//! What is refused at the start, and what a directory keeps.

use super::*;

#[tokio::test]
async fn another_partition_count_is_refused_with_the_fix() {
    let directory = directory();
    drop(open(&directory, options()).expect("opens"));
    let refused = open(&directory, EmbeddedOptions::new(PartitionCounts::same(3))).err().expect("refused");
    assert!(matches!(refused, OpenError::PartitionCount { stored: 2, configured: 3, .. }), "{refused}");
    assert!(refused.to_string().contains("set it back to 2"), "{refused}");
    open(&directory, options()).expect("a refusal changes nothing");
}

#[tokio::test]
async fn an_unknown_format_is_refused() {
    let directory = directory();
    drop(open(&directory, options()).expect("opens"));
    for (stored, expected) in [(&7_u32.to_be_bytes()[..], "has format 7"), (b"x", "damaged")] {
        let database = store::open_database(directory.path(), 1 << 20).expect("store opens");
        let meta = store::open_keyspace(&database, "log_meta").expect("opens");
        meta.insert("format", stored).expect("written");
        drop((meta, database));
        let refused = open(&directory, options()).err().expect("refused");
        assert!(refused.to_string().contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn the_salt_is_part_of_the_epoch_and_the_topic_id_is_kept() {
    let directory = directory();
    let with = |salt: &str| EmbeddedOptions { epoch_salt: salt.into(), ..options() };
    let epoch_with = |salt| open(&directory, with(salt)).expect("opens").epoch(Topic::Events);
    let epoch = epoch_with("");
    assert_ne!(epoch_with("other"), epoch);
    assert_eq!(epoch_with(""), epoch);
}

#[tokio::test]
async fn time_never_falls_even_when_the_clock_does() {
    let directory = directory();
    let (now_ms, clock) = manual_clock(5000);
    let with = || EmbeddedOptions { clock: Arc::clone(&clock), ..options() };
    let log = open(&directory, with()).expect("opens");
    assert_eq!(put(&log, P, "a").await.time_ms, 5000);
    now_ms.store(1000, Ordering::SeqCst);
    assert_eq!(put(&log, P, "b").await.time_ms, 5000);
    drop(log);
    let log = open(&directory, with()).expect("opens again");
    assert_eq!(put(&log, P, "c").await.time_ms, 5000);
    assert_eq!(log.offset_at(P, 5000).await, Ok(Offset(0)));
    assert_eq!(log.offset_at(P, 5001).await, Ok(Offset(3)));
}

/// A directory of a version that had fewer topics gets those that came later, and keeps what it has.
#[tokio::test]
async fn a_directory_without_the_newer_topics_gets_them() {
    let directory = directory();
    let log = open(&directory, options()).expect("opens");
    put(&log, P, "a").await;
    let before = Topic::ALL.map(|topic| log.epoch(topic));
    drop(log);
    let remove = |fields: &[&str]| {
        let database = store::open_database(directory.path(), 1 << 20).expect("store opens");
        let meta = store::open_keyspace(&database, "log_meta").expect("opens");
        for topic in Topic::SINGLE {
            for field in fields {
                meta.remove(format!("topic/{}/{field}", topic as u8)).expect("removed");
            }
        }
    };
    remove(&["id", "partitions"]);
    let log = open(&directory, options()).expect("opens");
    let after = Topic::ALL.map(|topic| log.epoch(topic));
    assert_eq!(after[..3], before[..3]);
    assert!(after[3] != before[3] && after[4] != before[4], "they are new");
    put(&log, P, "b").await;
    put(&log, PartitionId { topic: Topic::Control, number: 0 }, "c").await;
    drop(log);
    remove(&["partitions"]);
    let refused = open(&directory, options()).err().expect("refused");
    assert!(refused.to_string().contains("damaged"), "{refused}");
}
