//! Messages to frames.

use std::sync::Arc;

use tidegate_tenure::{LostReason, Outcome, ToNode, ToRouter, WantFrom, WantId};
use tidegate_vocab::{Channel, Event, EventName, LogEpoch, Offset, PartitionId, Payload, Term, TraceContext};

use super::{FrameError, topic_of_number};
use crate::deliver::v1::{self as wire, event, to_node, to_router, want};

/// What a router sent.
///
/// # Errors
/// When it is no frame of a partition.
pub fn to_node_from_wire(message: wire::ToNode) -> Result<ToNode, FrameError> {
    let partition = partition_from_wire(message.partition)?;
    let (term, n) = (Term(message.term), message.n);
    Ok(match message.frame.ok_or(FrameError::Missing("its body"))? {
        to_node::Frame::Hello(_) => return Err(FrameError::Bad("hello in its middle")),
        to_node::Frame::Owned(owned) => {
            ToNode::Owned { partition, term, epoch: LogEpoch(owned.epoch), floor: Offset(owned.floor) }
        }
        to_node::Frame::Ended(wire::Ended {}) => ToNode::Ended { partition, term },
        to_node::Frame::Event(event) => ToNode::Event { partition, term, n, event: event_from_wire(event)? },
        to_node::Frame::Mark(mark) => {
            ToNode::Mark { partition, term, n, next: Offset(mark.next), age_ms: mark.age_ms }
        }
        to_node::Frame::History(history) => ToNode::History {
            partition,
            term,
            n,
            want: WantId(history.want),
            outcome: outcome(history.outcome)?,
            rows: history.rows.into_iter().map(event_from_wire).collect::<Result<_, _>>()?,
        },
        to_node::Frame::HistoryEnd(end) => ToNode::HistoryEnd {
            partition,
            term,
            n,
            want: WantId(end.want),
            outcome: outcome(end.outcome)?,
            upto: Offset(end.upto),
        },
        to_node::Frame::Lost(lost) => {
            let channel = if lost.channel.is_empty() { None } else { Some(channel(&lost.channel)?) };
            ToNode::Lost { partition, term, n, channel, upto: Offset(lost.upto) }
        }
    })
}

/// What a node sent.
///
/// # Errors
/// When it is no frame of a partition.
pub fn to_router_from_wire(message: wire::ToRouter) -> Result<ToRouter, FrameError> {
    let partition = partition_from_wire(message.partition)?;
    let (term, n) = (Term(message.term), message.n);
    Ok(match message.frame.ok_or(FrameError::Missing("its body"))? {
        to_router::Frame::Hello(_) => return Err(FrameError::Bad("hello in its middle")),
        to_router::Frame::Resume(resume) => ToRouter::Resume {
            partition,
            term,
            n,
            from: resume.from.map(Offset),
            channels: resume.channels.iter().map(|name| channel(name)).collect::<Result<_, _>>()?,
        },
        to_router::Frame::Want(want) => ToRouter::Want {
            partition,
            term,
            n,
            number: want.number,
            want: WantId(want.want),
            channel: channel(&want.channel)?,
            from: want_from(want.from)?,
        },
        to_router::Frame::Unwant(unwant) => {
            ToRouter::Unwant { partition, term, n, number: unwant.number, channel: channel(&unwant.channel)? }
        }
        to_router::Frame::Cancel(cancel) => {
            ToRouter::Cancel { partition, term, n, want: WantId(cancel.want) }
        }
        to_router::Frame::Ack(ack) => ToRouter::Ack {
            partition,
            term,
            n,
            next: Offset(ack.next),
            number: ack.number,
            held: ack.held,
            held_xor: ack.held_xor,
        },
    })
}

/// A partition that a peer named.
///
/// # Errors
/// When it is missing or of a topic that nodes do not follow.
pub fn partition_from_wire(partition: Option<wire::Partition>) -> Result<PartitionId, FrameError> {
    let partition = partition.ok_or(FrameError::Missing("its partition"))?;
    let topic = topic_of_number(partition.topic).ok_or(FrameError::Bad("topic"))?;
    Ok(PartitionId { topic, number: partition.number })
}

fn channel(name: &str) -> Result<Channel, FrameError> {
    Channel::parse(name).map_err(|_| FrameError::Bad("channel"))
}

fn want_from(from: Option<want::From>) -> Result<WantFrom, FrameError> {
    Ok(match from.ok_or(FrameError::Missing("from where"))? {
        want::From::Next(next) => WantFrom::Next { epoch: LogEpoch(next.epoch), offset: Offset(next.offset) },
        want::From::SinceMs(time_ms) => WantFrom::Since(time_ms),
        want::From::Last(count) => WantFrom::Last(count),
        want::From::Start(true) => WantFrom::Start,
        want::From::Now(true) => WantFrom::Now,
        want::From::Start(false) | want::From::Now(false) => return Err(FrameError::Bad("from where")),
    })
}

fn outcome(number: i32) -> Result<Outcome, FrameError> {
    Ok(match wire::Outcome::try_from(number).map_err(|_| FrameError::Bad("outcome"))? {
        wire::Outcome::Recovered => Outcome::Recovered,
        wire::Outcome::Fresh => Outcome::Fresh,
        wire::Outcome::LostExpired => Outcome::Lost(LostReason::Expired),
        wire::Outcome::LostEpoch => Outcome::Lost(LostReason::Epoch),
        wire::Outcome::LostBadCursor => Outcome::Lost(LostReason::BadCursor),
        wire::Outcome::Unspecified => return Err(FrameError::Bad("outcome")),
    })
}

/// An event that a peer sent.
///
/// # Errors
/// When a field is missing or breaks its rule.
pub fn event_from_wire(event: wire::Event) -> Result<Arc<Event>, FrameError> {
    let name = if event.name.is_empty() {
        EventName::MESSAGE
    } else {
        EventName::parse(&event.name).map_err(|_| FrameError::Bad("event name"))?
    };
    let payload = match event.payload.ok_or(FrameError::Missing("its payload"))? {
        event::Payload::Json(bytes) => Payload::Json(bytes),
        event::Payload::Binary(bytes) => Payload::Binary(bytes),
    };
    Ok(Arc::new(Event {
        channel: channel(&event.channel)?,
        name,
        payload,
        time_ms: event.time_ms,
        offset: event.offset.map(Offset),
        expires_ms: event.expires_ms,
        trace: TraceContext::parse(event.trace_parent.as_bytes()).ok(),
    }))
}
