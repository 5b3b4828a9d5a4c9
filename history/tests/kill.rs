//! The log and the history in one store, killed with SIGKILL at random moments, again and again in one directory.
//! After each kill: every acked record is there, offsets have no gap, and the history's H agrees with its rows.
//!
//! The test runs itself again as the child that is killed. `TIDEGATE_SEED` repeats a run, `TIDEGATE_KILL_ROUNDS` and
//! `TIDEGATE_KILL_ACKS` make a longer one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_eventlog::embedded::{EmbeddedLog, EmbeddedOptions};
use tidegate_eventlog::store::open_database;
use tidegate_eventlog::{EventLog, LogRecord};
use tidegate_history::{HistoryOptions, HistoryStore, Retention};
use tidegate_vocab::{Channel, Offset, PartitionCounts, PartitionId, Topic};

const DIRECTORY: &str = "TIDEGATE_TEST_DIRECTORY";
const ROUND: &str = "TIDEGATE_TEST_ROUND";
const APPENDERS: u64 = 24;
const FEW_ROWS: u32 = 5;

type Log = BTreeMap<PartitionId, Vec<LogRecord>>;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

fn counts() -> PartitionCounts {
    PartitionCounts::same(2)
}

fn retention(namespace: &str) -> Retention {
    Retention { rows: if namespace == "few" { FEW_ROWS } else { u32::MAX }, age_ms: u64::MAX }
}

fn open(directory: &Path) -> (Arc<EmbeddedLog>, Arc<HistoryStore>) {
    let database = open_database(directory, 1024 * 1024).expect("store opens");
    let log = EmbeddedLog::open(database.clone(), EmbeddedOptions::new(counts())).expect("log opens");
    let options = HistoryOptions { retention: Arc::new(retention), scope: 1 };
    (log, Arc::new(HistoryStore::open(database, options).expect("history opens")))
}

/// A value that says what it is and how long it is.
fn value(round: u64, appender: u64, sequence: u64, length: usize) -> Bytes {
    let mut value = format!("{round} {appender} {sequence} {length} ").into_bytes();
    value.resize(value.len() + length, (sequence % 251) as u8);
    value.into()
}

fn channel(sequence: u64) -> Channel {
    let name = if sequence.is_multiple_of(3) {
        format!("few:{}", sequence % 4)
    } else {
        format!("c{}", sequence % 7)
    };
    Channel::parse(&name).expect("valid")
}

/// Appends and applies until it is killed, and prints what was acked.
async fn child(directory: &Path, round: u64) {
    let (log, history) = open(directory);
    for partition in counts().followed() {
        if history.interval(partition).is_none() {
            history.reset(partition, log.epoch(partition.topic), Offset(0)).expect("reset");
        }
        tokio::spawn(apply(Arc::clone(&log), Arc::clone(&history), partition));
    }
    let sweeper = Arc::clone(&history);
    std::thread::spawn(move || while sweeper.sweep(4).is_ok() {});
    let appenders: Vec<_> =
        (0..APPENDERS).map(|appender| tokio::spawn(append(Arc::clone(&log), round, appender))).collect();
    for appender in appenders {
        appender.await.expect("appender goes on until it is killed");
    }
}

async fn append(log: Arc<EmbeddedLog>, round: u64, appender: u64) {
    let partitions: Vec<_> = counts().followed().collect();
    for sequence in 0.. {
        let partition = partitions[((appender + sequence) % partitions.len() as u64) as usize];
        let length = rand::rng().random_range(0..3000);
        let key = Bytes::copy_from_slice(channel(sequence).as_str().as_bytes());
        let place =
            log.append(partition, key, value(round, appender, sequence, length)).await.expect("acked");
        println!(
            "acked {} {} {} {appender} {sequence} {length}",
            partition.topic as u8, partition.number, place.offset
        );
    }
}

async fn apply(log: Arc<EmbeddedLog>, history: Arc<HistoryStore>, partition: PartitionId) {
    let h = history.interval(partition).expect("was reset").h;
    let mut consumer = log.consume(partition, h);
    loop {
        let rows = consumer.next().await.expect("readable");
        let new_h = rows.last().expect("at least one").offset.next();
        let rows: Vec<_> = rows
            .into_iter()
            .map(|row| (Channel::parse(std::str::from_utf8(&row.key).expect("text")).expect("valid"), row))
            .collect();
        history.apply(partition, &rows, new_h).expect("applied");
    }
}

struct Acked {
    partition: PartitionId,
    offset: u64,
    value: Bytes,
}

fn parse_ack(round: u64, line: &str) -> Option<Acked> {
    let numbers: Vec<u64> = line
        .trim_end()
        .strip_prefix("acked ")?
        .split(' ')
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let [topic, number, offset, appender, sequence, length] = numbers[..] else { return None };
    let partition = PartitionId { topic: Topic::from_number(topic as u8)?, number: number as u32 };
    Some(Acked { partition, offset, value: value(round, appender, sequence, length as usize) })
}

