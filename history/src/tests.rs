mod model;

use bytes::Bytes;
use tempfile::TempDir;
use tidegate_eventlog::LogRecord;
use tidegate_vocab::Topic;

use super::*;

const P: PartitionId = PartitionId { topic: Topic::Events, number: 0 };
const Q: PartitionId = PartitionId { topic: Topic::Inbox, number: 0 };
const EPOCH: LogEpoch = LogEpoch(7);
const END: Offset = Offset(u64::MAX);
const WIDE: Retention = Retention { rows: 1000, age_ms: u64::MAX };

/// In memory where that is possible: nothing here is about the disk.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("temporary directory")
}

fn open_with(directory: &TempDir, options: HistoryOptions) -> HistoryStore {
    let database = store::open_database(directory.path(), 1024 * 1024).expect("store opens");
    HistoryStore::open(database, options).expect("history opens")
}

fn open(directory: &TempDir, retention: Retention) -> HistoryStore {
    open_with(directory, HistoryOptions::same(retention))
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("valid")
}

fn row(name: &str, offset: u64, time_ms: u64) -> (Channel, LogRecord) {
    let key = Bytes::copy_from_slice(name.as_bytes());
    let value = Bytes::from(format!("{name}@{offset}"));
    (channel(name), LogRecord { offset: Offset(offset), time_ms, key, value, headers: vec![] })
}

fn read(store: &HistoryStore, name: &str) -> Rows {
    let rows = store.read(P, &channel(name), Offset(0), END, usize::MAX, usize::MAX).expect("readable");
    for row in &rows.rows {
        assert_eq!(row.value, format!("{name}@{}", row.offset));
        assert_eq!(row.key, name);
    }
    rows
}

fn offsets(store: &HistoryStore, name: &str) -> Vec<u64> {
    read(store, name).rows.iter().map(|row| row.offset.0).collect()
}

fn evicted(store: &HistoryStore, name: &str) -> u64 {
    store.evicted(P, &channel(name)).expect("readable").0
}

fn sweep_all(store: &HistoryStore) -> usize {
    let mut rows = 0;
    // Twice around: the first round may have begun in the middle.
    for _ in 0..2 {
        loop {
            let swept = store.sweep(3).expect("swept");
            rows += swept.rows;
            if swept.wrapped {
                break;
            }
        }
    }
    rows
}

#[test]
fn h_and_rows_survive_a_reopen() {
    let directory = directory();
    let retention = Retention { rows: 2, age_ms: 1000 };
    let store = open(&directory, retention);
    assert_eq!(store.interval(P), None);
    store.reset(P, EPOCH, Offset(10)).expect("reset");
    store.apply(P, &[row("a", 10, 1), row("a:b", 11, 1), row("a", 12, 2)], Offset(14)).expect("applied");
    store.apply(P, &[row("a", 14, 3)], Offset(15)).expect("applied");
    drop(store);
    let store = open(&directory, retention);
    assert_eq!(store.interval(P), Some(Interval { epoch: EPOCH, floor: Offset(10), h: Offset(15) }));
    assert_eq!(
        (store.interval(Q), offsets(&store, "a"), offsets(&store, "a:b")),
        (None, vec![12, 14], vec![11])
    );
    assert_eq!((evicted(&store, "a"), evicted(&store, "a:b"), evicted(&store, "none")), (11, 0, 0));
}

