//! What clients say, on its way to backends: appended by gateways, read back by backends in the order of the log.
//!
//! A message's key is its user, or its connection when it is anonymous, so each of them has one partition and one
//! order. At least once: a reader goes on from a token that covers all partitions.

mod reader;
mod token;

use bytes::Bytes;
use prost::Message as _;
use tidegate_eventlog::{BoxFuture, LogRecord};
use tidegate_link::UpstreamMessage;
use tidegate_proto::log::v1::{self as proto, upstream_record::Payload as ProtoPayload};
use tidegate_vocab::{Channel, ConnectionId, PartitionId, Payload, Position, Problem, Topic, UserId};

use crate::Router;

pub use reader::{ReadFrom, UpstreamItem, UpstreamReader, UpstreamUpdate};
pub use token::{ResumeToken, TokenError};

const VERSION: u32 = 1;

/// A message as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadMessage {
    /// The connection that said it.
    pub connection: ConnectionId,
    /// The connection's user; `None` when it is anonymous.
    pub user: Option<UserId>,
    /// The channel it is about.
    pub channel: Channel,
    /// What it said.
    pub payload: Payload,
    /// Its number among this connection's messages.
    pub seq: u64,
    /// The log's time, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// W3C trace context, if the client sent one.
    pub trace_parent: Option<Bytes>,
}

/// What an upstream record turned out to be.
enum Reading {
    Message(ReadMessage),
    Unreadable,
    UnknownVersion(u32),
}

impl Router {
    pub(crate) fn append_upstream(
        &self,
        message: UpstreamMessage,
    ) -> BoxFuture<'static, Result<Position, Problem>> {
        let log = std::sync::Arc::clone(&self.context.log);
        let context = std::sync::Arc::clone(&self.context);
        let key = message.key();
        let number = message.partition(log.counts().of(Topic::Upstream));
        let partition = PartitionId { topic: Topic::Upstream, number };
        let append = log.append(partition, key.into_bytes().into(), encode(message));
        Box::pin(async move {
            let outcome = append.await.map_err(|error| crate::publish::upstream_problem(&error));
            context.metrics.upstream(outcome.as_ref().map(|_| ()).map_err(|problem| problem.kind));
            outcome.map(|appended| Position::new(log.epoch(Topic::Upstream), partition, appended.offset))
        })
    }
}

fn encode(message: UpstreamMessage) -> Bytes {
    let payload = match message.payload {
        Payload::Json(bytes) => ProtoPayload::Json(bytes),
        Payload::Binary(bytes) => ProtoPayload::Binary(bytes),
    };
    let record = proto::UpstreamRecord {
        version: VERSION,
        connection_node: message.connection.0,
        connection_sequence: message.connection.1,
        user: message.user.map(|user| user.to_string()).unwrap_or_default(),
        channel: message.channel.to_string(),
        payload: Some(payload),
        seq: message.seq,
        trace_parent: message.trace_parent.unwrap_or_default(),
    };
    record.encode_to_vec().into()
}

fn read(record: &LogRecord) -> Reading {
    let Ok(decoded) = proto::UpstreamRecord::decode(record.value.clone()) else { return Reading::Unreadable };
    if decoded.version > VERSION {
        return Reading::UnknownVersion(decoded.version);
    }
    message(decoded, record.time_ms).map_or(Reading::Unreadable, Reading::Message)
}

fn message(decoded: proto::UpstreamRecord, time_ms: u64) -> Option<ReadMessage> {
    let user = if decoded.user.is_empty() { None } else { Some(UserId::parse(&decoded.user).ok()?) };
    let payload = match decoded.payload? {
        ProtoPayload::Json(bytes) => Payload::Json(bytes),
        ProtoPayload::Binary(bytes) => Payload::Binary(bytes),
    };
    Some(ReadMessage {
        connection: ConnectionId(decoded.connection_node, decoded.connection_sequence),
        user,
        channel: Channel::parse(&decoded.channel).ok()?,
        payload,
        seq: decoded.seq,
        time_ms,
        trace_parent: (!decoded.trace_parent.is_empty()).then_some(decoded.trace_parent),
    })
}
