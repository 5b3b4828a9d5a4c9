//! Frames, answers and problems, as messages and back. What a peer sends is checked here.

use tidegate_proto::problem::status;
use tidegate_proto::registry::v1 as wire;
use tidegate_vocab::{Channel, ErrorKind, Incarnation, Problem, limits};
use tonic::Status;

use crate::frame::{Batch, Hello, Holding, Location, Place, Presence, Transition, Transports, Update};
use crate::member::{NodeInfo, Refusal};

/// What this build speaks.
pub(crate) const VERSION: u32 = 1;

/// Why a message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("the first message is no hello")]
    NoHello,
    #[error("a second hello")]
    SecondHello,
    #[error("an incarnation has 16 bytes, not {0}")]
    Incarnation(usize),
    #[error("no version in common: the peer speaks {0} to {1}, this side {VERSION}")]
    Versions(u32, u32),
    #[error("a message has more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    #[error("a subject breaks the grammar of channel names")]
    Subject,
    #[error("a field is missing: {0}")]
    Missing(&'static str),
}

impl MessageError {
    pub(crate) fn problem(self) -> Problem {
        let kind = match self {
            Self::TooMany { .. } => ErrorKind::TooMany,
            _ => ErrorKind::BadRequest,
        };
        Problem::new(kind, self.to_string())
    }
}

impl From<MessageError> for Status {
    fn from(error: MessageError) -> Self {
        status(&error.problem())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        status(&Problem::new(refusal.kind(), refusal.to_string()))
    }
}

pub(crate) fn incarnation_to_wire(incarnation: Incarnation) -> bytes::Bytes {
    incarnation.to_bytes().to_vec().into()
}

pub(crate) fn incarnation_from_wire(bytes: &[u8]) -> Result<Incarnation, MessageError> {
    Incarnation::from_bytes(bytes).ok_or(MessageError::Incarnation(bytes.len()))
}

pub(crate) fn version(min: u32, max: u32) -> Result<(), MessageError> {
    if (min..=max).contains(&VERSION) { Ok(()) } else { Err(MessageError::Versions(min, max)) }
}

pub(crate) fn hello_to_wire(hello: Hello, session: u64) -> wire::NodeHello {
    wire::NodeHello {
        incarnation: incarnation_to_wire(hello.node),
        min_version: VERSION,
        max_version: VERSION,
        session,
        digest: hello.digest,
        address: hello.address,
    }
}

pub(crate) fn hello_from_wire(hello: wire::NodeHello) -> Result<(Hello, u64), MessageError> {
    version(hello.min_version, hello.max_version)?;
    let node = incarnation_from_wire(&hello.incarnation)?;
    Ok((Hello { node, digest: hello.digest, address: hello.address }, hello.session))
}

fn state_to_wire(state: Holding) -> wire::Holding {
    let (connections, since_s) = (state.connections, state.since_s);
    wire::Holding { connections, transports: u32::from(state.transports.0), since_s }
}

/// Bits that this version does not know are dropped.
fn state_from_wire(state: wire::Holding) -> Holding {
    let transports = Transports((state.transports & 0xff) as u8);
    Holding { connections: state.connections, transports, since_s: state.since_s }
}

fn subject(name: &str) -> Result<Channel, MessageError> {
    Channel::parse(name).map_err(|_| MessageError::Subject)
}

pub(crate) fn within<T>(items: &[T], limit: usize, what: &'static str) -> Result<(), MessageError> {
    if items.len() > limit { Err(MessageError::TooMany { what, limit }) } else { Ok(()) }
}

pub(crate) fn batch_to_wire(batch: Batch) -> wire::Batch {
    let update = |update: Update| wire::Update {
        subject: update.subject.to_string(),
        state: update.state.map(state_to_wire),
    };
    let updates = batch.updates.into_iter().map(update).collect();
    wire::Batch { seq: batch.seq, updates, ends_snapshot: batch.ends_snapshot }
}

pub(crate) fn batch_from_wire(batch: wire::Batch) -> Result<Batch, MessageError> {
    within(&batch.updates, limits::REGISTRY_BATCH_LIMIT, "updates")?;
    let update = |update: wire::Update| {
        Ok(Update { subject: subject(&update.subject)?, state: update.state.map(state_from_wire) })
    };
    let updates = batch.updates.into_iter().map(update).collect::<Result<_, MessageError>>()?;
    Ok(Batch { seq: batch.seq, updates, ends_snapshot: batch.ends_snapshot })
}

pub(crate) fn location_to_wire(location: Location) -> wire::Location {
    let place = |place: Place| wire::Place {
        node: incarnation_to_wire(place.node),
        state: Some(state_to_wire(place.state)),
    };
    wire::Location { places: location.places.into_iter().map(place).collect() }
}

pub(crate) fn location_from_wire(location: wire::Location) -> Result<Location, MessageError> {
    let place = |place: wire::Place| {
        let state = place.state.ok_or(MessageError::Missing("a place's state"))?;
        Ok(Place { node: incarnation_from_wire(&place.node)?, state: state_from_wire(state) })
    };
    Ok(Location { places: location.places.into_iter().map(place).collect::<Result<_, MessageError>>()? })
}

pub(crate) fn node_to_wire(node: NodeInfo) -> wire::Node {
    wire::Node {
        incarnation: incarnation_to_wire(node.node),
        address: node.address,
        digest: node.digest,
        subjects: node.subjects,
        connections: node.connections,
        complete: node.is_complete,
    }
}

pub(crate) fn transition_to_wire(transition: Transition) -> wire::Transition {
    let state = match transition.presence {
        Presence::Online => wire::PresenceState::Online,
        Presence::Offline => wire::PresenceState::Offline,
    };
    wire::Transition {
        subject: transition.subject.to_string(),
        state: state.into(),
        since_s: transition.since_s,
        emitter: incarnation_to_wire(transition.emitter),
        number: transition.number,
    }
}

pub(crate) fn transition_from_wire(transition: &wire::Transition) -> Result<Transition, MessageError> {
    let presence = match transition.state() {
        wire::PresenceState::Online => Presence::Online,
        wire::PresenceState::Offline => Presence::Offline,
        wire::PresenceState::Unspecified => return Err(MessageError::Missing("a transition's state")),
    };
    Ok(Transition {
        subject: subject(&transition.subject)?,
        presence,
        since_s: transition.since_s,
        emitter: incarnation_from_wire(&transition.emitter)?,
        number: transition.number,
    })
}