#[test]
fn reads_keep_their_bounds_and_say_where_to_go_on() {
    let directory = directory();
    let store = open(&directory, WIDE);
    store.reset(P, EPOCH, Offset(0)).expect("reset");
    let rows: Vec<_> = (0..10).map(|i| row(if i % 2 == 0 { "even" } else { "odd" }, i, 100 + i)).collect();
    store.apply(P, &rows, Offset(20)).expect("applied");
    let read = |from, upto, max_rows, max_bytes| {
        let read = store
            .read(P, &channel("even"), Offset(from), Offset(upto), max_rows, max_bytes)
            .expect("readable");
        (read.rows.iter().map(|row| row.offset.0).collect::<Vec<_>>(), read.next.0)
    };
    assert_eq!(read(0, 100, 100, 1000), (vec![0, 2, 4, 6, 8], 20));
    assert_eq!(read(1, 8, 100, 1000), (vec![2, 4, 6], 8));
    assert_eq!(read(0, 100, 2, 1000), (vec![0, 2], 3));
    assert_eq!(read(0, 100, 0, 1000), (vec![0], 1));
    assert_eq!(read(0, 100, 100, 1), (vec![0], 1));
    assert_eq!(read(0, 100, 100, 13), (vec![0, 2, 4], 5));
    assert_eq!(read(8, 100, 1, 1000), (vec![8], 20));
    assert_eq!(read(9, 9, 100, 1000), (vec![], 9));
    assert_eq!(read(30, 40, 100, 1000), (vec![], 20));
    let unknown = store.read(P, &channel("none"), Offset(0), END, 1, 1).expect("readable");
    assert_eq!((unknown.rows, unknown.complete_from, unknown.next), (vec![], Offset(0), Offset(20)));
    assert!(matches!(store.read(Q, &channel("even"), Offset(0), END, 1, 1), Err(HistoryError::NoInterval)));
}

#[test]
fn the_last_rows_and_the_rows_since() {
    let directory = directory();
    let store = open(&directory, WIDE);
    store.reset(P, EPOCH, Offset(0)).expect("reset");
    let rows: Vec<_> = (0..30).map(|i| row(if i % 3 == 0 { "a" } else { "b" }, i, 100 + i / 6 * 6)).collect();
    store.apply(P, &rows, Offset(30)).expect("applied");
    let last = |count, upto| {
        let tail = store.first_of_last(P, &channel("a"), count, Offset(upto)).expect("readable");
        (tail.from.0, tail.rows)
    };
    assert_eq!(last(2, 30), (24, 2));
    assert_eq!(last(2, 24), (18, 2));
    assert_eq!(last(100, 30), (0, 10));
    assert_eq!(last(0, 30), (30, 0));
    assert_eq!(last(5, 0), (0, 0));
    let since = |name, time_ms, upto| {
        store.first_since(P, &channel(name), time_ms, Offset(upto)).expect("readable").0
    };
    for time_ms in 95..140 {
        for upto in [0, 1, 7, 29, 30, 40] {
            for name in ["a", "b", "none"] {
                let expected = rows
                    .iter()
                    .find(|(channel, row)| {
                        channel.as_str() == name && row.time_ms >= time_ms && row.offset.0 < upto
                    })
                    .map_or(upto, |(_, row)| row.offset.0);
                assert_eq!(since(name, time_ms, upto), expected, "{name} since {time_ms} below {upto}");
            }
        }
    }
}

#[test]
fn a_large_backlog_is_hidden_at_once_and_deleted_in_steps() {
    let directory = directory();
    let store = open(&directory, WIDE);
    store.reset(P, EPOCH, Offset(0)).expect("reset");
    let rows: Vec<_> = (0..900).map(|i| row("a", i, i)).collect();
    store.apply(P, &rows, Offset(900)).expect("applied");
    drop(store);
    // The operator keeps less: what is beyond goes with the next writes and sweeps, from the front.
    let store = open(&directory, Retention { rows: 10, age_ms: u64::MAX });
    store.apply(P, &[row("a", 900, 900)], Offset(901)).expect("applied");
    let first = read(&store, "a");
    assert_eq!(first.complete_from.0, first.rows[0].offset.0, "what is shown is complete");
    assert_eq!(first.rows.len(), 901 - 257);
    assert_eq!(sweep_all(&store), 901 - 257 - 10);
    assert_eq!((offsets(&store, "a"), evicted(&store, "a")), ((891..901).collect(), 891));
    // More at once than fit: the rest is never written.
    let rows: Vec<_> = (901..1000).map(|i| row("a", i, i)).collect();
    store.apply(P, &rows, Offset(1000)).expect("applied");
    assert_eq!((offsets(&store, "a"), evicted(&store, "a")), ((990..1000).collect(), 990));
    assert_eq!(store.rows.len().expect("countable"), 10);
}

