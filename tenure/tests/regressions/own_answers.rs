//! Rule 9: which Wants a node may answer itself. Each test is an interleaving in which a laxer reading loses something.

use tidegate_tenure::{Outcome, ToRouter, WantFrom};
use tidegate_vocab::{Offset, limits};

use crate::node_rig::{NodeRig, Own};
use crate::rig::{CHANNEL, EPOCH, OTHER_EPOCH, next, owned_by};

fn recovered(rows: &[u64], upto: u64) -> Result<Own, Vec<ToRouter>> {
    Ok((Outcome::Recovered, rows.to_vec(), upto))
}

/// Numbers of the Wants and Unwants in what was sent.
fn numbers(sent: &[ToRouter]) -> Vec<u64> {
    let number = |frame: &ToRouter| match frame {
        ToRouter::Want { number, .. } | ToRouter::Unwant { number, .. } => Some(*number),
        _ => None,
    };
    sent.iter().filter_map(number).collect()
}

fn held(sent: &[ToRouter]) -> Vec<(u64, u64)> {
    let ack = |frame: &ToRouter| match frame {
        ToRouter::Ack { held, number, .. } => Some((*held, *number)),
        _ => None,
    };
    sent.iter().filter_map(ack).collect()
}

#[test]
fn a_cursor_is_answered_here_from_where_the_hold_began_to_where_the_node_is() {
    let mut rig = NodeRig::holding();
    assert_eq!(rig.want(next(20)), recovered(&[22, 24], 30));
    assert_eq!(rig.want(next(23)), recovered(&[24], 30));
    assert_eq!(rig.want(next(30)), recovered(&[], 30));
    assert!(rig.want(next(19)).is_err(), "what came before the hold is not here");
    assert!(rig.want(next(31)).is_err(), "only the owner knows whether that will ever be");
    let elsewhere = WantFrom::Next { epoch: OTHER_EPOCH, offset: Offset(25) };
    assert!(rig.want(elsewhere).is_err());
    for from in [WantFrom::Start, WantFrom::Last(1), WantFrom::Since(0)] {
        assert!(rig.want(from).is_err(), "only the owner knows what exists");
    }
}

#[test]
fn from_now_on_is_answered_here_only_on_an_owners_stream() {
    let mut rig = NodeRig::holding();
    assert_eq!(rig.want(WantFrom::Now), Ok((Outcome::Fresh, vec![], 30)));
    rig.cut();
    assert_eq!(rig.want(WantFrom::Now), Err(vec![]), "30 may have been now an hour ago");
    assert_eq!(rig.want(next(22)), recovered(&[22, 24], 30), "but a cursor goes on from there");
}

/// The first Want of the channel is on its way: nothing is known to follow.
#[test]
fn a_channel_that_is_only_pending_is_not_joined_here() {
    let mut rig = NodeRig::holding();
    assert!(rig.want_of("d", WantFrom::Now).is_err());
    assert!(rig.want_of("d", next(30)).is_err());
}

/// next[P] lies below the hold's begin until the first Event or Mark: what lies between came to others only.
#[test]
fn a_hold_that_began_above_the_nodes_next_answers_nothing_yet() {
    let mut rig = NodeRig::holding();
    assert!(rig.want_of("d", WantFrom::Now).is_err());
    rig.end(rig.last_want(), Outcome::Fresh, 40);
    assert!(rig.want_of("d", WantFrom::Now).is_err());
    assert!(rig.want_of("d", next(30)).is_err());
    rig.mark(41);
    assert_eq!(rig.want_of("d", next(40)), recovered(&[], 41));
}

#[test]
fn a_ring_that_dropped_rows_answers_from_behind_them() {
    let mut rig = NodeRig::holding_with(100);
    assert!(rig.want(next(22)).is_err());
    assert_eq!(rig.want(next(23)), recovered(&[24], 30));
    let mut rig = NodeRig::holding_with(0);
    assert!(rig.want(next(24)).is_err());
    assert_eq!(rig.want(next(25)), recovered(&[], 30));
}

#[test]
fn what_was_lost_ends_the_hold_below_it() {
    for (of, here) in [(Some(CHANNEL), false), (None, false), (Some("d"), true)] {
        let mut rig = NodeRig::holding();
        rig.lost(of, 33);
        rig.event(35);
        rig.mark(40);
        assert_eq!(rig.want(next(22)).is_ok(), here, "lost in {of:?}");
        assert_eq!(rig.want(next(32)).is_ok(), here, "lost in {of:?}");
        assert_eq!(rig.want(next(33)), recovered(&[35], 40));
    }
}

