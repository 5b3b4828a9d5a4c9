//! One test per fault that the simulation or a review found in the two machines; each name tells the story.

mod cancels;
mod node_rig;
mod own_answers;
mod rig;

use rig::{CHANNEL, EPOCH, OTHER_EPOCH, Rig, channel, event, next, owned, owned_by};
use tidegate_tenure::{
    LostReason, Node, NodeOut, Outcome, OwnerOut, Record, Row, StreamId, ToNode, ToRouter, WantFrom, WantId,
};
use tidegate_vocab::{Offset, Term};

fn lost_below(frames: &[ToNode]) -> Vec<u64> {
    let lost = |frame: &ToNode| match frame {
        ToNode::Lost { upto, .. } => Some(upto.0),
        _ => None,
    };
    frames.iter().filter_map(lost).collect()
}

/// Dead letters used to be forgotten with the first Mark after every pointer had passed them.
#[test]
fn who_resumes_below_a_dead_letter_is_told_although_others_have_passed_it() {
    let mut rig = Rig::serving(1 << 20);
    rig.resume(1, None, &[CHANNEL]);
    rig.consume(Record::DeadLetter(Some(channel())));
    assert_eq!(lost_below(&rig.pump()), [2]);
    rig.mark();
    rig.resume(2, Some(1), &[CHANNEL]);
    assert_eq!(lost_below(&rig.pump()), [2], "the node never got what the first Resume was sent");
}

/// A raw replay of the log had no way to carry a dead letter.
#[test]
fn a_dead_letter_below_the_ring_is_told_from_the_log() {
    let mut rig = Rig::serving(0);
    rig.consume(Record::DeadLetter(None));
    rig.resume(1, Some(1), &[CHANNEL]);
    assert_eq!(rig.pump(), []);
    let [OwnerOut::ReadLog { from: Offset(1), .. }] = rig.take_out()[..] else {
        panic!("no read of the log")
    };
    let dead = Row::DeadLetter { offset: Offset(1), channel: None };
    rig.owner.log_rows(rig.stream, Offset(1), vec![dead], Offset(2));
    assert_eq!(lost_below(&rig.pump()), [2]);
}

/// S passed H when the log was read further than the owner had consumed and judged.
#[test]
fn a_read_of_the_log_beyond_h_stops_at_h() {
    let mut rig = Rig::serving(0);
    rig.consume(Record::Event(event(1)));
    rig.resume(1, Some(1), &[CHANNEL]);
    rig.pump();
    rig.owner.log_rows(rig.stream, Offset(1), vec![Row::Event(event(1)), Row::Event(event(2))], Offset(3));
    assert_eq!(rig.pump().len(), 1);
    assert_eq!(rig.mark(), [2]);
}

/// The Lost for a log that begins later went another way than the rows after it, and could come behind them.
#[test]
fn a_log_that_begins_later_is_told_before_its_rows_and_marks() {
    let mut rig = Rig::serving(100);
    for offset in 1..5 {
        rig.consume(Record::Event(event(offset)));
    }
    rig.resume(1, Some(1), &[CHANNEL]);
    assert_eq!(rig.pump(), []);
    rig.owner.log_gone(rig.stream, Offset(4));
    assert_eq!(rig.mark(), [1], "not past what nobody was told of");
    let frames = rig.pump();
    assert_eq!((frames.len(), lost_below(&frames[..1])), (2, vec![4]));
}

/// A watermark asked for in the same millisecond, but before the Want, judged the Want's cursor.
#[test]
fn a_watermark_asked_for_in_the_wants_own_millisecond_does_not_judge_it() {
    let mut rig = Rig::serving(1 << 20);
    rig.resume(1, None, &[]);
    rig.want(1, 1, next(9));
    assert_eq!(rig.pump(), []);
    rig.owner.high_watermark(Offset(1), rig.now_ms);
    assert_eq!(rig.pump(), []);
    rig.now_ms += 1_000;
    rig.pump();
    assert_eq!(
        rig.take_out(),
        [OwnerOut::AskHighWatermark],
        "it is asked for, and again when no answer comes"
    );
    rig.owner.high_watermark(Offset(1), rig.now_ms);
    assert_eq!(rig.ends(), [(1, Outcome::Lost(LostReason::BadCursor), 1)]);
}

/// Numbers went on from session to session, so an Ack was compared only after the first Want of a session.
#[test]
fn a_disagreement_is_noticed_in_a_session_without_wants() {
    let mut rig = Rig::serving(1 << 20);
    rig.resume(1, None, &[CHANNEL]);
    rig.ack(1, 0, 0, 0);
    let outs = rig.take_out();
    assert!(matches!(outs[..], [OwnerOut::Send(_, ToNode::Owned { .. })]), "{outs:?}");
    rig.ack(1, 0, 0, 0);
    assert_eq!(rig.take_out(), [], "once is enough");
}

