//! The JSON objects of `/v1/events` and how each transport frames them: one set of objects, five transports.
//!
//! An event's body is written once ([`event_body`]), without its closing brace, and shared by every socket; the cursor
//! is its last member where one is due, so that framing only ever appends to the shared part. On SSE the cursor is the
//! block's `id:` field instead. `proto/vectors/` holds the examples.

use tidegate_vocab::{Channel, Event, LogEpoch, PartitionId, Payload, Position, push_json_string};

use crate::{chunked, ws};

/// How objects are framed on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One text frame each.
    WebSocket,
    /// One `text/event-stream` block each.
    Sse {
        /// The body is chunked (HTTP/1.1) or ends with the connection (HTTP/1.0).
        chunked: bool,
    },
    /// One line each.
    Ndjson {
        /// The body is chunked (HTTP/1.1) or ends with the connection (HTTP/1.0).
        chunked: bool,
    },
}

/// The body of an event object without its closing brace: `{"type":"event",…,"pos":"…"`.
#[must_use]
pub fn event_body(event: &Event, partition: PartitionId, epoch: LogEpoch) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + event.channel.as_str().len() + event.payload.bytes().len());
    out.extend_from_slice(b"{\"type\":\"event\",\"channel\":\"");
    out.extend_from_slice(event.channel.as_str().as_bytes()); // The grammar has nothing that JSON escapes.
    out.extend_from_slice(b"\",\"event\":");
    push_json_string(&mut out, event.name.as_str());
    match &event.payload {
        Payload::Json(json) => {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(json);
        }
        Payload::Binary(bytes) => {
            out.extend_from_slice(b",\"data_b64\":\"");
            out.extend_from_slice(
                base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes).as_bytes(),
            );
            out.push(b'"');
        }
    }
    out.extend_from_slice(format!(",\"time\":{}", event.time_ms).as_bytes());
    if let Some(offset) = event.offset {
        out.extend_from_slice(format!(",\"pos\":\"{}\"", Position::new(epoch, partition, offset)).as_bytes());
    }
    out
}

/// Appends one event to `out`, framed: `body` as [`event_body`] made it, and the cursor if one is due.
pub fn frame_event(framing: Framing, name: &str, body: &[u8], cursor: Option<&str>, out: &mut Vec<u8>) {
    match framing {
        Framing::WebSocket | Framing::Ndjson { .. } => {
            let id_len = cursor.map_or(0, |cursor| cursor.len() + 8);
            with_frame(framing, body.len() + id_len + 1, out, |out| {
                out.extend_from_slice(body);
                push_id(cursor, out);
                out.push(b'}');
            });
        }
        Framing::Sse { .. } => {
            let name = (name != "message").then_some(name);
            let len = sse_len(name, cursor, body.len() + 1);
            with_frame(framing, len, out, |out| {
                push_sse_fields(name, cursor, out);
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(body);
                out.extend_from_slice(b"}\n\n");
            });
        }
    }
}

/// Appends one of our own objects to `out`, framed: on SSE as `event: tidegate.<kind>`, elsewhere as it is.
/// `object` is a whole JSON object on one line; `cursor` becomes SSE's `id:`.
pub fn frame_object(framing: Framing, kind: &str, object: &[u8], cursor: Option<&str>, out: &mut Vec<u8>) {
    match framing {
        Framing::WebSocket | Framing::Ndjson { .. } => {
            with_frame(framing, object.len(), out, |out| out.extend_from_slice(object));
        }
        Framing::Sse { .. } => {
            let name = format!("tidegate.{kind}");
            let len = sse_len(Some(&name), cursor, object.len());
            with_frame(framing, len, out, |out| {
                push_sse_fields(Some(&name), cursor, out);
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(object);
                out.extend_from_slice(b"\n\n");
            });
        }
    }
}