#[test]
fn rows_still_to_be_deleted_are_not_shown() {
    let directory = directory();
    let store = open(&directory, WIDE);
    store.reset(P, EPOCH, Offset(0)).expect("reset");
    let rows: Vec<_> = (0..900).map(|i| row("a", i, i)).collect();
    store.apply(P, &rows, Offset(900)).expect("applied");
    drop(store);
    let store = open(&directory, Retention { rows: 10, age_ms: u64::MAX });
    let rows: Vec<_> = (900..920).map(|i| row("a", i, i)).collect();
    store.apply(P, &rows, Offset(920)).expect("applied");
    assert!(store.rows.len().expect("countable") > 600);
    assert_eq!((offsets(&store, "a"), evicted(&store, "a")), ((910..920).collect(), 910));
    let tail = store.first_of_last(P, &channel("a"), 100, END).expect("readable");
    assert_eq!((tail.from, tail.rows), (Offset(910), 10));
    assert_eq!(store.first_since(P, &channel("a"), 0, END).expect("readable"), Offset(910));
}

#[test]
fn the_smallest_sweep_gets_around() {
    let directory = directory();
    let store = open(&directory, Retention { rows: 1000, age_ms: 10 });
    store.reset(P, EPOCH, Offset(0)).expect("reset");
    let rows: Vec<_> = (0..20).map(|i| row(&format!("quiet:{i}"), i, 1)).collect();
    store.apply(P, &rows, Offset(20)).expect("applied");
    store.apply(P, &[row("loud", 20, 100)], Offset(21)).expect("applied");
    let steps = (1..100).find(|_| store.sweep(1).expect("swept").wrapped);
    assert_eq!(steps, Some(22), "one channel a call, and one call that finds the end");
    assert_eq!(store.rows.len().expect("countable"), 1);
    assert!((0..20).all(|i| evicted(&store, &format!("quiet:{i}")) == i + 1));
}

#[test]
fn a_backward_load_never_fills_in_before_a_hole() {
    let directory = directory();
    let store = open(&directory, Retention { rows: 2, age_ms: u64::MAX });
    store.reset(P, EPOCH, Offset(10)).expect("reset");
    store.apply(P, &[row("a", 10, 1), row("a", 11, 1), row("a", 12, 1)], Offset(13)).expect("applied");
    drop(store);
    // The operator keeps more from now on. Row 10 is gone, so rows before it are of no use.
    let store = open(&directory, Retention { rows: 10, age_ms: u64::MAX });
    store.extend_floor(P, &[row("a", 8, 1), row("b", 9, 1)], Offset(5)).expect("extended");
    assert_eq!((offsets(&store, "a"), evicted(&store, "a")), (vec![11, 12], 11));
    assert_eq!((offsets(&store, "b"), evicted(&store, "b")), (vec![9], 0));
    assert_eq!(store.rows.len().expect("countable"), 3, "nor is one kept where it is not shown");
}

#[test]
fn a_reset_wipes_at_once_and_the_sweep_deletes() {
    let directory = directory();
    let store = open(&directory, WIDE);
    store.reset(P, EPOCH, Offset(0)).expect("reset");
    store.reset(Q, EPOCH, Offset(0)).expect("reset");
    let rows: Vec<_> = (0..400).map(|i| row("a", i, i)).collect();
    store.apply(P, &rows, Offset(400)).expect("applied");
    store.apply(Q, &rows[..5], Offset(5)).expect("applied");
    store.reset(P, LogEpoch(8), Offset(50)).expect("reset");
    let interval = Interval { epoch: LogEpoch(8), floor: Offset(50), h: Offset(50) };
    assert_eq!((store.interval(P), offsets(&store, "a")), (Some(interval), vec![]));
    store.apply(P, &[row("a", 60, 60)], Offset(61)).expect("applied");
    assert_eq!(sweep_all(&store), 400);
    assert_eq!(offsets(&store, "a"), [60]);
    assert_eq!(store.rows.len().expect("countable"), 6, "another partition is left alone");
}

