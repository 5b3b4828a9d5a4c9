//! Problems, client messages and verdicts, as messages and back. Frames are converted by `tidegate_proto::frames`.

mod control;
mod reach;

use std::sync::Arc;

use tidegate_link::{Routed, Settled, UpstreamMessage};
use tidegate_proto::deliver::v1::{self as wire, ephemeral_response, say_request, say_response};
use tidegate_proto::frames::{FrameError, event_from_wire};
use tidegate_proto::problem::{KIND, RETRY};
pub(crate) use tidegate_proto::problem::{status, status_with};
use tidegate_vocab::{
    Channel, ConnectionId, ErrorKind, Event, LogEpoch, Offset, Payload, Position, Problem, UserId,
};
use tonic::{Code, Status};

pub(crate) use control::{control_ask_from_wire, control_ask_to_wire, control_from_wire, control_to_wire};
pub(crate) use reach::{
    node_hello_from_wire, node_hello_to_wire, node_says_from_wire, node_says_to_wire, router_says_from_wire,
    router_says_to_wire,
};

/// When a router that cannot be reached is worth another try, in milliseconds.
const RETRY_MS: u64 = 500;

fn kind_named(name: &str) -> Option<ErrorKind> {
    ErrorKind::ALL.iter().copied().find(|kind| kind.as_str() == name)
}

/// What a failed call means: what the router said, or that it cannot be reached. What the network says of that may
/// hold an address, so it goes to the log and to nobody else.
pub(crate) fn problem(status: &Status) -> Problem {
    let text = |name| status.metadata().get(name).and_then(|value| value.to_str().ok());
    match text(KIND).and_then(kind_named) {
        Some(kind) => Problem {
            kind,
            detail: status.message().to_owned(),
            retry_ms: text(RETRY).and_then(|retry_ms| retry_ms.parse().ok()),
        },
        None => {
            tracing::debug!(code = ?status.code(), message = status.message(), "call to a router failed");
            unreachable()
        }
    }
}

pub(crate) fn unreachable() -> Problem {
    Problem::new(ErrorKind::LogUnavailable, "the router cannot be reached").retry_after_ms(RETRY_MS)
}

/// The stream on which a client's message was, or was about to be, has ended without an answer.
pub(crate) fn cut() -> Problem {
    Problem::new(ErrorKind::Draining, "the stream to the router ended without an answer")
        .retry_after_ms(RETRY_MS)
}

pub(crate) fn say_to_wire(number: u64, message: UpstreamMessage) -> wire::SayRequest {
    wire::SayRequest {
        number,
        connection_node: message.connection.0,
        connection_sequence: message.connection.1,
        user: message.user.map(|user| user.to_string()).unwrap_or_default(),
        channel: message.channel.to_string(),
        payload: Some(match message.payload {
            Payload::Json(bytes) => say_request::Payload::Json(bytes),
            Payload::Binary(bytes) => say_request::Payload::Binary(bytes),
        }),
        seq: message.seq,
        trace_parent: message.trace_parent.unwrap_or_default(),
    }
}

pub(crate) fn say_from_wire(message: wire::SayRequest) -> Result<UpstreamMessage, FrameError> {
    let user = if message.user.is_empty() {
        None
    } else {
        Some(UserId::parse(&message.user).map_err(|_| FrameError::Bad("user"))?)
    };
    Ok(UpstreamMessage {
        connection: ConnectionId(message.connection_node, message.connection_sequence),
        user,
        channel: Channel::parse(&message.channel).map_err(|_| FrameError::Bad("channel"))?,
        payload: match message.payload.ok_or(FrameError::Missing("its payload"))? {
            say_request::Payload::Json(bytes) => Payload::Json(bytes),
            say_request::Payload::Binary(bytes) => Payload::Binary(bytes),
        },
        seq: message.seq,
        trace_parent: (!message.trace_parent.is_empty()).then_some(message.trace_parent),
    })
}