/// Runs a child until it has printed so many acks, kills it, and returns all that it had printed.
fn run_and_kill(directory: &Path, round: u64, acks: u64) -> Vec<Acked> {
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "killed_at_any_moment", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("child runs");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut acked = Vec::new();
    let mut line = String::new();
    let mut killed = false;
    loop {
        if !killed && acked.len() as u64 >= acks {
            child.kill().expect("killed");
            killed = true;
        }
        line.clear();
        if output.read_line(&mut line).expect("readable") == 0 {
            break;
        }
        // The last line may have been cut by the kill: then nobody was told.
        if line.ends_with('\n') {
            acked.extend(parse_ack(round, &line));
        }
    }
    let status = child.wait().expect("waited");
    assert!(killed, "the child ended by itself: {status}");
    acked
}

async fn read_log(log: &EmbeddedLog) -> Log {
    let mut all = Log::new();
    for partition in counts().followed() {
        let end = log.high_watermark(partition).await.expect("high watermark");
        let rows: &mut Vec<LogRecord> = all.entry(partition).or_default();
        while (rows.len() as u64) < end.0 {
            rows.extend(
                log.read(partition, Offset(rows.len() as u64), 256, 1 << 20).await.expect("readable"),
            );
        }
        assert!(
            rows.iter().zip(0..).all(|(row, offset)| row.offset.0 == offset),
            "{partition}: offsets have no gap"
        );
        assert!(
            rows.windows(2).all(|pair| pair[0].time_ms <= pair[1].time_ms),
            "{partition}: times never fall"
        );
    }
    all
}

/// One caller's records of one round keep their order, and none is there twice.
fn check_order(log: &Log) {
    for (partition, rows) in log {
        let mut last = BTreeMap::new();
        for row in rows {
            let text = String::from_utf8_lossy(&row.value);
            let numbers: Vec<u64> =
                text.split(' ').take(4).map(|number| number.parse().expect("a number")).collect();
            let [round, appender, sequence, length] = numbers[..] else { panic!("four numbers") };
            assert_eq!(row.value, value(round, appender, sequence, length as usize), "records are whole");
            assert_eq!(row.key, channel(sequence).as_str());
            let before = last.insert((round, appender), sequence);
            assert!(
                before.is_none_or(|before| before < sequence),
                "{partition}: one caller's records keep their order"
            );
        }
    }
}

fn check_history(history: &HistoryStore, log: &Log) {
    for (partition, rows) in log {
        let Some(interval) = history.interval(*partition) else { continue };
        assert!(interval.h.0 <= rows.len() as u64, "{partition}: H is not beyond the log");
        let mut channels: BTreeMap<Channel, Vec<LogRecord>> = BTreeMap::new();
        for row in &rows[..interval.h.0 as usize] {
            let name = std::str::from_utf8(&row.key).expect("text");
            channels.entry(Channel::parse(name).expect("valid")).or_default().push(row.clone());
        }
        for (channel, mut rows) in channels {
            let kept = retention(channel.namespace()).rows as usize;
            let evicted = rows.len().saturating_sub(kept);
            let complete_from = evicted.checked_sub(1).map_or(Offset(0), |last| rows[last].offset.next());
            rows.drain(..evicted);
            let shown = history
                .read(*partition, &channel, Offset(0), interval.h, usize::MAX, usize::MAX)
                .expect("readable");
            assert_eq!(shown.complete_from, complete_from, "{partition} {channel}");
            assert_eq!(shown.rows, rows, "{partition} {channel}: the rows are the log's");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return child(Path::new(&directory), from_environment(ROUND, 0)).await;
    }
    let seed = from_environment("TIDEGATE_SEED", rand::rng().random());
    println!("TIDEGATE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut acked: Vec<Acked> = Vec::new();
    for round in 0..from_environment("TIDEGATE_KILL_ROUNDS", 6) {
        let acks = random.random_range(0..from_environment("TIDEGATE_KILL_ACKS", 2000));
        acked.extend(run_and_kill(directory.path(), round, acks));
        let (log, history) = open(directory.path());
        let records = read_log(&log).await;
        for ack in &acked {
            let row = records[&ack.partition].get(ack.offset as usize);
            assert_eq!(
                row.map(|row| &row.value),
                Some(&ack.value),
                "{} {}: acked",
                ack.partition,
                ack.offset
            );
        }
        check_order(&records);
        check_history(&history, &records);
        let stored: usize = records.values().map(Vec::len).sum();
        println!("round {round}: {} acked in all, {stored} in the log", acked.len());
        assert!(stored >= acked.len());
    }
}
