//! Frames to messages.

use std::sync::Arc;

use tidegate_tenure::{LostReason, Outcome, ToNode, ToRouter, WantFrom};
use tidegate_vocab::{Event, EventName, PartitionId, Payload, Term};

use super::topic_number;
use crate::deliver::v1::{self as wire, event, to_node, to_router, want};

/// What a router sends.
#[must_use]
pub fn to_node_to_wire(frame: ToNode) -> wire::ToNode {
    let (partition, term, n, frame) = match frame {
        ToNode::Owned { partition, term, epoch, floor } => {
            (partition, term, 0, to_node::Frame::Owned(wire::Owned { epoch: epoch.0, floor: floor.0 }))
        }
        ToNode::Ended { partition, term } => (partition, term, 0, to_node::Frame::Ended(wire::Ended {})),
        ToNode::Event { partition, term, n, event } => {
            (partition, term, n, to_node::Frame::Event(event_to_wire(event)))
        }
        ToNode::Mark { partition, term, n, next, age_ms } => {
            (partition, term, n, to_node::Frame::Mark(wire::Mark { next: next.0, age_ms }))
        }
        ToNode::History { partition, term, n, want, outcome, rows } => {
            let rows = rows.into_iter().map(event_to_wire).collect();
            let history = wire::History { want: want.0, outcome: outcome_to_wire(outcome).into(), rows };
            (partition, term, n, to_node::Frame::History(history))
        }
        ToNode::HistoryEnd { partition, term, n, want, outcome, upto } => {
            let outcome = outcome_to_wire(outcome).into();
            let end = wire::HistoryEnd { want: want.0, outcome, upto: upto.0 };
            (partition, term, n, to_node::Frame::HistoryEnd(end))
        }
        ToNode::Lost { partition, term, n, channel, upto } => {
            let channel = channel.map(|channel| channel.to_string()).unwrap_or_default();
            (partition, term, n, to_node::Frame::Lost(wire::Lost { channel, upto: upto.0 }))
        }
    };
    wire::ToNode { partition: Some(partition_to_wire(partition)), term: term.0, n, frame: Some(frame) }
}

/// What a node sends.
#[must_use]
pub fn to_router_to_wire(frame: ToRouter) -> wire::ToRouter {
    let partition = Some(partition_to_wire(frame.partition()));
    let (Term(term), n) = frame.session();
    let frame = match frame {
        ToRouter::Resume { from, channels, .. } => {
            let channels = channels.into_iter().map(|channel| channel.to_string()).collect();
            to_router::Frame::Resume(wire::Resume { from: from.map(|from| from.0), channels })
        }
        ToRouter::Want { number, want, channel, from, .. } => to_router::Frame::Want(wire::Want {
            number,
            want: want.0,
            channel: channel.to_string(),
            from: Some(from_to_wire(from)),
        }),
        ToRouter::Unwant { number, channel, .. } => {
            to_router::Frame::Unwant(wire::Unwant { number, channel: channel.to_string() })
        }
        ToRouter::Cancel { want, .. } => to_router::Frame::Cancel(wire::Cancel { want: want.0 }),
        ToRouter::Ack { next, number, held, held_xor, .. } => {
            to_router::Frame::Ack(wire::Ack { next: next.0, number, held, held_xor })
        }
    };
    wire::ToRouter { partition, term, n, frame: Some(frame) }
}

/// The name of a partition.
#[must_use]
pub fn partition_to_wire(partition: PartitionId) -> wire::Partition {
    wire::Partition { topic: topic_number(partition.topic), number: partition.number }
}

fn from_to_wire(from: WantFrom) -> want::From {
    match from {
        WantFrom::Next { epoch, offset } => want::From::Next(wire::Next { epoch: epoch.0, offset: offset.0 }),
        WantFrom::Since(time_ms) => want::From::SinceMs(time_ms),
        WantFrom::Last(count) => want::From::Last(count),
        WantFrom::Start => want::From::Start(true),
        WantFrom::Now => want::From::Now(true),
    }
}

fn outcome_to_wire(outcome: Outcome) -> wire::Outcome {
    match outcome {
        Outcome::Recovered => wire::Outcome::Recovered,
        Outcome::Fresh => wire::Outcome::Fresh,
        Outcome::Lost(LostReason::Expired) => wire::Outcome::LostExpired,
        Outcome::Lost(LostReason::Epoch) => wire::Outcome::LostEpoch,
        Outcome::Lost(LostReason::BadCursor) => wire::Outcome::LostBadCursor,
    }
}

/// An event. The payload is shared, not copied.
#[must_use]
pub fn event_to_wire(event: Arc<Event>) -> wire::Event {
    let name = if event.name == EventName::MESSAGE { String::new() } else { event.name.as_str().to_owned() };
    wire::Event {
        channel: event.channel.to_string(),
        name,
        payload: Some(match &event.payload {
            Payload::Json(bytes) => event::Payload::Json(bytes.clone()),
            Payload::Binary(bytes) => event::Payload::Binary(bytes.clone()),
        }),
        time_ms: event.time_ms,
        offset: event.offset.map(|offset| offset.0),
        expires_ms: event.expires_ms,
        trace_parent: event.trace.map(|trace| trace.to_string()).unwrap_or_default(),
    }
}
