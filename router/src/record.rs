//! The one function that turns log records into what they mean, whoever asks: live, lead-in or raw replay.
//!
//! Owns the format of a record and its verdict. A record that cannot be read, or whose reading panics, is a dead
//! letter; one of an unknown version is not, because nobody may go on past it (rule 11).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tidegate_eventlog::LogRecord;
use tidegate_proto::log::v1::{self as proto, event::Payload as ProtoPayload, record::Body};
use tidegate_tenure::{KeyedRecord, Nonce, Verdict, Window};
use tidegate_vocab::{
    Channel, Event, EventName, Incarnation, PartitionCounts, PartitionId, Payload, TraceContext,
};
use xxhash_rust::xxh3::Xxh3;

/// The format that we write, and the newest that we read.
pub(crate) const VERSION: u32 = 1;

/// What a record turned out to be.
#[derive(Debug, Clone)]
pub(crate) enum Reading {
    /// Some router took the partition over.
    Takeover(Nonce),
    /// An event, and whether it is the first of its key.
    Event(Arc<Event>, Verdict),
    /// It cannot be read. Its channel is known if its key is one of this partition.
    DeadLetter(Option<Channel>, DeadReason),
    /// It was written by a newer version.
    UnknownVersion(u32),
}

/// Why a record is a dead letter. Closed: it is a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadReason {
    /// Not a record, or one with a field that breaks its rule.
    Malformed,
    /// The key is no channel name.
    BadKey,
    /// The channel lives on another partition.
    WrongPartition,
    /// Reading it panicked.
    Panic,
}

impl DeadReason {
    pub(crate) const ALL: [Self; 4] = [Self::Malformed, Self::BadKey, Self::WrongPartition, Self::Panic];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadKey => "bad_key",
            Self::WrongPartition => "wrong_partition",
            Self::Panic => "panic",
        }
    }
}

/// What a publisher has to say of an event, before the log gives it a place and a time.
#[derive(Debug, Clone)]
pub(crate) struct EventDraft {
    pub(crate) name: EventName,
    pub(crate) payload: Payload,
    pub(crate) idempotency_key: String,
    /// 0: never skipped.
    pub(crate) ttl_ms: u64,
}

impl EventDraft {
    /// The record's value; its key is the channel.
    pub(crate) fn encode(&self) -> Bytes {
        let payload = match &self.payload {
            Payload::Json(bytes) => ProtoPayload::Json(bytes.clone()),
            Payload::Binary(bytes) => ProtoPayload::Binary(bytes.clone()),
        };
        let name = if self.name == EventName::MESSAGE { String::new() } else { self.name.as_str().into() };
        let event = proto::Event {
            name,
            payload: Some(payload),
            idempotency_key: self.idempotency_key.clone().into_bytes().into(),
            ttl_ms: self.ttl_ms,
        };
        proto::Record { version: VERSION, body: Some(Body::Event(event)) }.encode_to_vec().into()
    }
}

/// A takeover record's value; its key is empty.
pub(crate) fn encode_takeover(incarnation: Incarnation, nonce: Nonce, address: &str) -> Bytes {
    let takeover = proto::Takeover {
        incarnation: Bytes::copy_from_slice(&incarnation.0.to_be_bytes()),
        nonce: Bytes::copy_from_slice(&nonce.0.to_be_bytes()),
        address: address.to_owned(),
    };
    proto::Record { version: VERSION, body: Some(Body::Takeover(takeover)) }.encode_to_vec().into()
}

/// Reads the next record of a partition and judges it. The window must have seen a lead-in.
pub(crate) fn read(
    window: &mut Window,
    counts: &PartitionCounts,
    partition: PartitionId,
    record: &LogRecord,
) -> Reading {
    let channel = channel_here(counts, partition, record);
    // A window is left half-changed by a panic at worst by one key: the record is told as lost anyway.
    let reading = catch_unwind(AssertUnwindSafe(|| read_unguarded(window, counts, partition, record)));
    reading.unwrap_or(Reading::DeadLetter(channel, DeadReason::Panic))
}

