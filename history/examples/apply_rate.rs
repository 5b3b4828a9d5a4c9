//! How long `apply` takes, alone and beside a log that syncs all the time, in one store with it and in a store of its
//! own: `cargo run --release -p tidegate-history --example apply_rate [DIRECTORY]` (default: a temporary one).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_eventlog::embedded::{EmbeddedLog, EmbeddedOptions};
use tidegate_eventlog::store::open_database;
use tidegate_eventlog::{EventLog, LogRecord};
use tidegate_history::{HistoryOptions, HistoryStore, Retention};
use tidegate_vocab::{Channel, LogEpoch, Offset, PartitionCounts, PartitionId, Topic};

const RUN: Duration = Duration::from_secs(3);
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
const APPENDERS: usize = 64;
const ROWS: u64 = 32;
const P: PartitionId = PartitionId { topic: Topic::Events, number: 0 };

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or_else(|| temporary.path().to_path_buf(), PathBuf::from);
    println!("batches of {ROWS} rows of 500 B in 200 channels of 100 rows, {RUN:?} each");
    measure(&directory.join("alone"), "alone", None).await?;
    let one = directory.join("one");
    measure(&one, "beside a busy log, one store", Some(&one)).await?;
    let (history, log) = (directory.join("history"), directory.join("log"));
    measure(&history, "beside a busy log, two stores", Some(&log)).await
}

async fn measure(history: &Path, name: &str, log: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
    let database = open_database(history, CACHE_BYTES)?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut appenders = Vec::new();
    if let Some(log) = log {
        let database = if log == history { database.clone() } else { open_database(log, CACHE_BYTES)? };
        let log = EmbeddedLog::open(database, EmbeddedOptions::new(PartitionCounts::same(8)))?;
        appenders.extend((0..APPENDERS).map(|_| tokio::spawn(append(Arc::clone(&log), Arc::clone(&stop)))));
    }
    let store =
        HistoryStore::open(database, HistoryOptions::same(Retention { rows: 100, age_ms: u64::MAX }))?;
    let (waited, rows) = tokio::task::spawn_blocking(move || apply(&store)).await??;
    stop.store(true, Ordering::SeqCst);
    let mut appended = 0;
    for appender in appenders {
        appended += appender.await?;
    }
    let at = |share: f64| waited[((waited.len() - 1) as f64 * share) as usize].as_micros();
    let (rows, appended) = (rows as f64 / RUN.as_secs_f64(), appended as f64 / RUN.as_secs_f64());
    println!("{name}: {rows:.0} rows/s, p50 {} us, p99 {} us, {appended:.0} appends/s", at(0.5), at(0.99));
    Ok(())
}

/// The sorted times of the calls, and the rows applied.
fn apply(store: &HistoryStore) -> Result<(Vec<Duration>, u64), tidegate_history::HistoryError> {
    store.reset(P, LogEpoch(1), Offset(0))?;
    let value = Bytes::from(vec![7; 500]);
    let (mut waited, mut next) = (Vec::new(), 0);
    let started = Instant::now();
    while started.elapsed() < RUN {
        let rows: Vec<_> = (next..next + ROWS).filter_map(|offset| row(offset, &value)).collect();
        next += ROWS;
        let begun = Instant::now();
        store.apply(P, &rows, Offset(next))?;
        waited.push(begun.elapsed());
    }
    waited.sort();
    Ok((waited, next))
}

fn row(offset: u64, value: &Bytes) -> Option<(Channel, LogRecord)> {
    let name = format!("rate:{}", offset.wrapping_mul(0x9e37_79b9) % 200);
    let key = Bytes::from(name.clone());
    let record =
        LogRecord { offset: Offset(offset), time_ms: offset, key, value: value.clone(), headers: vec![] };
    Some((Channel::parse(&name).ok()?, record))
}

async fn append(log: Arc<EmbeddedLog>, stop: Arc<AtomicBool>) -> u64 {
    let value = Bytes::from(vec![b'x'; 500]);
    let mut appended = 0;
    while !stop.load(Ordering::SeqCst) {
        appended += u64::from(log.append(P, Bytes::from_static(b"rate:1"), value.clone()).await.is_ok());
    }
    appended
}
