use proptest::prelude::*;
use tidegate_vocab::{Offset, Topic};

use super::*;

const COUNTS: fn() -> PartitionCounts = || PartitionCounts::same(4);

fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("valid")
}

fn record(offset: u64, key: &str, value: impl Into<Bytes>) -> LogRecord {
    LogRecord {
        offset: Offset(offset),
        time_ms: 1_000,
        key: key.to_owned().into(),
        value: value.into(),
        headers: vec![],
    }
}

fn draft(json: &'static str, ttl_ms: u64) -> EventDraft {
    EventDraft {
        name: EventName::MESSAGE,
        payload: Payload::Json(json.into()),
        idempotency_key: "k".into(),
        ttl_ms,
    }
}

fn read_all(records: &[LogRecord]) -> Vec<Reading> {
    let partition = COUNTS().partition_of(&channel("a"));
    let mut window = Window::default();
    records.iter().map(|record| read(&mut window, &COUNTS(), partition, record)).collect()
}

fn reason(value: &[u8], key: &str) -> Option<(bool, DeadReason)> {
    match read_all(&[record(0, key, value.to_vec())]).remove(0) {
        Reading::DeadLetter(channel, reason) => Some((channel.is_some(), reason)),
        _ => None,
    }
}

#[test]
fn an_event_reads_back_with_its_place_and_its_verdict() {
    let value = draft("1", 50).encode();
    let readings = read_all(&[
        record(5, "a", value.clone()),
        record(6, "a", value.clone()),
        record(7, "a", draft("2", 50).encode()),
    ]);
    let Reading::Event(event, Verdict::Fresh) = &readings[0] else { panic!("{readings:?}") };
    assert_eq!((event.offset, event.time_ms, event.expires_ms), (Some(Offset(5)), 1_000, Some(1_050)));
    assert_eq!(event.payload, Payload::Json("1".into()));
    assert!(matches!(readings[1], Reading::Event(_, Verdict::DuplicateOf(Offset(5)))));
    assert!(matches!(readings[2], Reading::Event(_, Verdict::Conflict)));
    assert_eq!(read_row(&channel("a"), &record(5, "a", value)).as_ref(), Some(&**event));
}

#[test]
fn takeovers_are_recognised_by_their_nonce() {
    let value = encode_takeover(Incarnation(7), Nonce(9), "router-0");
    assert!(matches!(read_all(&[record(0, "", value)])[0], Reading::Takeover(Nonce(9))));
}

#[test]
fn poison_records() {
    let event = draft("1", 0).encode();
    assert_eq!(reason(b"\xff\xff", "a"), Some((true, DeadReason::Malformed)));
    assert_eq!(reason(b"", "a"), Some((true, DeadReason::Malformed)));
    assert_eq!(reason(&event, "a b"), Some((false, DeadReason::BadKey)));
    assert_eq!(reason(b"\xff", ""), Some((false, DeadReason::Malformed)));
    let elsewhere = (0..99)
        .map(|n| format!("c{n}"))
        .find(|name| COUNTS().partition_of(&channel(name)) != COUNTS().partition_of(&channel("a")));
    assert_eq!(reason(&event, &elsewhere.expect("some channel")), Some((false, DeadReason::WrongPartition)));
    let newer = proto::Record { version: VERSION + 1, body: None }.encode_to_vec();
    assert!(matches!(read_all(&[record(0, "a", newer)])[0], Reading::UnknownVersion(2)));
    let partition = PartitionId { topic: Topic::Inbox, number: 0 };
    let misplaced = read(&mut Window::default(), &COUNTS(), partition, &record(0, "a", event));
    assert!(matches!(misplaced, Reading::DeadLetter(None, DeadReason::WrongPartition)));
}

proptest! {
    #[test]
    fn no_record_panics_the_reader(key in "[a-c:]{0,3}", value in prop::collection::vec(any::<u8>(), 0..60), cut in 0_usize..40) {
        let own = draft("[1,2]", 7).encode();
        let cut = own.slice(..cut.min(own.len()));
        let readings = read_all(&[record(0, &key, value), record(1, &key, cut)]);
        prop_assert!(readings.iter().all(|reading| !matches!(reading, Reading::DeadLetter(_, DeadReason::Panic))));
    }
}