/// A Want out of order was an assertion, so in production nothing at all.
#[test]
fn a_want_that_went_missing_costs_one_resume() {
    let mut rig = Rig::serving(1 << 20);
    rig.resume(1, None, &[]);
    rig.want(2, 1, WantFrom::Now);
    assert!(matches!(rig.take_out()[..], [OwnerOut::Send(_, ToNode::Owned { .. })]));
    assert_eq!(rig.ends(), []);
}

/// When an interval grew, all Wants that had waited for it were answered into one pump, whatever its room.
#[test]
fn wants_that_waited_are_answered_within_the_room() {
    let mut rig = Rig::serving(1 << 20);
    rig.rows.floor = 1;
    rig.resume(1, None, &[]);
    for want in 1..=100 {
        rig.want(want, want, WantFrom::Start);
    }
    assert_eq!(rig.ends(), []);
    rig.rows.floor = 0;
    rig.room = 640;
    assert_eq!(rig.ends().len(), 10);
}

/// A Want that waited was tried with every pump: thousands of reads for each event.
#[test]
fn wants_that_wait_do_not_read_the_store_with_every_pump() {
    let mut rig = Rig::serving(1 << 20);
    rig.rows.floor = 1;
    rig.resume(1, None, &[]);
    rig.want(1, 1, WantFrom::Start);
    rig.pump();
    let reads = rig.rows.reads.get();
    for _ in 0..100 {
        rig.pump();
    }
    assert!(rig.rows.reads.get() <= reads + 1);
    rig.rows.floor = 0;
    assert_eq!(rig.ends().len(), 1, "a new floor is noticed at once");
}

/// An incomplete read without rows counted as complete, and what it had not read was passed over.
#[test]
fn a_read_that_yields_nothing_yet_passes_nothing_over() {
    let mut rig = Rig::serving(1 << 20);
    rig.consume(Record::Event(event(1)));
    rig.resume(1, None, &[]);
    rig.want(1, 1, next(0));
    rig.rows.stalled = true;
    assert_eq!(rig.ends(), []);
    rig.now_ms += 1_000;
    rig.rows.stalled = false;
    rig.rows.rows = vec![event(1)];
    let frames = rig.pump();
    assert!(frames.iter().any(|frame| matches!(frame, ToNode::History { rows, .. } if rows.len() == 1)));
    assert_eq!(rig::ends_of(&frames), [(1, Outcome::Recovered, 2)]);
}

/// A slow node's cursor above S was told `expired` for rows that were evicted but still to be sent live.
#[test]
fn what_is_still_to_be_sent_is_not_lost_whatever_was_evicted() {
    for (from, end) in [(next(3), (1, Outcome::Recovered, 3)), (WantFrom::Start, (1, Outcome::Fresh, 1))] {
        let mut rig = Rig::serving(1 << 20);
        rig.resume(1, None, &[]);
        for offset in 1..9 {
            rig.consume(Record::Event(event(offset)));
        }
        rig.rows.evicted = 8;
        rig.want(1, 1, from);
        let frames = rig.pump();
        assert_eq!(rig::ends_of(&frames), [end]);
        assert_eq!(frames.iter().filter(|frame| matches!(frame, ToNode::Event { .. })).count(), 8);
    }
}

/// A channel without history could never resume, although the ring had everything.
#[test]
fn a_channel_without_history_resumes_from_the_ring() {
    let mut rig = Rig::serving(1 << 20);
    for offset in 1..9 {
        rig.consume(Record::Event(event(offset)));
    }
    rig.rows.evicted = 9;
    rig.resume(1, None, &[]);
    rig.want(1, 1, next(3));
    let frames = rig.pump();
    // What is live comes to S before the rows do, or a cursor made with them would be below them.
    assert!(matches!(&frames[0], ToNode::Mark { next: Offset(9), .. }), "{frames:?}");
    assert!(matches!(&frames[1], ToNode::History { rows, .. } if rows.len() == 6), "{frames:?}");
    assert_eq!(rig::ends_of(&frames), [(1, Outcome::Recovered, 9)]);
    rig.consume(Record::DeadLetter(Some(channel())));
    rig.pump();
    rig.want(2, 2, next(3));
    assert_eq!(rig.ends(), [(2, Outcome::Lost(LostReason::Expired), 10)], "not past a dead letter");
}

/// The rest of a `start` asked for in a second session came back as `recovered`.
#[test]
fn a_fresh_want_stays_fresh_when_it_goes_on_in_another_session() {
    let (mut node, mut out) = (Node::new(rig::PARTITION), Vec::new());
    node.subscribe(WantId(1), channel(), WantFrom::Start, 0, &mut out);
    node.on_frame(StreamId(1), owned(3), 0, &mut out);
    let (partition, want, term) = (rig::PARTITION, WantId(1), Term(3));
    let (outcome, rows) = (Outcome::Fresh, vec![event(1)]);
    node.on_frame(StreamId(1), ToNode::History { partition, term, n: 1, want, outcome, rows }, 0, &mut out);
    node.on_frame(StreamId(2), owned(3), 0, &mut out);
    let sent = |out: &NodeOut| match out {
        NodeOut::Send(_, ToRouter::Want { from, .. }) => Some(*from),
        _ => None,
    };
    assert_eq!(out.iter().filter_map(sent).collect::<Vec<_>>(), [WantFrom::Start, next(2)]);
    let (outcome, upto) = (Outcome::Recovered, Offset(4));
    node.on_frame(
        StreamId(2),
        ToNode::HistoryEnd { partition, term, n: 2, want, outcome, upto },
        0,
        &mut out,
    );
    assert!(matches!(out.last(), Some(NodeOut::Established { outcome: Outcome::Fresh, .. })));
}

