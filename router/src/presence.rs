//! The topic `presence`: who is online and which channels are occupied, as registry members said it.
//!
//! Owns what stands in its records, one reader of its end for all who follow it ([`tail`]), and two who do: the one router
//! that keeps a stream to every member, appends what they say and tells them all that the topic has ([`holder`], [`stream`]), and
//! the watches of backends at any router ([`watch`]). The topic is the truth: a member compares what it sees with what it
//! reads here, and an append is acknowledged by being read back. Does not know who is right: see `registry`.

mod holder;
mod stream;
mod tail;
mod watch;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use prost::Message as _;
use tidegate_eventlog::{LogRecord, NewRecord};
use tidegate_proto::log::v1::presence::Subject;
use tidegate_proto::log::v1::{self as proto, record::Body};
use tidegate_proto::registry::v1 as wire;
use tidegate_vocab::{Channel, PartitionId, Topic, UserId};

use crate::context::Context;
use crate::record::VERSION;
use tail::Tail;
pub use watch::{PresenceChange, PresenceItem, PresenceWatch, Subjects};

/// The one partition.
pub(crate) const PARTITION: PartitionId = PartitionId { topic: Topic::Presence, number: 0 };

/// The topic as this router has it: its end is read while anybody follows it.
#[derive(Default)]
pub(crate) struct PresenceTopic {
    tail: Mutex<Weak<Tail>>,
    /// Of the streams to members: whoever holds it appends.
    turns: Arc<tokio::sync::Mutex<()>>,
}

impl PresenceTopic {
    /// The end of the topic, followed from now on if it was not.
    pub(crate) fn tail(&self, context: &Context) -> Arc<Tail> {
        let mut known = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        known.upgrade().unwrap_or_else(|| {
            let tail = Tail::follow(Arc::clone(&context.log));
            *known = Arc::downgrade(&tail);
            tail
        })
    }
}

/// What a record of the topic is.
enum Read {
    Transition(wire::Transition),
    /// The subject's record was deleted by hand: nothing is known of it, which is as good as offline.
    Tombstone,
    Malformed,
    UnknownVersion(u32),
}

/// The id of a subject that is a user.
pub(crate) fn user_of(subject: &Channel) -> Option<&str> {
    let (_, id) = subject.as_str().split_once(':').filter(|_| subject.is_user())?;
    Some(id)
}

/// A member's transition as a record, with what it says for metrics. None when it breaks the rules of names and states.
fn record_of(transition: &wire::Transition) -> Option<(NewRecord, &'static str)> {
    let subject = Channel::parse(&transition.subject).ok()?;
    let (state, label) = match (transition.state(), subject.is_user()) {
        (wire::PresenceState::Online, true) => (proto::PresenceState::Online, "online"),
        (wire::PresenceState::Online, false) => (proto::PresenceState::Online, "occupied"),
        (wire::PresenceState::Offline, true) => (proto::PresenceState::Offline, "offline"),
        (wire::PresenceState::Offline, false) => (proto::PresenceState::Offline, "vacated"),
        (wire::PresenceState::Unspecified, _) => return None,
    };
    let key = Bytes::copy_from_slice(subject.as_str().as_bytes());
    let body = proto::Presence {
        subject: Some(match user_of(&subject) {
            Some(user) => Subject::User(user.to_owned()),
            None => Subject::Channel(transition.subject.clone()),
        }),
        state: state.into(),
        since_s: transition.since_s,
        emitter: transition.emitter.clone(),
        number: transition.number,
    };
    let value = proto::Record { version: VERSION, body: Some(Body::Presence(body)) }.encode_to_vec();
    Some((NewRecord { key, value: value.into(), headers: Vec::new() }, label))
}

/// A record as members hear it. What they would refuse is malformed here.
fn read(record: &LogRecord) -> Read {
    if record.value.is_empty() {
        return Read::Tombstone;
    }
    let Ok(decoded) = proto::Record::decode(record.value.clone()) else { return Read::Malformed };
    if decoded.version > VERSION {
        return Read::UnknownVersion(decoded.version);
    }
    let Some(Body::Presence(body)) = decoded.body else { return Read::Malformed };
    transition_of(body).map_or(Read::Malformed, Read::Transition)
}

fn transition_of(body: proto::Presence) -> Option<wire::Transition> {
    let state = match body.state() {
        proto::PresenceState::Online => wire::PresenceState::Online,
        proto::PresenceState::Offline => wire::PresenceState::Offline,
        proto::PresenceState::Unspecified => return None,
    };
    let subject = match body.subject? {
        Subject::User(id) => Channel::of_user(&UserId::parse(&id).ok()?),
        Subject::Channel(name) => Channel::parse(&name).ok().filter(|channel| !channel.is_user())?,
    };
    (body.emitter.len() == 16).then(|| wire::Transition {
        subject: subject.to_string(),
        state: state.into(),
        since_s: body.since_s,
        emitter: body.emitter,
        number: body.number,
    })
}

#[cfg(test)]
mod tests;
