mod opening;
mod pressure;
mod retention;

use std::sync::atomic::AtomicU64;

use tempfile::TempDir;

use bytes::Bytes;

use super::*;

const P: PartitionId = PartitionId { topic: Topic::Events, number: 0 };

fn options() -> EmbeddedOptions {
    EmbeddedOptions::new(PartitionCounts::same(2))
}

fn open(directory: &TempDir, options: EmbeddedOptions) -> Result<Arc<EmbeddedLog>, OpenError> {
    let database = store::open_database(directory.path(), 4 * 1024 * 1024).expect("store opens");
    EmbeddedLog::open(database, options)
}

/// In memory where that is possible: only the tests of a kill and of a full disk are about the disk.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("temporary directory")
}

/// A clock that the test moves.
fn manual_clock(now_ms: u64) -> (Arc<AtomicU64>, Clock) {
    let time_ms = Arc::new(AtomicU64::new(now_ms));
    let shared = Arc::clone(&time_ms);
    (time_ms, Arc::new(move || shared.load(Ordering::SeqCst)))
}

async fn put(log: &EmbeddedLog, partition: PartitionId, value: &str) -> Appended {
    log.append(partition, Bytes::from_static(b"k"), Bytes::copy_from_slice(value.as_bytes()))
        .await
        .expect("appended")
}

/// Logs by name, each in a directory of its own, all on one clock that the test can move.
struct Logs {
    root: TempDir,
    clock_ms: Arc<AtomicU64>,
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