fn established() -> Node {
    let (mut node, mut out) = (Node::new(rig::PARTITION), Vec::new());
    node.subscribe(WantId(1), channel(), WantFrom::Now, 0, &mut out);
    node.on_frame(StreamId(1), owned(30), 0, &mut out);
    let (partition, want, term) = (rig::PARTITION, WantId(1), Term(30));
    let (outcome, upto) = (Outcome::Fresh, Offset(30));
    node.on_frame(
        StreamId(1),
        ToNode::HistoryEnd { partition, term, n: 1, want, outcome, upto },
        0,
        &mut out,
    );
    node
}

/// Two owners in a row, before the first event of the new log: what came between them was lost in silence.
#[test]
fn who_goes_on_from_now_twice_in_a_new_log_is_told_twice() {
    let mut node = established();
    let mut out = Vec::new();
    for (stream, term) in [(2, 5), (3, 9)] {
        node.on_frame(StreamId(stream), owned_by(term, OTHER_EPOCH), 0, &mut out);
    }
    let told = out.iter().filter(|out| matches!(out, NodeOut::EpochChanged(OTHER_EPOCH))).count();
    assert_eq!(told, 2);
}

/// An `Owned` of the old log that came late won for good: the owner in the new log had spoken already.
#[test]
fn a_late_owner_of_the_old_log_does_not_keep_the_node_when_it_ends() {
    let mut node = established();
    let mut out = Vec::new();
    node.on_frame(StreamId(2), owned_by(5, OTHER_EPOCH), 0, &mut out);
    node.on_frame(StreamId(1), owned_by(31, EPOCH), 0, &mut out);
    node.on_frame(StreamId(1), ToNode::Ended { partition: rig::PARTITION, term: Term(31) }, 0, &mut out);
    assert!(!node.is_served());
    node.tick(0, &mut out);
    assert!(node.is_served());
    assert_eq!(node.epoch(), Some(OTHER_EPOCH));
}

/// Two late words of routers that had learned of the new log, one behind the other: the node left the new log's owner
/// for them, and when both had ended it never came back to the one that still served.
#[test]
fn an_owner_that_was_left_for_late_words_is_found_again() {
    let mut node = established();
    let mut out = Vec::new();
    node.on_frame(StreamId(3), owned_by(13, OTHER_EPOCH), 0, &mut out);
    for (term, epoch) in [(31, EPOCH), (6, OTHER_EPOCH)] {
        node.on_frame(StreamId(1), owned_by(term, epoch), 0, &mut out);
        let ended = ToNode::Ended { partition: rig::PARTITION, term: Term(term) };
        node.on_frame(StreamId(1), ended, 0, &mut out);
    }
    assert!(!node.is_served());
    out.clear();
    node.tick(0, &mut out);
    let resumed =
        |out: &NodeOut| matches!(out, NodeOut::Send(StreamId(3), ToRouter::Resume { term: Term(13), .. }));
    assert!(out.iter().any(resumed), "{out:?}");
}

/// An owner of a lower term in the same log was overtaken: it is not come back to.
#[test]
fn an_overtaken_owner_is_not_followed_again() {
    let mut node = established();
    let mut out = Vec::new();
    node.on_frame(StreamId(2), owned_by(40, EPOCH), 0, &mut out);
    node.stream_down(StreamId(2));
    node.tick(0, &mut out);
    assert!(!node.is_served());
}

/// A late word of the old log, and then one of an overtaken owner of this one: the node left the true owner for it.
#[test]
fn another_log_is_no_way_back_to_an_overtaken_owner() {
    let mut node = established();
    let mut out = Vec::new();
    node.on_frame(StreamId(2), owned_by(40, EPOCH), 0, &mut out);
    node.on_frame(StreamId(3), owned_by(9, OTHER_EPOCH), 0, &mut out);
    node.on_frame(StreamId(1), owned_by(30, EPOCH), 0, &mut out);
    assert_eq!(node.epoch(), Some(OTHER_EPOCH));
    node.stream_down(StreamId(3));
    out.clear();
    node.tick(0, &mut out);
    let resumed =
        |out: &NodeOut| matches!(out, NodeOut::Send(StreamId(2), ToRouter::Resume { term: Term(40), .. }));
    assert!(out.iter().any(resumed), "{out:?}");
}
