use tempfile::TempDir;

use super::*;

const P: PartitionId = PartitionId { topic: Topic::Events, number: 0 };

fn options() -> EmbeddedOptions {
    EmbeddedOptions::new(PartitionCounts::same(2))
}

fn open(directory: &TempDir, options: EmbeddedOptions) -> Result<Arc<EmbeddedLog>, OpenError> {
    let database = store::open_database(directory.path(), 4 * 1024 * 1024).expect("store opens");
    EmbeddedLog::open(database, options)
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

async fn put(log: &EmbeddedLog, partition: PartitionId, value: &str) -> Appended {
    log.append(partition, Bytes::from_static(b"k"), Bytes::copy_from_slice(value.as_bytes()))
        .await
        .expect("appended")
}

#[tokio::test]
async fn what_was_acked_is_read_and_survives_a_reopen() {
    let directory = directory();
    let log = open(&directory, options()).expect("opens");
    let epoch = log.epoch(Topic::Events);
    assert_eq!(put(&log, P, "a").await.offset, Offset(0));
    assert_eq!(put(&log, P, "b").await.offset, Offset(1));
    assert_eq!(log.high_watermark(P).await, Ok(Offset(2)));
    drop(log);
    let log = open(&directory, options()).expect("opens again");
    assert_eq!(log.epoch(Topic::Events), epoch);
    assert_eq!(put(&log, P, "c").await.offset, Offset(2));
    let rows = log.read(P, Offset(0), 10, 1000).await.expect("readable");
    let values: Vec<_> = rows.iter().map(|row| &row.value[..]).collect();
    assert_eq!(values, [b"a", b"b", b"c"]);
}

#[tokio::test]
async fn another_partition_count_is_refused_with_the_fix() {
    let directory = directory();
    drop(open(&directory, options()).expect("opens"));
    let refused = open(&directory, EmbeddedOptions::new(PartitionCounts::same(3))).err().expect("refused");
    assert!(matches!(refused, OpenError::PartitionCount { stored: 2, configured: 3, .. }), "{refused}");
    assert!(refused.to_string().contains("set it back to 2"), "{refused}");
}
