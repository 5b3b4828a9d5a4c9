use tidegate_vocab::{Channel, ErrorKind};

use super::*;
use crate::frame::{Holding, Presence, SubjectKind, Transition};

fn member() -> Member {
    let ring = Arc::new(Ring::build(&[(MemberId(0), 1)]).expect("valid"));
    let options = MemberOptions { debounce_ms: 10_000, ..MemberOptions::default() };
    Member::new(MemberId(0), Incarnation(1), ring, options)
}

fn hello(node: u128) -> Hello {
    Hello { node: Incarnation(node), digest: 0, address: String::new() }
}

fn subject(id: &str) -> Channel {
    Channel::parse(id).expect("valid")
}

fn batch(seq: u64, subjects: &[&str]) -> Batch {
    let state = Some(Holding { connections: 1, ..Holding::default() });
    let updates = subjects.iter().map(|id| Update { subject: subject(id), state }).collect();
    Batch { seq, updates, ends_snapshot: true }
}

/// A member that speaks, with one node that has these subjects, at 10 s.
fn speaking(subjects: &[&str]) -> (Member, AnnounceStream) {
    let mut member = member();
    member.caught_up(1, 0);
    member.tick(5_000, 64);
    let stream = member.hello(hello(7), 1, 10_000).expect("room");
    member.batch(stream, &batch(1, subjects), 10_000).expect("applies");
    (member, stream)
}

fn said(member: &mut Member) -> Vec<(String, Presence)> {
    let transitions = member.take_transitions(100).into_iter();
    let mut said: Vec<_> = transitions.map(|it| (it.subject.to_string(), it.presence)).collect();
    said.sort_by(|one, other| one.0.cmp(&other.0));
    said
}

#[test]
fn a_node_without_a_lease_is_one_event_and_its_users_are_offline_after_the_debounce() {
    let (mut member, _) = speaking(&["a", "b"]);
    let other = member.hello(hello(8), 1, 10_000).expect("room");
    member.batch(other, &batch(1, &["b"]), 10_000).expect("applies");
    assert_eq!(said(&mut member).len(), 2);
    member.take_events();
    member.batch(other, &Batch { seq: 2, ..Batch::default() }, 12_000).expect("renews");
    member.tick(12_999, 0);
    assert_eq!(member.take_events(), []);
    member.tick(13_000, 0);
    assert_eq!(member.take_events(), [NodeEvent::Lost { node: Incarnation(7), subjects: 2 }]);
    let places = |member: &Member| {
        member
            .table()
            .locate(&[subject("a"), subject("b")])
            .iter()
            .map(|it| it.places.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(places(&member), [0, 1], "before any sweep");
    for at in 13..23 {
        member.tick(at * 1_000, 64);
        member.batch(other, &Batch { seq: at - 10, ..Batch::default() }, at * 1_000).expect("renews");
    }
    member.tick(22_999, 64);
    assert_eq!(said(&mut member), []);
    member.tick(23_000, 64);
    assert_eq!(said(&mut member), [("a".to_owned(), Presence::Offline)]);
    assert_eq!((member.online().channels, member.table().stored()), (1, 1));
}

#[test]
fn who_comes_back_within_the_debounce_never_went() {
    let (mut member, stream) = speaking(&["a"]);
    assert_eq!(said(&mut member), [("a".to_owned(), Presence::Online)]);
    let gone =
        Batch { seq: 2, updates: vec![Update { subject: subject("a"), state: None }], ends_snapshot: false };
    member.batch(stream, &gone, 11_000).expect("applies");
    member.goodbye(stream, 11_000);
    let elsewhere = member.hello(hello(8), 1, 20_000).expect("room");
    member.batch(elsewhere, &batch(1, &["a"]), 20_000).expect("applies");
    member.tick(22_000, 64);
    assert_eq!(said(&mut member), []);
}

#[test]
fn a_restarted_member_emits_differences() {
    let mut member = member();
    let record = |id: &str, presence| Transition {
        subject: subject(id),
        presence,
        since_s: 1,
        emitter: Incarnation(99),
        number: 1,
    };
    member.read_back(&record("stays", Presence::Online), 0);
    member.read_back(&record("went", Presence::Online), 0);
    member.read_back(&record("old", Presence::Offline), 0);
    member.caught_up(1, 0);
    let stream = member.hello(hello(7), 1, 1_000).expect("room");
    member.batch(stream, &batch(1, &["stays", "comes"]), 1_000).expect("applies");
    for at in 2..14 {
        member.batch(stream, &Batch { seq: at, ..Batch::default() }, at * 1_000).expect("renews");
        member.tick(at * 1_000, 64);
    }
    let expected = [("comes".to_owned(), Presence::Online), ("went".to_owned(), Presence::Offline)];
    assert_eq!(said(&mut member), expected);
    assert_eq!(member.online(), Online { users: 0, channels: 2 });
}

#[test]
fn users_and_channels_are_told_apart() {
    let (mut member, stream) = speaking(&["user:a", "user:b", "chat:a", "a"]);
    assert_eq!(member.online(), Online { users: 2, channels: 2 });
    let stored = |member: &Member| (member.figures().stored_users, member.figures().stored_channels);
    assert_eq!(stored(&member), (2, 2));
    let transitions = member.take_transitions(100).into_iter();
    let mut said: Vec<_> = transitions.map(|it| (it.subject.to_string(), it.kind())).collect();
    said.sort_by(|one, other| one.0.cmp(&other.0));
    use SubjectKind::{Channel, User};
    let of = |name: &str, kind| (name.to_owned(), kind);
    assert_eq!(said, [of("a", Channel), of("chat:a", Channel), of("user:a", User), of("user:b", User)]);
    let located = member.table().locate(&["user:a", "a", "user:chat:a", ":a"].map(subject));
    assert_eq!(located.iter().map(|it| it.places.len()).collect::<Vec<_>>(), [1, 1, 0, 0]);
    // What is online stays until it was said that it is not.
    member.goodbye(stream, 11_000);
    member.tick(11_000, 64);
    assert_eq!((stored(&member), member.figures().leases_expired), ((2, 2), 0));
    member.tick(21_000, 64);
    assert_eq!((stored(&member), member.figures().transitions_in_flight), ((0, 0), 8));
}

#[test]
fn a_node_that_flaps_keeps_nobody_alive() {
    let (mut member, _) = speaking(&["a"]);
    for session in 2..8 {
        let at = 10_000 + session * 1_000;
        let stream = member.hello(hello(7), session, at).expect("newer");
        let unfinished = Batch { seq: session, ..Batch::default() };
        member.batch(stream, &unfinished, at).expect("applies");
        let is_there = !member.table().locate(&[subject("a")])[0].places.is_empty();
        assert_eq!(is_there, at < 13_000, "at {at}");
    }
}

#[test]
fn nodes_have_a_limit() {
    let mut member = member();
    for node in 0..limits::REGISTRY_NODES_LIMIT as u128 {
        member.hello(hello(node + 1), 1, 0).expect("room");
    }
    let refusal = member.hello(hello(0), 1, 0).expect_err("full");
    assert_eq!((refusal, refusal.kind()), (Refusal::TooManyNodes, ErrorKind::Overloaded));
    member.tick(5_000, 64);
    member.hello(hello(0), 1, 5_000).expect("the leases ended, and the pass made room");
}
