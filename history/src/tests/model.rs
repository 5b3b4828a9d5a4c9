//! The store against a model that is small enough to be seen to be right: the whole log of one partition is known,
//! and per channel one number, `evicted`. What the store shows must be the log's rows from there on, all of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 4] = ["a", "a:b", "b", "none:c"];
const LOG_LEN: u64 = 400;

/// Ten rows or 50 ms in "a" and "b" (no namespace), three rows in the namespace "a", nothing in "none".
fn retention(namespace: &str) -> Retention {
    match namespace {
        "a" => Retention { rows: 3, age_ms: u64::MAX },
        "none" => Retention::NONE,
        _ => Retention { rows: 10, age_ms: 50 },
    }
}

fn options() -> HistoryOptions {
    HistoryOptions { retention: Arc::new(retention), scope: 1 }
}

#[derive(Debug, Clone)]
enum Step {
    Reset { at: u64 },
    Apply { offsets: u64 },
    Extend { offsets: u64 },
    Forget { at: u64 },
    Sweep { budget: usize },
    SweepAll,
    Reopen,
    Read { from: u64, len: u64, max_rows: usize, max_bytes: usize },
    Last { count: usize, upto: u64 },
    Since { time_ms: u64, upto: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..LOG_LEN;
    prop_oneof![
        1 => at.clone().prop_map(|at| Step::Reset { at }),
        12 => (1..25_u64).prop_map(|offsets| Step::Apply { offsets }),
        6 => (1..25_u64).prop_map(|offsets| Step::Extend { offsets }),
        1 => at.clone().prop_map(|at| Step::Forget { at }),
        4 => (1..4_usize).prop_map(|budget| Step::Sweep { budget }),
        2 => Just(Step::SweepAll),
        1 => Just(Step::Reopen),
        3 => (at.clone(), 0..100_u64, 0..12_usize, 0..40_usize)
            .prop_map(|(from, len, max_rows, max_bytes)| Step::Read { from, len, max_rows, max_bytes }),
        3 => (0..12_usize, at.clone()).prop_map(|(count, upto)| Step::Last { count, upto }),
        3 => (0..500_u64, at).prop_map(|(time_ms, upto)| Step::Since { time_ms, upto }),
    ]
}

/// Per offset: which channel (none: a record that is no event) and how much later than the one before.
fn log() -> impl Strategy<Value = Vec<(Option<usize>, u64)>> {
    let record = (prop::option::weighted(0.8, 0..NAMES.len()), prop_oneof![4 => 0..2_u64, 1 => 0..20_u64]);
    prop::collection::vec(record, LOG_LEN as usize)
}

/// What must be known of a partition besides its log.
struct Model {
    log: BTreeMap<u64, (Channel, LogRecord)>,
    /// Below this the log has nothing any more.
    log_start: u64,
    floor: u64,
    h: u64,
    newest_ms: u64,
    evicted: BTreeMap<&'static str, u64>,
}

impl Model {
    fn new(log: Vec<(Option<usize>, u64)>) -> Self {
        let mut time_ms = 0;
        let mut records = BTreeMap::new();
        for (offset, (name, later)) in (0..).zip(log) {
            time_ms += later;
            if let Some(name) = name {
                records.insert(offset, row(NAMES[name], offset, time_ms));
            }
        }
        Self { log: records, log_start: 0, floor: 0, h: 0, newest_ms: 0, evicted: BTreeMap::new() }
    }

    fn rows(&self, from: u64, upto: u64) -> Vec<(Channel, LogRecord)> {
        self.log.range(from..upto.max(from)).map(|(_, row)| row.clone()).collect()
    }

    fn of(&self, name: &str, from: u64, upto: u64) -> Vec<LogRecord> {
        self.rows(from, upto)
            .into_iter()
            .filter(|(channel, _)| channel.as_str() == name)
            .map(|(_, row)| row)
            .collect()
    }

    fn complete_from(&self, name: &str) -> u64 {
        if retention(name_space(name)) == Retention::NONE {
            self.h
        } else {
            self.floor.max(self.evicted[name])
        }
    }

    /// Takes from each channel's front what retention excludes.
    fn evict(&mut self, added: &[(Channel, LogRecord)]) {
        self.newest_ms = added.iter().map(|(_, row)| row.time_ms).fold(self.newest_ms, u64::max);
        for name in NAMES {
            let retention = retention(name_space(name));
            let rows = self.of(name, self.complete_from(name), self.h);
            let cutoff_ms = self.newest_ms.saturating_sub(retention.age_ms);
            let old = rows.iter().take_while(|row| row.time_ms < cutoff_ms).count();
            let many = rows.len().saturating_sub(retention.rows as usize);
            if let Some(last) = old.max(many).checked_sub(1) {
                self.evicted.insert(name, rows[last].offset.0 + 1);
            }
        }
    }