/// Appends what keeps a quiet connection alive, with the cursor if one is due: on SSE a comment or an id-only block; on
/// a WebSocket a ping frame, and for the cursor a `ping` object; on NDJSON a `ping` object.
pub fn frame_ping(framing: Framing, cursor: Option<&str>, out: &mut Vec<u8>) {
    match (framing, cursor) {
        (Framing::WebSocket, None) => out.extend_from_slice(&ws::frame::ping(b"")),
        (Framing::WebSocket | Framing::Ndjson { .. }, cursor) => {
            let mut object = b"{\"type\":\"ping\"".to_vec();
            push_id(cursor, &mut object);
            object.push(b'}');
            frame_object(framing, "ping", &object, None, out);
        }
        (Framing::Sse { .. }, None) => with_frame(framing, 3, out, |out| out.extend_from_slice(b":\n\n")),
        (Framing::Sse { .. }, Some(cursor)) => with_frame(framing, cursor.len() + 6, out, |out| {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(cursor.as_bytes());
            out.extend_from_slice(b"\n\n");
        }),
    }
}

/// Appends an SSE `retry:` block; nothing on other transports.
pub fn frame_retry(framing: Framing, retry_ms: u64, out: &mut Vec<u8>) {
    if let Framing::Sse { .. } = framing {
        let text = format!("retry: {retry_ms}\n\n");
        with_frame(framing, text.len(), out, |out| out.extend_from_slice(text.as_bytes()));
    }
}

/// Appends what ends the body of a stream in good order, if the framing has such a thing.
pub fn frame_end(framing: Framing, out: &mut Vec<u8>) {
    if let Framing::Sse { chunked: true } | Framing::Ndjson { chunked: true } = framing {
        out.extend_from_slice(chunked::LAST_CHUNK);
    }
}

/// What became of one channel when a connection began to follow it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Told {
    /// Channels whose cursor was good: everything since follows.
    pub recovered: Vec<Channel>,
    /// Channels that lost something since the cursor, and why.
    pub lost: Vec<(Channel, &'static str)>,
    /// Channels that no cursor covered.
    pub fresh: Vec<Channel>,
    /// Channels of which it is not known yet; another `state` will tell.
    pub pending: Vec<Channel>,
}

impl Told {
    /// Appends `"recovered":[…],"lost":[…],"fresh":[…]` and, where there are some, `"pending":[…]`.
    fn push_members(&self, out: &mut Vec<u8>) {
        push_channels("recovered", &self.recovered, out);
        out.extend_from_slice(b",\"lost\":[");
        for (index, (channel, reason)) in self.lost.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let item = format!("{comma}{{\"channel\":\"{channel}\",\"reason\":\"{reason}\"}}");
            out.extend_from_slice(item.as_bytes());
        }
        out.extend_from_slice(b"],");
        push_channels("fresh", &self.fresh, out);
        if !self.pending.is_empty() {
            out.push(b',');
            push_channels("pending", &self.pending, out);
        }
    }
}

/// The `state` object.
#[must_use]
pub fn state_object(cursor: &str, told: &Told) -> Vec<u8> {
    let mut out = format!("{{\"type\":\"state\",\"cursor\":\"{cursor}\",").into_bytes();
    told.push_members(&mut out);
    out.push(b'}');
    out
}

/// The body of a poll's answer. `events` are bodies as [`event_body`] made them.
#[must_use]
pub fn poll_answer<'a>(events: impl IntoIterator<Item = &'a [u8]>, cursor: &str, told: &Told) -> Vec<u8> {
    let mut out = b"{\"events\":[".to_vec();
    for (index, body) in events.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(body);
        out.push(b'}');
    }
    out.extend_from_slice(format!("],\"cursor\":\"{cursor}\",").as_bytes());
    told.push_members(&mut out);
    out.push(b'}');
    out
}

/// The `gap` object: events of a channel are gone, within a connection.
#[must_use]
pub fn gap_object(channel: &Channel, reason: &str) -> Vec<u8> {
    format!("{{\"type\":\"gap\",\"channel\":\"{channel}\",\"reason\":\"{reason}\"}}").into_bytes()
}

