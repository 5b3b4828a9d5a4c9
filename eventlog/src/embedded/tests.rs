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

/// Logs by name, each in a directory of its own, all on one clock that the test can move.
struct Logs {
    root: TempDir,
    clock_ms: Arc<std::sync::atomic::AtomicU64>,
}

const RETENTION_MS: u64 = 60_000;

impl Logs {
    fn new() -> Self {
        Self { root: directory(), clock_ms: Arc::new(1_000_000.into()) }
    }
}

impl crate::conformance::Subject for Logs {
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Arc<dyn EventLog>> {
        let clock_ms = Arc::clone(&self.clock_ms);
        // A tick per look: records of one batch share a time and batches differ.
        let clock: Clock = Arc::new(move || clock_ms.fetch_add(1, Ordering::SeqCst));
        let options = EmbeddedOptions { retention: RetentionMs::same(RETENTION_MS), clock, ..options() };
        let database = store::open_database(&self.root.path().join(name), 1 << 20).expect("store opens");
        let log: Arc<dyn EventLog> = EmbeddedLog::open(database, options).expect("opens");
        Box::pin(async move { log })
    }

    fn expire<'a>(&'a self, log: &'a Arc<dyn EventLog>) -> Option<BoxFuture<'a, ()>> {
        Some(Box::pin(async move {
            self.clock_ms.fetch_add(RETENTION_MS + 1, Ordering::SeqCst);
            let elsewhere = PartitionId { topic: Topic::Upstream, number: 0 };
            log.append(elsewhere, Bytes::new(), Bytes::new()).await.expect("acked");
        }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    crate::conformance::run(&Logs::new()).await;
}

#[tokio::test]
async fn conforms_on_one_thread() {
    crate::conformance::run(&Logs::new()).await;
}
