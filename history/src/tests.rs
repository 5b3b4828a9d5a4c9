use bytes::Bytes;
use tempfile::TempDir;
use tidegate_eventlog::LogRecord;
use tidegate_vocab::Topic;

use super::*;

const P: PartitionId = PartitionId { topic: Topic::Events, number: 0 };
const EPOCH: LogEpoch = LogEpoch(7);

fn open(directory: &TempDir, retention: Retention) -> HistoryStore {
    let database = store::open_database(directory.path(), 4 * 1024 * 1024).expect("store opens");
    HistoryStore::open(database, HistoryOptions::same(retention)).expect("history opens")
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("valid")
}

fn row(name: &str, offset: u64, time_ms: u64) -> (Channel, LogRecord) {
    let key = Bytes::copy_from_slice(name.as_bytes());
    let value = Bytes::from(format!("{name}@{offset}"));
    (channel(name), LogRecord { offset: Offset(offset), time_ms, key, value })
}

fn offsets(store: &HistoryStore, name: &str) -> Vec<u64> {
    let read = store.read(P, &channel(name), Offset(0), Offset(u64::MAX), 1000, 1 << 20).expect("readable");
    read.rows.iter().map(|row| row.offset.0).collect()
}

#[test]
fn h_and_rows_survive_a_reopen() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let retention = Retention { rows: 2, age_ms: 1000 };
    let store = open(&directory, retention);
    assert_eq!(store.interval(P), None);
    store.reset(P, EPOCH, Offset(10)).expect("reset");
    store.apply(P, &[row("a", 10, 1), row("a:b", 11, 1), row("a", 12, 2)], Offset(14)).expect("applied");
    store.apply(P, &[row("a", 14, 3)], Offset(15)).expect("applied");
    drop(store);
    let store = open(&directory, retention);
    assert_eq!(store.interval(P), Some(Interval { epoch: EPOCH, floor: Offset(10), h: Offset(15) }));
    assert_eq!(offsets(&store, "a"), [12, 14]);
    assert_eq!(offsets(&store, "a:b"), [11]);
    assert_eq!(store.evicted(P, &channel("a")).expect("readable"), Offset(11));
    assert_eq!(store.evicted(P, &channel("a:b")).expect("readable"), Offset(0));
}
