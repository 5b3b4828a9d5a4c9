//! Appends per second of the embedded log with 1, 16 and 256 concurrent appenders, each waiting for its ack:
//! `cargo run --release -p tidegate-eventlog --example append_rate [DIRECTORY]` (default: a temporary one).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_eventlog::EventLog;
use tidegate_eventlog::embedded::{EmbeddedLog, EmbeddedOptions};
use tidegate_eventlog::store::open_database;
use tidegate_vocab::{PartitionCounts, PartitionId, Topic};

const VALUE_BYTES: usize = 500;
const RUN: Duration = Duration::from_secs(3);
const PARTITIONS: u32 = 8;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or_else(|| temporary.path().to_path_buf(), PathBuf::from);
    let database = open_database(&directory, 32 * 1024 * 1024)?;
    let log = EmbeddedLog::open(database, EmbeddedOptions::new(PartitionCounts::same(PARTITIONS)))?;
    println!("{VALUE_BYTES} B a record, {RUN:?} each");
    for appenders in [1, 16, 256] {
        let started = Instant::now();
        let tasks: Vec<_> =
            (0..appenders).map(|number| tokio::spawn(append(Arc::clone(&log), number, started))).collect();
        let mut waited = Vec::new();
        for task in tasks {
            waited.extend(task.await??);
        }
        let rate = waited.len() as f64 / started.elapsed().as_secs_f64();
        waited.sort();
        let at = |share: f64| waited[((waited.len() - 1) as f64 * share) as usize].as_micros();
        println!("{appenders:>4} appenders: {rate:>8.0} appends/s, p50 {} us, p99 {} us", at(0.5), at(0.99));
    }
    Ok(())
}

async fn append(
    log: Arc<EmbeddedLog>,
    number: u32,
    started: Instant,
) -> Result<Vec<Duration>, tidegate_eventlog::AppendError> {
    let partition = PartitionId { topic: Topic::Events, number: number % PARTITIONS };
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let mut waited = Vec::new();
    while started.elapsed() < RUN {
        let begun = Instant::now();
        log.append(partition, Bytes::from_static(b"rate:1"), value.clone()).await?;
        waited.push(begun.elapsed());
    }
    Ok(waited)
}