/// Told, and then the stream was cut before a Mark: the next owner tells it again, and the hold begins there.
#[test]
fn a_loss_that_no_mark_followed_still_counts_in_the_next_session() {
    let mut rig = NodeRig::holding();
    rig.lost(Some(CHANNEL), 33);
    rig.owned(2, 26, EPOCH);
    rig.mark(32);
    assert!(rig.want(next(32)).is_err());
    rig.lost(Some(CHANNEL), 33);
    rig.mark(34);
    assert_eq!(rig.want(next(33)), recovered(&[], 34));
}

#[test]
fn an_unwant_ends_the_hold_and_a_linger_does_not() {
    let mut rig = NodeRig::holding();
    rig.release();
    rig.now_ms += limits::UNWANT_LINGER_MS - 1;
    rig.tick();
    assert_eq!(rig.want(next(20)), recovered(&[22, 24], 30), "it lingers");
    rig.now_ms += limits::UNWANT_LINGER_MS;
    assert_eq!(numbers(&rig.tick()), [0; 0], "the linger ended with the answer");
    rig.release();
    rig.now_ms += limits::UNWANT_LINGER_MS;
    assert_eq!(numbers(&rig.tick()), [2]);
    assert_eq!(numbers(&rig.want(WantFrom::Now).expect_err("nothing is held")), [3]);
    rig.end(rig.last_want(), Outcome::Fresh, 50);
    rig.mark(60);
    assert!(rig.want(next(24)).is_err(), "the rows of the old hold are not of the new one");
    assert_eq!(rig.want(next(50)), recovered(&[], 60));
}

/// The Resume of the new term goes on from next[P]: nothing is missed, and nothing is counted twice.
#[test]
fn a_new_term_does_not_end_the_hold() {
    let mut rig = NodeRig::holding();
    rig.cut();
    assert_eq!(rig.want(next(22)), recovered(&[22, 24], 30));
    let sent = rig.owned(2, 29, EPOCH);
    assert!(
        matches!(&sent[..], [ToRouter::Resume { n: 2, from: Some(Offset(30)), channels, .. }] if channels.len() == 1),
        "{sent:?}"
    );
    rig.event(31);
    assert_eq!(rig.want(next(22)), recovered(&[22, 24, 31], 32));
    assert_eq!(held(&rig.tick()), [(1, 0)]);
}

#[test]
fn another_log_ends_every_hold() {
    let mut rig = NodeRig::holding();
    rig.owned(2, 29, OTHER_EPOCH);
    let there = |offset| WantFrom::Next { epoch: OTHER_EPOCH, offset: Offset(offset) };
    for from in [next(22), next(30), there(0), there(22), WantFrom::Now] {
        assert!(rig.want(from).is_err(), "{from:?}, before anything came in the new log");
    }
    rig.event(50);
    assert!(rig.want(there(22)).is_err(), "no row of the old log stands for one of the new");
    rig.lose_epoch(2, 51);
    rig.mark(52);
    assert_eq!(rig.want(there(51)), recovered(&[], 52));
    rig.owned(3, 29, EPOCH);
    assert!(rig.want(next(22)).is_err(), "and back again it is another one once more");
}

#[test]
fn what_is_answered_here_leaves_counts_and_numbers_as_they_were() {
    let mut rig = NodeRig::holding();
    assert_eq!(held(&rig.tick()), [(1, 1)]);
    assert!(rig.want(next(22)).is_ok());
    assert!(rig.want(WantFrom::Now).is_ok());
    assert_eq!(numbers(&rig.want_of("d", WantFrom::Now).expect_err("not held")), [2]);
    assert_eq!(held(&rig.tick()), [(2, 2)]);
    for _ in 0..3 {
        rig.release();
    }
    rig.now_ms += limits::UNWANT_LINGER_MS;
    assert_eq!(numbers(&rig.tick()), [3], "three subscriptions were counted, and three have gone");
}

/// Until the owner of the new log has said something a node has no place of its own in it.
#[test]
fn nothing_is_answered_before_an_owner_was_heard() {
    let mut node = tidegate_tenure::Node::new(crate::rig::PARTITION);
    let mut out = Vec::new();
    assert!(!node.subscribe(tidegate_tenure::WantId(1), crate::rig::channel(), next(0), 0, &mut out));
    node.on_frame(crate::node_rig::STREAM, owned_by(3, EPOCH), 0, &mut out);
    assert!(!node.subscribe(tidegate_tenure::WantId(2), crate::rig::channel(), next(0), 0, &mut out));
}
