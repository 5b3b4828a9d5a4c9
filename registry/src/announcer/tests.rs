use super::*;
use crate::frame::Update;

const MEMBER: MemberId = MemberId(0);

fn ring(members: u32) -> Arc<Ring> {
    let list: Vec<_> = (0..members).map(|member| (MemberId(member), 1)).collect();
    Arc::new(Ring::build(&list).expect("valid"))
}

fn subject(id: &str) -> Channel {
    Channel::parse(id).expect("valid")
}

fn count(connections: u32, linger_ms: u64) -> Count {
    Count { connections, linger_ms, ..Count::default() }
}

/// One member, its stream open and the empty snapshot acknowledged.
fn opened() -> (Announcer, u64) {
    let mut announcer = Announcer::new(Incarnation(1), String::new(), ring(1));
    let (_, session) = announcer.hello(MEMBER).expect("wanted");
    announcer.opened(MEMBER, session, Incarnation(9), 0);
    let batch = announcer.next_batch(MEMBER, session, 0).expect("a snapshot");
    assert!(batch.ends_snapshot && batch.updates.is_empty());
    announcer.acked(MEMBER, session, batch.seq);
    (announcer, session)
}

fn said(announcer: &mut Announcer, session: u64, now_ms: u64) -> Vec<(String, Option<u32>)> {
    announcer.tick(now_ms);
    let batch = announcer.next_batch(MEMBER, session, now_ms);
    let shown = |update: Update| (update.subject.to_string(), update.state.map(|state| state.connections));
    batch.into_iter().flat_map(|batch| batch.updates).map(shown).collect()
}

#[test]
fn the_first_and_the_last_at_once_and_counts_once_a_second() {
    let (mut announcer, session) = opened();
    let mut check = |connections: Option<u32>, now_ms: u64, expected: Option<Option<u32>>| {
        if let Some(connections) = connections {
            announcer.count(&subject("a"), count(connections, 0), 1, now_ms);
        }
        let expected: Vec<_> = expected.map(|count| ("a".to_owned(), count)).into_iter().collect();
        assert_eq!(said(&mut announcer, session, now_ms), expected, "at {now_ms}");
    };
    check(Some(1), 10, Some(Some(1)));
    check(Some(2), 20, None);
    check(Some(3), 500, None);
    check(None, 1_009, None);
    check(None, 1_010, Some(Some(3)));
    check(Some(3), 5_000, None);
    check(Some(4), 5_001, Some(Some(4)));
    check(Some(0), 5_002, Some(None));
}

#[test]
fn a_poller_lingers_and_costs_nothing_between_its_polls() {
    let (mut announcer, session) = opened();
    announcer.count(&subject("a"), count(1, 0), 1, 0);
    assert_eq!(said(&mut announcer, session, 0).len(), 1);
    for poll in 0..3 {
        announcer.count(&subject("a"), count(0, 35_000), 1, 100 + poll);
        announcer.count(&subject("a"), count(1, 0), 1, 110 + poll);
    }
    announcer.count(&subject("a"), count(0, 35_000), 1, 200);
    assert_eq!(said(&mut announcer, session, 35_199), []);
    assert_eq!(said(&mut announcer, session, 35_200), [("a".to_owned(), None)]);
    assert_eq!(announcer.subjects(), 0);
}

#[test]
fn a_member_that_lags_is_not_current() {
    let (mut announcer, session) = opened();
    let current = vec![Current { member: Incarnation(9), digest: ring(1).digest() }];
    assert_eq!(announcer.current(0), Some(current.clone()));
    announcer.count(&subject("a"), count(1, 0), 1, 10);
    let batch = announcer.next_batch(MEMBER, session, 10).expect("a subject");
    assert_eq!(announcer.current(110), None, "within the lag nothing changes");
    assert_eq!(announcer.current(111), Some(vec![]));
    announcer.acked(MEMBER, session, batch.seq);
    assert_eq!(announcer.current(112), Some(current));
    assert_eq!(
        announcer.current(10 + limits::REGISTRY_TRUST_MS),
        Some(vec![]),
        "trust runs from the sending"
    );
}

#[test]
fn numbers_go_on_when_a_member_leaves_the_ring_and_comes_back() {
    let (mut announcer, session) = opened();
    let other = Arc::new(Ring::build(&[(MemberId(1), 1)]).expect("valid"));
    announcer.routers_speak(&[other.digest()], 0);
    announcer.set_ring(other, 0);
    assert_eq!(announcer.wanted().collect::<Vec<_>>(), [MemberId(1)]);
    announcer.set_ring(ring(1), 0);
    let (_, again) = announcer.hello(MEMBER).expect("wanted again");
    assert!(again > session);
    announcer.opened(MEMBER, again, Incarnation(9), 0);
    assert_eq!(announcer.next_batch(MEMBER, again, 0).expect("a snapshot").seq, 2);
}

#[test]
fn a_silent_member_is_dialled_anew() {
    let (mut announcer, session) = opened();
    announcer.count(&subject("a"), count(1, 0), 1, 10);
    announcer.next_batch(MEMBER, session, 10).expect("a subject");
    assert!(announcer.stuck(3_009).is_empty());
    assert_eq!(announcer.stuck(3_010), [(MEMBER, session)]);
    announcer.closed(MEMBER, session);
    assert_eq!(announcer.unlinked(), [MEMBER]);
}
