//! The event as every role passes it on.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::channel::Channel;
use crate::limits;
use crate::position::Offset;
use crate::trace::TraceContext;

/// The backend's own name for what happened, for instance `goal`. It becomes SSE's `event:` field, so it has no
/// line breaks and no NUL; and `tidegate.` is ours. Default `message`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventName(Option<Arc<str>>);

/// Why an event name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventNameError {
    /// The name has no bytes (leave it out instead).
    #[error("event name is empty")]
    Empty,
    /// The name has more than [`limits::EVENT_NAME_BYTES_LIMIT`] bytes.
    #[error("event name is longer than 128 bytes")]
    TooLong,
    /// A control character: a line break or NUL would break a Server-Sent Events stream.
    #[error("event name has a control character")]
    Control,
    /// The prefix `tidegate.` belongs to the gateway's own objects.
    #[error("event names that begin with `tidegate.` are reserved")]
    Reserved,
}

impl EventName {
    /// The default name, `message`.
    pub const MESSAGE: Self = Self(None);

    /// Parses a name.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn parse(name: &str) -> Result<Self, EventNameError> {
        if name.is_empty() {
            return Err(EventNameError::Empty);
        }
        if name.len() > limits::EVENT_NAME_BYTES_LIMIT {
            return Err(EventNameError::TooLong);
        }
        if name.chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{2029}') {
            return Err(EventNameError::Control);
        }
        if name.starts_with("tidegate.") {
            return Err(EventNameError::Reserved);
        }
        Ok(if name == "message" { Self(None) } else { Self(Some(name.into())) })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("message")
    }
}

impl fmt::Debug for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an event carries.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// One JSON value without insignificant white space (so without line breaks): see [`crate::compact_json`].
    Json(Bytes),
    /// Any other bytes; shown to clients as `data_b64`.
    Binary(Bytes),
}

impl Payload {
    /// The raw bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Json(bytes) | Self::Binary(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(bytes) => write!(f, "json[{}]", bytes.len()),
            Self::Binary(bytes) => write!(f, "binary[{}]", bytes.len()),
        }
    }
}

/// One event of one channel, decoded once and shared by reference from the log to the sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The channel.
    pub channel: Channel,
    /// The backend's name for it.
    pub name: EventName,
    /// What it carries.
    pub payload: Payload,
    /// The log's own time of the record, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The record's own offset; `None` for an ephemeral event, which is in no log.
    pub offset: Option<Offset>,
    /// The time from which a replay skips it, in milliseconds since the Unix epoch; it stays live for those connected.
    pub expires_ms: Option<u64>,
    /// The publisher's trace, if it sent one.
    pub trace: Option<TraceContext>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sse_breaking_newlines_in_event_names() {
        assert_eq!(EventName::parse("goal").expect("valid").as_str(), "goal");
        assert_eq!(EventName::parse("message"), Ok(EventName::MESSAGE));
        assert_eq!(EventName::parse(""), Err(EventNameError::Empty));
        for bad in ["a\nb", "a\rb", "a\0b", "a\r\ndata: x", "\u{85}", "a\u{2028}b"] {
            assert_eq!(EventName::parse(bad), Err(EventNameError::Control), "{bad:?}");
        }
        assert_eq!(EventName::parse(&"x".repeat(129)), Err(EventNameError::TooLong));
        assert_eq!(EventName::parse("tidegate.state"), Err(EventNameError::Reserved));
        assert!(EventName::parse("toré ⚽").is_ok());
    }
}
