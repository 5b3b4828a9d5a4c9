//! Takes frames apart for the mutants.

use std::collections::VecDeque;

use tidegate_tenure::{ToNode, ToRouter};
use tidegate_vocab::{Channel, Offset, PartitionId, Term};

use crate::checks::Session;

pub(crate) fn term_down(frame: &mut ToNode) -> &mut Term {
    match frame {
        ToNode::Owned { term, .. }
        | ToNode::Ended { term, .. }
        | ToNode::Event { term, .. }
        | ToNode::Mark { term, .. }
        | ToNode::History { term, .. }
        | ToNode::HistoryEnd { term, .. }
        | ToNode::Lost { term, .. } => term,
    }
}

pub(crate) fn term_up(frame: &mut ToRouter) -> &mut Term {
    match frame {
        ToRouter::Resume { term, .. }
        | ToRouter::Want { term, .. }
        | ToRouter::Unwant { term, .. }
        | ToRouter::Cancel { term, .. }
        | ToRouter::Ack { term, .. } => term,
    }
}

/// Makes a data frame one of another session.
pub(crate) fn readdress(frame: &mut ToNode, session: Session) {
    match frame {
        ToNode::Owned { .. } | ToNode::Ended { .. } => {}
        ToNode::Event { term, n, .. }
        | ToNode::Mark { term, n, .. }
        | ToNode::History { term, n, .. }
        | ToNode::HistoryEnd { term, n, .. }
        | ToNode::Lost { term, n, .. } => (*term, *n) = (session.term, session.n),
    }
}

pub(crate) fn mark(partition: PartitionId, session: Session, next: Offset) -> ToNode {
    ToNode::Mark { partition, term: session.term, n: session.n, next, age_ms: 0 }
}

fn wanted(frame: &ToRouter) -> Option<(&Channel, bool)> {
    match frame {
        ToRouter::Want { channel, .. } => Some((channel, true)),
        ToRouter::Unwant { channel, .. } => Some((channel, false)),
        ToRouter::Resume { .. } | ToRouter::Cancel { .. } | ToRouter::Ack { .. } => None,
    }
}

fn number(frame: &mut ToRouter) -> Option<&mut u64> {
    match frame {
        ToRouter::Want { number, .. } | ToRouter::Unwant { number, .. } => Some(number),
        ToRouter::Resume { .. } | ToRouter::Cancel { .. } | ToRouter::Ack { .. } => None,
    }
}

/// Lets a Want or Unwant overtake the last one of the other kind for its channel; the numbers stay in order.
pub(crate) fn swap_with_other(queue: &mut VecDeque<ToRouter>, frame: &mut ToRouter) {
    let Some((channel, wants)) = wanted(frame) else { return };
    let other = queue.iter().rposition(|queued| wanted(queued) == Some((channel, !wants)));
    let Some(queued) = other.and_then(|at| queue.get_mut(at)) else { return };
    if let (Some(earlier), Some(later)) = (number(queued), number(frame)) {
        std::mem::swap(earlier, later);
    }
    std::mem::swap(queued, frame);
}
