use tidegate_eventlog::LogRecord;
use tidegate_vocab::Offset;

use super::*;

fn transition(subject: &str, state: wire::PresenceState) -> wire::Transition {
    let emitter = Bytes::from_static(&[7; 16]);
    wire::Transition {
        subject: subject.into(),
        state: state.into(),
        since_s: 1_700_000_000,
        emitter,
        number: 3,
    }
}

fn stored(value: Bytes) -> LogRecord {
    LogRecord { offset: Offset(0), time_ms: 0, key: Bytes::new(), value, headers: Vec::new() }
}

#[test]
fn a_transition_comes_back_from_its_record_as_it_was() {
    use wire::PresenceState::{Offline, Online};
    for (subject, state, label) in [
        ("user:alice", Online, "online"),
        ("user:alice", Offline, "offline"),
        ("room:1", Online, "occupied"),
        ("room:1", Offline, "vacated"),
    ] {
        let said = transition(subject, state);
        let (record, is) = record_of(&said).expect("well-formed");
        assert_eq!((is, &record.key[..]), (label, subject.as_bytes()), "the topic is compacted by it");
        assert!(matches!(read(&stored(record.value)), Read::Transition(read) if read == said), "{subject}");
    }
    for bad in
        [transition("", Online), transition("a b", Online), transition("a", wire::PresenceState::Unspecified)]
    {
        assert!(record_of(&bad).is_none(), "{bad:?}");
    }
}

#[test]
fn what_a_member_would_refuse_is_malformed() {
    let value = |version: u32, change: fn(&mut proto::Presence)| {
        let mut body = proto::Presence {
            subject: Some(Subject::User("alice".into())),
            state: proto::PresenceState::Online.into(),
            since_s: 1,
            emitter: Bytes::from_static(&[7; 16]),
            number: 1,
        };
        change(&mut body);
        proto::Record { version, body: Some(Body::Presence(body)) }.encode_to_vec().into()
    };
    let is_malformed = |value: Bytes| matches!(read(&stored(value)), Read::Malformed);
    assert!(!is_malformed(value(1, |_| {})));
    let changes: [fn(&mut proto::Presence); 5] = [
        |body| body.subject = None,
        |body| body.subject = Some(Subject::User(String::new())),
        |body| body.subject = Some(Subject::Channel("user:alice".into())),
        |body| body.state = 7,
        |body| body.emitter = Bytes::from_static(&[7; 15]),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(is_malformed(value(1, change)), "change {number}");
    }
    assert!(is_malformed(Bytes::from_static(b"\xff")));
    let newer = value(VERSION + 1, |_| {});
    assert!(matches!(read(&stored(newer)), Read::UnknownVersion(version) if version == VERSION + 1));
    assert!(matches!(read(&stored(Bytes::new())), Read::Tombstone));
}