fn read_unguarded(
    window: &mut Window,
    counts: &PartitionCounts,
    partition: PartitionId,
    record: &LogRecord,
) -> Reading {
    let channel = channel_of_key(&record.key);
    let here = channel.clone().filter(|channel| counts.partition_of(channel) == partition);
    let Ok(decoded) = proto::Record::decode(record.value.clone()) else {
        return Reading::DeadLetter(here, DeadReason::Malformed);
    };
    if decoded.version > VERSION {
        return Reading::UnknownVersion(decoded.version);
    }
    match decoded.body {
        Some(Body::Takeover(takeover)) if decoded.version > 0 => match takeover.nonce.as_ref().try_into() {
            Ok(nonce) => Reading::Takeover(Nonce(u128::from_be_bytes(nonce))),
            Err(_) => Reading::DeadLetter(here, DeadReason::Malformed),
        },
        Some(Body::Event(event)) if decoded.version > 0 => {
            let Some(channel) = channel else { return Reading::DeadLetter(None, DeadReason::BadKey) };
            if here.is_none() {
                return Reading::DeadLetter(None, DeadReason::WrongPartition);
            }
            read_event(window, channel, event, record)
        }
        _ => Reading::DeadLetter(here, DeadReason::Malformed),
    }
}

fn read_event(window: &mut Window, channel: Channel, body: proto::Event, record: &LogRecord) -> Reading {
    let (key, ttl_ms) = (body.idempotency_key.clone(), body.ttl_ms);
    let Some(event) = event(channel.clone(), body, record) else {
        return Reading::DeadLetter(Some(channel), DeadReason::Malformed);
    };
    let verdict = window.judge(KeyedRecord {
        offset: record.offset,
        time_ms: record.time_ms,
        channel: &channel,
        key: &key,
        body_hash: body_hash(&event, ttl_ms),
    });
    Reading::Event(Arc::new(event), verdict)
}

/// The channel that a record's key names, if it lives on this partition.
pub(crate) fn channel_here(
    counts: &PartitionCounts,
    partition: PartitionId,
    record: &LogRecord,
) -> Option<Channel> {
    channel_of_key(&record.key).filter(|channel| counts.partition_of(channel) == partition)
}

/// Reads a row of the history: a record that was judged before it was stored.
pub(crate) fn read_row(channel: &Channel, record: &LogRecord) -> Option<Event> {
    let decoded = proto::Record::decode(record.value.clone()).ok()?;
    match decoded.body {
        Some(Body::Event(body)) if decoded.version == VERSION => event(channel.clone(), body, record),
        _ => None,
    }
}

fn event(channel: Channel, body: proto::Event, record: &LogRecord) -> Option<Event> {
    let name = if body.name.is_empty() { EventName::MESSAGE } else { EventName::parse(&body.name).ok()? };
    let payload = match body.payload? {
        ProtoPayload::Json(bytes) => Payload::Json(bytes),
        ProtoPayload::Binary(bytes) => Payload::Binary(bytes),
    };
    Some(Event {
        channel,
        name,
        payload,
        time_ms: record.time_ms,
        offset: Some(record.offset),
        expires_ms: (body.ttl_ms > 0).then(|| record.time_ms.saturating_add(body.ttl_ms)),
        trace: trace_of(record),
    })
}

/// A header that is no trace context is ignored.
fn trace_of(record: &LogRecord) -> Option<TraceContext> {
    let (_, text) = record.headers.iter().find(|(name, _)| name == TraceContext::HEADER)?;
    TraceContext::parse(text).ok()
}

fn channel_of_key(key: &[u8]) -> Option<Channel> {
    Channel::parse(std::str::from_utf8(key).ok()?).ok()
}

/// Everything that makes two bodies the same.
fn body_hash(event: &Event, ttl_ms: u64) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(event.name.as_str().as_bytes());
    hash.update(match event.payload {
        Payload::Json(_) => b"\0j",
        Payload::Binary(_) => b"\0b",
    });
    hash.update(&ttl_ms.to_le_bytes());
    hash.update(event.payload.bytes());
    hash.digest()
}

#[cfg(test)]
mod tests;