pub(crate) fn answer_to_wire(number: u64, answer: Result<Position, Problem>) -> wire::SayResponse {
    let outcome = match answer {
        Ok(position) => say_response::Outcome::Position(wire::Position {
            epoch: position.epoch.0,
            partition: position.partition,
            offset: position.offset.0,
        }),
        Err(problem) => say_response::Outcome::Problem(problem_to_wire(problem)),
    };
    wire::SayResponse { number, outcome: Some(outcome) }
}

fn problem_to_wire(problem: Problem) -> wire::Problem {
    let kind = problem.kind.as_str().to_owned();
    wire::Problem { kind, detail: problem.detail, retry_ms: problem.retry_ms }
}

/// A kind that this version does not know is a fault, not a guess.
fn problem_from_wire(problem: wire::Problem) -> Problem {
    let kind = kind_named(&problem.kind).unwrap_or(ErrorKind::Internal);
    Problem { kind, detail: problem.detail, retry_ms: problem.retry_ms }
}

pub(crate) fn answer_from_wire(outcome: Option<say_response::Outcome>) -> Result<Position, Problem> {
    match outcome {
        Some(say_response::Outcome::Position(position)) => Ok(Position {
            epoch: LogEpoch(position.epoch),
            partition: position.partition,
            offset: Offset(position.offset),
        }),
        Some(say_response::Outcome::Problem(problem)) => Err(problem_from_wire(problem)),
        None => Err(strange_answer()),
    }
}

pub(crate) fn verdict_to_wire(settled: Settled) -> wire::ResolveResponse {
    let (verdict, first) = match settled {
        Settled::Fresh => (wire::Verdict::Fresh, None),
        Settled::DuplicateOf(first) => (wire::Verdict::Duplicate, Some(first.0)),
        Settled::Conflict => (wire::Verdict::Conflict, None),
        Settled::Unreadable => (wire::Verdict::Unreadable, None),
    };
    wire::ResolveResponse { verdict: verdict.into(), first }
}

pub(crate) fn verdict_from_wire(response: wire::ResolveResponse) -> Result<Settled, Problem> {
    match (response.verdict(), response.first) {
        (wire::Verdict::Fresh, _) => Ok(Settled::Fresh),
        (wire::Verdict::Duplicate, Some(first)) => Ok(Settled::DuplicateOf(Offset(first))),
        (wire::Verdict::Conflict, _) => Ok(Settled::Conflict),
        (wire::Verdict::Unreadable, _) => Ok(Settled::Unreadable),
        (wire::Verdict::Duplicate, None) | (wire::Verdict::Unspecified, _) => Err(strange_answer()),
    }
}

pub(crate) fn ephemeral_from_wire(request: wire::EphemeralRequest) -> Result<Arc<Event>, FrameError> {
    let event = event_from_wire(request.event.ok_or(FrameError::Missing("its event"))?)?;
    if event.offset.is_some() { Err(FrameError::Bad("offset")) } else { Ok(event) }
}

pub(crate) fn routed_to_wire(routed: Routed) -> wire::EphemeralResponse {
    let outcome = match routed {
        Routed::Nodes(nodes) => ephemeral_response::Outcome::Routed(nodes),
        Routed::NotOwner => ephemeral_response::Outcome::NotOwner(true),
    };
    wire::EphemeralResponse { outcome: Some(outcome) }
}

pub(crate) fn routed_from_wire(response: wire::EphemeralResponse) -> Result<Routed, Problem> {
    match response.outcome {
        Some(ephemeral_response::Outcome::Routed(nodes)) => Ok(Routed::Nodes(nodes)),
        Some(ephemeral_response::Outcome::NotOwner(true)) => Ok(Routed::NotOwner),
        Some(ephemeral_response::Outcome::NotOwner(false)) | None => Err(strange_answer()),
    }
}

/// A request that is not of its form.
pub(crate) fn bad_request(error: FrameError) -> Status {
    status_with(Code::InvalidArgument, &Problem::new(ErrorKind::BadRequest, error.to_string()))
}

fn strange_answer() -> Problem {
    Problem::new(ErrorKind::Internal, "the router's answer is not of its form")
}