    fn reset(&mut self, at: u64) {
        (self.floor, self.h, self.newest_ms) = (at, at, 0);
        self.evicted = NAMES.map(|name| (name, 0)).into();
    }
}

fn name_space(name: &str) -> &str {
    name.split_once(':').map_or("", |(namespace, _)| namespace)
}

/// What may always be checked: rows are complete from where the store says, and it says no less than it may. Old
/// rows may still be shown until a sweep comes by: `swept` says that one has.
fn check(store: &HistoryStore, model: &Model, swept: bool) -> Result<(), TestCaseError> {
    let interval = Interval { epoch: EPOCH, floor: Offset(model.floor), h: Offset(model.h) };
    prop_assert_eq!(store.interval(P), Some(interval));
    for name in NAMES {
        let shown = read(store, name);
        let complete_from = shown.complete_from.0;
        prop_assert!(complete_from <= model.complete_from(name), "{} is evicted too far", name);
        prop_assert_eq!(&shown.rows, &model.of(name, complete_from, model.h), "{}", name);
        let evicted = evicted(store, name);
        prop_assert_eq!(evicted.max(model.floor), complete_from, "{}", name);
        prop_assert!(shown.rows.len() <= retention(name_space(name)).rows as usize, "{} has too many", name);
        if swept {
            prop_assert_eq!(complete_from, model.complete_from(name), "{}", name);
        }
    }
    if swept {
        let expected: usize = NAMES
            .iter()
            .filter(|name| retention(name_space(name)) != Retention::NONE)
            .map(|name| model.of(name, model.complete_from(name), model.h).len())
            .sum();
        prop_assert_eq!(store.rows.len().expect("countable"), expected, "nothing else is kept");
    }
    Ok(())
}

fn check_reads(store: &HistoryStore, model: &Model, step: &Step) -> Result<(), TestCaseError> {
    for name in NAMES {
        let complete_from = read(store, name).complete_from.0;
        let rows = |from: u64, upto: u64| model.of(name, from.max(complete_from), upto.min(model.h));
        match *step {
            Step::Read { from, len, max_rows, max_bytes } => {
                let upto = from + len;
                let read = store
                    .read(P, &channel(name), Offset(from), Offset(upto), max_rows, max_bytes)
                    .expect("readable");
                let all = rows(from, upto);
                prop_assert!(all.starts_with(&read.rows));
                prop_assert!(read.rows.len() <= max_rows.max(1));
                prop_assert!(all.is_empty() || !read.rows.is_empty(), "at least one");
                let rest = model.of(name, read.next.0.max(complete_from).max(from), upto.min(model.h));
                prop_assert_eq!(read.rows.len() + rest.len(), all.len(), "next leads on");
            }
            Step::Last { count, upto } => {
                let tail = store.first_of_last(P, &channel(name), count, Offset(upto)).expect("readable");
                let all = rows(0, upto);
                prop_assert_eq!(tail.rows, all.len().min(count));
                prop_assert_eq!(rows(tail.from.0, upto).len(), tail.rows);
            }
            Step::Since { time_ms, upto } => {
                let first = store.first_since(P, &channel(name), time_ms, Offset(upto)).expect("readable");
                let expected =
                    rows(0, upto).iter().find(|row| row.time_ms >= time_ms).map_or(upto, |row| row.offset.0);
                prop_assert_eq!(first.0, expected);
            }
            _ => {}
        }
    }
    Ok(())
}

fn run(log: Vec<(Option<usize>, u64)>, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let directory = directory();
    let mut store = open_with(&directory, options());
    let mut model = Model::new(log);
    model.reset(LOG_LEN / 2);
    store.reset(P, EPOCH, Offset(LOG_LEN / 2)).expect("reset");
    for step in steps {
        let mut swept = false;
        match step {
            Step::Reset { at } => {
                let at = at.max(model.log_start);
                store.reset(P, EPOCH, Offset(at)).expect("reset");
                model.reset(at);
            }
            Step::Apply { offsets } if model.h < LOG_LEN => {
                let new_h = (model.h + offsets).min(LOG_LEN);
                let rows = model.rows(model.h, new_h);
                store.apply(P, &rows, Offset(new_h)).expect("applied");
                model.h = new_h;
                model.evict(&rows);
                for (channel, _) in rows {
                    let complete_from = read(&store, channel.as_str()).complete_from.0;
                    prop_assert_eq!(
                        complete_from,
                        model.complete_from(channel.as_str()),
                        "what is written to is exact"
                    );
                }
            }
            Step::Extend { offsets } if model.floor > model.log_start => {
                let new_floor = model.floor.saturating_sub(offsets).max(model.log_start);
                let rows = model.rows(new_floor, model.floor);
                store.extend_floor(P, &rows, Offset(new_floor)).expect("extended");
                let old_floor = std::mem::replace(&mut model.floor, new_floor);
                model.evict(&rows);
                for name in NAMES {
                    for offset in
                        super::offsets(&store, name).into_iter().filter(|offset| *offset < old_floor)
                    {
                        prop_assert!(offset >= model.complete_from(name), "nothing excluded is brought back");
                    }
                }
            }
            Step::Forget { at } => {
                store.forget_below(P, Offset(at)).expect("forgotten");
                model.log_start = model.log_start.max(at);
                model.floor = model.floor.max(at.min(model.h));
            }
            Step::Sweep { budget } => {
                store.sweep(budget).expect("swept");
            }
            Step::SweepAll => {
                sweep_all(&store);
                swept = true;
            }
            Step::Reopen => {
                drop(store);
                store = open_with(&directory, options());
            }
            Step::Apply { .. } | Step::Extend { .. } => {}
            Step::Read { .. } | Step::Last { .. } | Step::Since { .. } => check_reads(&store, &model, &step)?,
        }
        check(&store, &model, swept)?;
    }
    Ok(())
}

proptest! {
    // A failure prints its seed and the smallest steps that lead to it. More: PROPTEST_CASES=5000.
    #[test]
    fn the_store_agrees_with_the_model(log in log(), steps in prop::collection::vec(step(), 1..60)) {
        run(log, steps)?;
    }
}