#[test]
fn a_channel_without_history_is_never_complete_below_h() {
    let directory = directory();
    let with = |scope| HistoryOptions {
        retention: Arc::new(
            move |namespace| {
                if namespace == "typing" && scope == 1 { Retention::NONE } else { WIDE }
            },
        ),
        scope,
    };
    let store = open_with(&directory, with(1));
    store.reset(P, EPOCH, Offset(0)).expect("reset");
    store.apply(P, &[row("typing:1", 0, 1), row("chat", 1, 1)], Offset(5)).expect("applied");
    assert_eq!((offsets(&store, "typing:1"), evicted(&store, "typing:1")), (vec![], 5));
    assert_eq!(read(&store, "typing:1").complete_from, Offset(5));
    drop(store);
    let store = open_with(&directory, with(1));
    assert_eq!(offsets(&store, "chat"), [1]);
    drop(store);
    // Had the interval stayed, row 0 would be missing and nobody would know.
    let store = open_with(&directory, with(2));
    assert_eq!(store.interval(P), None);
    sweep_all(&store);
    assert!(store.rows.is_empty().expect("countable"));
    store.reset(P, EPOCH, Offset(0)).expect("reset");
    assert!(offsets(&store, "chat").is_empty(), "what an older generation left stays invisible");
}

#[test]
fn forgetting_raises_the_floor_and_drops_what_was_evicted_below() {
    let directory = directory();
    let store = open(&directory, Retention { rows: 2, age_ms: u64::MAX });
    store.reset(P, EPOCH, Offset(0)).expect("reset");
    store
        .apply(P, &[row("a", 0, 1), row("a", 1, 1), row("a", 2, 1), row("b", 3, 1)], Offset(4))
        .expect("applied");
    assert_eq!(evicted(&store, "a"), 1);
    store.forget_below(P, Offset(2)).expect("forgotten");
    assert_eq!(
        (store.interval(P).map(|interval| interval.floor), evicted(&store, "a")),
        (Some(Offset(2)), 0)
    );
    assert_eq!(offsets(&store, "a"), [2], "rows below the floor are not shown");
    store.forget_below(P, Offset(1)).expect("forgotten");
    assert_eq!(store.interval(P).map(|interval| interval.floor), Some(Offset(2)), "the floor does not fall");
    store.forget_below(P, Offset(100)).expect("forgotten");
    assert_eq!(store.interval(P).map(|interval| interval.floor), Some(Offset(4)), "nor pass H");
    assert_eq!(sweep_all(&store), 3);
    let left = store.meta.prefix(codec::all_channels()).count();
    assert_eq!(left, 0, "a channel of which nothing is left to say leaves nothing behind");
    assert!(matches!(store.forget_below(Q, Offset(1)), Err(HistoryError::NoInterval)));
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "invariant: H rises"))]
fn an_h_that_does_not_rise_is_refused() {
    let directory = directory();
    let store = open(&directory, WIDE);
    store.reset(P, EPOCH, Offset(5)).expect("reset");
    assert!(matches!(store.apply(P, &[], Offset(5)), Err(HistoryError::Misuse { .. })));
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "invariant: rows rise"))]
fn a_row_outside_the_range_is_refused() {
    let directory = directory();
    let store = open(&directory, WIDE);
    store.reset(P, EPOCH, Offset(5)).expect("reset");
    assert!(matches!(store.apply(P, &[row("a", 4, 1)], Offset(6)), Err(HistoryError::Misuse { .. })));
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "invariant: the floor falls"))]
fn a_floor_that_does_not_fall_is_refused() {
    let directory = directory();
    let store = open(&directory, WIDE);
    store.reset(P, EPOCH, Offset(5)).expect("reset");
    assert!(matches!(store.extend_floor(P, &[], Offset(5)), Err(HistoryError::Misuse { .. })));
}
