//! A Want whose subscription goes away: what the owner drops, and what stays as it was.

use tidegate_tenure::{Outcome, OwnerOut, Record, ToNode, ToRouter, WantFrom};
use tidegate_vocab::Offset;

use crate::node_rig::NodeRig;
use crate::rig::{CHANNEL, EPOCH, Rig, channel, ends_of, event, next};

fn held_xor() -> u64 {
    channel().hash64()
}

/// An owner with two rows below S and a store that gives one chunk at a time.
fn with_a_long_history() -> Rig {
    let mut rig = Rig::serving(1 << 20);
    for offset in 1..9 {
        rig.consume(Record::Event(event(offset)));
    }
    rig.resume(1, None, &[]);
    rig.rows.rows = vec![event(1)];
    rig.rows.stalled = true;
    rig.room = 1;
    rig
}

fn rows_of(frames: &[ToNode]) -> usize {
    frames.iter().filter(|frame| matches!(frame, ToNode::History { .. })).count()
}

#[track_caller]
fn agrees(rig: &mut Rig, number: u64, held: u64, held_xor: u64) {
    rig.ack(9, number, held, held_xor);
    let outs = rig.take_out();
    assert!(!outs.iter().any(|out| matches!(out, OwnerOut::Send(_, ToNode::Owned { .. }))), "{outs:?}");
}

/// The client of a paused History went away, and its owner read and sent the rest of it to nobody.
#[test]
fn a_history_that_is_cancelled_half_way_ends_without_an_end() {
    let mut rig = with_a_long_history();
    rig.want(1, 1, next(1));
    assert_eq!(rows_of(&rig.pump()), 1);
    let reads = rig.rows.reads.get();
    rig.cancel(1);
    rig.room = 1 << 20;
    assert_eq!(rig.pump(), []);
    assert_eq!(rig.rows.reads.get(), reads, "nothing is read for it either");
    agrees(&mut rig, 1, 1, held_xor());
    rig.unwant(2);
    rig.pump();
    agrees(&mut rig, 2, 0, 0);
}

/// Its channel was not counted yet, and so the next acknowledgement would have cost a Resume.
#[test]
fn a_want_that_is_cancelled_before_its_turn_still_counts_its_channel() {
    let mut rig = Rig::serving(1 << 20);
    rig.resume(1, None, &[]);
    rig.want(1, 1, WantFrom::Now);
    rig.cancel(1);
    assert_eq!(rig.ends(), []);
    agrees(&mut rig, 1, 1, held_xor());
    rig.want(2, 2, WantFrom::Now);
    assert_eq!(rig.ends(), [(2, Outcome::Fresh, 1)]);
    agrees(&mut rig, 2, 1, held_xor());
}

#[test]
fn a_cancelled_want_that_waits_for_the_interval_is_forgotten() {
    let mut rig = Rig::serving(1 << 20);
    rig.rows.floor = 1;
    rig.resume(1, None, &[]);
    rig.want(1, 1, WantFrom::Start);
    rig.want(2, 2, WantFrom::Start);
    assert_eq!(rig.ends(), []);
    rig.cancel(1);
    rig.rows.floor = 0;
    assert_eq!(rig.ends(), [(2, Outcome::Fresh, 1)]);
    agrees(&mut rig, 2, 1, held_xor());
}

/// The client went away while its HistoryEnd was on the way: the channel is live, and stays so.
#[test]
fn a_cancel_that_crosses_its_end_changes_nothing() {
    let mut rig = Rig::serving(1 << 20);
    rig.resume(1, None, &[]);
    rig.want(1, 1, WantFrom::Now);
    assert_eq!(rig.ends().len(), 1);
    rig.cancel(1);
    rig.consume(Record::Event(event(1)));
    assert!(matches!(&rig.pump()[..], [ToNode::Event { .. }]));
    agrees(&mut rig, 1, 1, held_xor());
}

#[test]
fn another_want_of_the_channel_is_answered_whatever_is_cancelled() {
    let mut rig = with_a_long_history();
    rig.want(1, 1, next(1));
    rig.pump();
    rig.want(2, 2, WantFrom::Now);
    rig.cancel(1);
    rig.room = 1 << 20;
    assert_eq!(ends_of(&rig.pump()), [(2, Outcome::Fresh, 9)]);
    rig.consume(Record::Event(event(9)));
    assert!(matches!(&rig.pump()[..], [ToNode::Event { .. }]), "live from S on");
    agrees(&mut rig, 2, 1, held_xor());
}

#[test]
fn a_live_channel_stays_live_when_a_later_want_of_it_is_cancelled() {
    let mut rig = with_a_long_history();
    rig.want(1, 1, WantFrom::Now);
    rig.pump();
    rig.want(2, 2, next(1));
    rig.pump();
    rig.cancel(2);
    rig.room = 1 << 20;
    rig.consume(Record::Event(event(9)));
    assert!(matches!(&rig.pump()[..], [ToNode::Event { .. }]));
}

/// The node sent the Want again under a new Resume; what it said under the old one came late on the old stream.
#[test]
fn a_cancel_of_an_older_resume_cancels_nothing() {
    let mut rig = Rig::serving(1 << 20);
    rig.resume(1, None, &[]);
    rig.want(1, 7, WantFrom::Now);
    rig.resume(2, None, &[]);
    rig.want(1, 7, WantFrom::Now);
    rig.cancel_in(1, 7);
    assert_eq!(rig.ends().len(), 1);
}

/// Unwant takes what still waits with it; a Cancel that comes behind finds nothing.
#[test]
fn an_unwant_ends_what_was_cancelled_and_what_was_not() {
    let mut rig = Rig::serving(1 << 20);
    rig.rows.floor = 1;
    rig.resume(1, None, &[]);
    rig.want(1, 1, WantFrom::Start);
    rig.pump();
    rig.unwant(2);
    rig.cancel(1);
    rig.rows.floor = 0;
    assert_eq!(rig.ends(), []);
    agrees(&mut rig, 2, 0, 0);
}

#[test]
fn a_node_cancels_in_the_session_in_which_it_asked() {
    let mut rig = NodeRig::holding();
    assert!(rig.want(next(3)).is_err());
    let want = rig.last_want();
    let sent = rig.cancel(want);
    assert!(matches!(&sent[..], [ToRouter::Cancel { n: 1, want: of, .. }] if of.0 == want), "{sent:?}");
    assert_eq!(rig.end(want, Outcome::Recovered, 30), [], "its end was on the way");
    assert_eq!(rig.cancel(want), [], "there is nothing left to cancel");
    let sent = rig.owned(2, 29, EPOCH);
    assert!(matches!(&sent[..], [ToRouter::Resume { .. }]), "it is not asked again: {sent:?}");
}

#[test]
fn without_an_owner_a_cancelled_want_is_just_not_sent_again() {
    let mut rig = NodeRig::holding();
    assert!(rig.want(next(3)).is_err());
    rig.cut();
    assert_eq!(rig.cancel(rig.last_want()), []);
    let sent = rig.owned(2, 29, EPOCH);
    assert!(matches!(&sent[..], [ToRouter::Resume { from: Some(Offset(30)), .. }]), "{sent:?}");
}

/// The rows that came before the Cancel were for one client; they are no part of what the node has of the channel.
#[test]
fn a_cancelled_history_covers_nothing() {
    let mut rig = NodeRig::holding();
    assert!(rig.want_of("d", WantFrom::Start).is_err());
    rig.cancel(rig.last_want());
    assert!(rig.want_of("d", WantFrom::Now).is_err(), "{CHANNEL} is held, d is not");
}