/// The `close` object: the last one of a connection that the gateway ends. `detail` is what a backend has to say to people.
#[must_use]
pub fn close_object(code: u16, reason: &str, detail: Option<&str>, retry_ms: Option<u64>) -> Vec<u8> {
    let mut out = format!("{{\"type\":\"close\",\"code\":{code},\"reason\":\"{reason}\"").into_bytes();
    if let Some(detail) = detail {
        out.extend_from_slice(b",\"detail\":");
        push_json_string(&mut out, detail);
    }
    if let Some(retry_ms) = retry_ms {
        out.extend_from_slice(format!(",\"retry_ms\":{retry_ms}").as_bytes());
    }
    out.push(b'}');
    out
}

/// The `ack` of a client's message: the log has it. `reference` is the client's own, as raw JSON.
#[must_use]
pub fn ack_object(reference: Option<&str>, seq: u64, pos: &Position) -> Vec<u8> {
    let reference = reference.map_or(String::new(), |json| format!(",\"ref\":{json}"));
    format!("{{\"type\":\"ack\"{reference},\"seq\":{seq},\"pos\":\"{pos}\"}}").into_bytes()
}

/// The refusal of a client's message: `problem` is a problem object of RFC 9457.
#[must_use]
pub fn nack_object(reference: Option<&str>, seq: u64, problem: &[u8]) -> Vec<u8> {
    let reference = reference.map_or(String::new(), |json| format!(",\"ref\":{json}"));
    let mut out = format!("{{\"type\":\"nack\"{reference},\"seq\":{seq},\"error\":").into_bytes();
    out.extend_from_slice(problem);
    out.push(b'}');
    out
}

fn push_id(cursor: Option<&str>, out: &mut Vec<u8>) {
    if let Some(cursor) = cursor {
        out.extend_from_slice(b",\"id\":\"");
        out.extend_from_slice(cursor.as_bytes());
        out.push(b'"');
    }
}

fn push_channels(name: &str, channels: &[Channel], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("\"{name}\":[").as_bytes());
    for (index, channel) in channels.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        out.extend_from_slice(format!("{comma}\"{channel}\"").as_bytes());
    }
    out.push(b']');
}

/// The exact length of an SSE block with these fields and one data line.
fn sse_len(name: Option<&str>, cursor: Option<&str>, data_len: usize) -> usize {
    name.map_or(0, |name| name.len() + 8) + cursor.map_or(0, |cursor| cursor.len() + 5) + data_len + 8
}

fn push_sse_fields(name: Option<&str>, cursor: Option<&str>, out: &mut Vec<u8>) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    if let Some(cursor) = cursor {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(cursor.as_bytes());
        out.push(b'\n');
    }
}

/// Writes what stands around `len` bytes of content, which `fill` appends.
fn with_frame(framing: Framing, len: usize, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let newline = matches!(framing, Framing::Ndjson { .. });
    let content_len = len + usize::from(newline);
    let is_chunked = match framing {
        Framing::WebSocket => {
            let (head, head_len) = ws::frame::head(ws::Opcode::Text, content_len);
            out.extend_from_slice(&head[..head_len]);
            false
        }
        Framing::Sse { chunked } | Framing::Ndjson { chunked } => chunked,
    };
    if is_chunked && let Some(chunk_len) = std::num::NonZeroUsize::new(content_len) {
        let (head, head_len) = chunked::head(chunk_len);
        out.extend_from_slice(&head[..head_len]);
    }
    let start = out.len();
    fill(out);
    debug_assert_eq!(out.len() - start, len, "a frame's length is exact");
    if newline {
        out.push(b'\n');
    }
    if is_chunked {
        out.extend_from_slice(chunked::CHUNK_END);
    }
}

#[cfg(test)]
mod tests;
