//! The invariants of TENURES, one pure function each.

use std::collections::BTreeSet;

use tidegate_tenure::{NodeOut, Nonce, StreamId, ToNode};
use tidegate_vocab::{Channel, LogEpoch, Offset, Term};

use crate::audit::Audit;
use crate::client::Follow;
use crate::log::{Log, Rec, Store};

/// A broken invariant, by name.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) detail: String,
}

pub(crate) type Check = Result<(), Violation>;

pub(crate) fn hold(holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Violation { invariant, detail: detail() }) }
}

/// What a node listens to: the stream, term and number of its last Resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) stream: StreamId,
    pub(crate) term: Term,
    pub(crate) n: u64,
}

/// The stream's, term's and Resume's number of a data frame.
pub(crate) fn address(stream: StreamId, frame: &ToNode) -> Option<Session> {
    match frame {
        ToNode::Owned { .. } | ToNode::Ended { .. } => None,
        ToNode::Event { term, n, .. }
        | ToNode::Mark { term, n, .. }
        | ToNode::History { term, n, .. }
        | ToNode::HistoryEnd { term, n, .. }
        | ToNode::Lost { term, n, .. } => Some(Session { stream, term: *term, n: *n }),
    }
}

/// Node: a frame reaching a shard has the current n, term and stream.
pub(crate) fn stale_frames_reach_no_shard(
    session: Option<Session>,
    stream: StreamId,
    frame: &ToNode,
    out: &[NodeOut],
) -> Check {
    let current = address(stream, frame).is_none_or(|address| session == Some(address));
    hold(current || out.is_empty(), "stale_frames_reach_no_shard", || format!("{frame:?} led to {out:?}"))
}

/// Connection: nobody is given something of a log that he was not told of.
pub(crate) fn epoch_is_told(told: Option<LogEpoch>, epoch: LogEpoch) -> Check {
    hold(told == Some(epoch), "epoch_is_told", || format!("{epoch} came to one in {told:?}"))
}

/// Node: n rises with every Resume, the accepted term never falls, and at a term change `from <= term`.
pub(crate) fn resume_goes_on(
    before: Option<Session>,
    highest: Term,
    now: Session,
    from: Option<Offset>,
) -> Check {
    let invariant = "resume_goes_on";
    let n = before.map_or(0, |session| session.n);
    hold(now.n > n, invariant, || format!("n {} after {n}", now.n))?;
    hold(now.term >= highest, invariant, || format!("{:?} after {highest:?}", now.term))?;
    let change = before.is_none_or(|session| session.term != now.term);
    let from = from.unwrap_or_default();
    hold(!change || from.0 <= now.term.0, invariant, || format!("from {from} in {:?}", now.term))
}

/// Node: what an acknowledgement says is wanted is what its Resume, Wants and Unwants said.
pub(crate) fn interest_agrees(told: &BTreeSet<Channel>, held: u64, held_xor: u64) -> Check {
    let xor = told.iter().fold(0, |xor, channel| xor ^ channel.hash64());
    let agrees = held == told.len() as u64 && held_xor == xor;
    hold(agrees, "interest_agrees", || format!("{held} held, told {told:?}"))
}

/// Who is live is told lost only for what could not be read, or what the log no longer has: never for an eviction.
pub(crate) fn live_lost_has_a_cause(log: &Log, channel: &Channel, from: u64, upto: u64) -> Check {
    let caused = from < log.start || (from..upto).any(|offset| log.is_dead(channel, offset));
    hold(caused, "lost_has_a_cause", || format!("{channel:?} is live, and [{from}, {upto}) is there"))
}

/// Store: the interval is one, and H is in it.
pub(crate) fn store_is_an_interval(store: &Store, h_before: u64, log: &Log) -> Check {
    let holds = store.floor <= store.h && store.h >= h_before && store.h <= log.end();
    hold(holds, "store_is_an_interval", || format!("[{}, {}) after {h_before}", store.floor, store.h))
}

/// Connection: `pos` strictly rises per (connection, channel).
pub(crate) fn pos_rises(last: Option<u64>, offset: u64) -> Check {
    hold(last.is_none_or(|last| last < offset), "pos_rises", || format!("{offset} after {last:?}"))
}

/// A client that follows one channel sees no event twice.
pub(crate) fn one_channel_sees_no_repeat(channels: usize, follow: &Follow, offset: u64) -> Check {
    let fine = channels > 1 || !follow.got.contains(&offset);
    hold(fine, "one_channel_sees_no_repeat", || format!("{offset} again in {:?}", follow.channel))
}

/// No cursor passes an event of its channel that was neither delivered nor told as lost.
pub(crate) fn cursor_passes_nothing(follow: &Follow, position: u64, log: &Log, now_ms: u64) -> Check {
    match first_missing(follow, position, log, now_ms) {
        None => Ok(()),
        Some(offset) => Err(Violation {
            invariant: "cursor_passes_nothing",
            detail: format!("{:?}: cursor {position} passed undelivered {offset}", follow.channel),
        }),
    }
}

/// At the end every event from a follower's start on has been delivered or told as lost.
pub(crate) fn nothing_is_missing(follow: &Follow, log: &Log, now_ms: u64) -> Check {
    match first_missing(follow, log.end(), log, now_ms) {
        None => Ok(()),
        Some(offset) => Err(Violation {
            invariant: "nothing_is_missing",
            detail: format!("{:?}: {offset} never came", follow.channel),
        }),
    }
}

fn first_missing(follow: &Follow, upto: u64, log: &Log, now_ms: u64) -> Option<u64> {
    let start = follow.start?.max(follow.verified);
    let told = |offset| follow.lost.iter().any(|(from, upto)| (*from..*upto).contains(&offset));
    log.rows(&follow.channel, start, upto)
        .find(|offset| !follow.got.contains(offset) && !told(*offset) && !log.is_expired(*offset, now_ms))
}

/// An owner never says `Owned` twice for one term on one stream while its tenure is open there: that would mean that
/// the two sides disagreed about what is wanted.
pub(crate) fn owned_is_not_repeated(open: Option<&Audit>, frame: &ToNode) -> Check {
    let repeated =
        matches!(frame, ToNode::Owned { term, .. } if open.is_some_and(|audit| audit.term == *term));
    hold(!repeated, "owned_is_not_repeated", || format!("{frame:?}"))
}

/// Owner: it serves only while the last takeover that it consumed carries its current nonce, and in that term.
pub(crate) fn serves_by_its_own_takeover(
    log: &Log,
    h: u64,
    nonce: Option<Nonce>,
    term: Option<Term>,
) -> Check {
    let Some(term) = term else { return Ok(()) };
    let last = (0..h).rev().find_map(|offset| match log.get(offset) {
        Some(Rec::Takeover { nonce, .. }) => Some((Some(*nonce), Term::of_takeover_at(Offset(offset)))),
        _ => None,
    });
    hold(last == Some((nonce, term)), "serves_by_its_own_takeover", || format!("{term:?} after {last:?}"))
}
