//! The writing side of event streams.

use std::fmt::Write as _;

/// An event name or id that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// An event name with a line break or NUL.
    #[error("event name has a line break or nul")]
    Event,
    /// An id with a line break or NUL. Clients ignore an id with NUL.
    #[error("event id has a line break or nul")]
    Id,
}

/// Checks an event name, for use where a client or backend gives one.
///
/// # Errors
/// [`FieldError::Event`] for CR, LF or NUL.
pub fn check_event(event: &str) -> Result<(), FieldError> {
    if is_one_line(event) { Ok(()) } else { Err(FieldError::Event) }
}

/// Checks an event id.
///
/// # Errors
/// [`FieldError::Id`] for CR, LF or NUL.
pub fn check_id(id: &str) -> Result<(), FieldError> {
    if is_one_line(id) { Ok(()) } else { Err(FieldError::Id) }
}

/// Neither CR nor LF nor NUL.
fn is_one_line(text: &str) -> bool {
    memchr::memchr3(b'\r', b'\n', 0, text.as_bytes()).is_none()
}

/// One block of an event stream. A client raises an event only for a block with data; one without sets its last event
/// id or its reconnection time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Block<'a> {
    /// The event's name; without one it is `message`.
    pub event: Option<&'a str>,
    /// The client's last event id from now on; empty resets it.
    pub id: Option<&'a str>,
    /// The client's reconnection time from now on, in milliseconds.
    pub retry_ms: Option<u64>,
    /// The data; may have several lines.
    pub data: Option<&'a str>,
}

impl Block<'_> {
    /// Appends the block to `out`, or nothing if it is refused.
    ///
    /// # Errors
    /// A name or id that [`check_event`] or [`check_id`] refuses.
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), FieldError> {
        self.event.map_or(Ok(()), check_event)?;
        self.id.map_or(Ok(()), check_id)?;
        if let Some(retry_ms) = self.retry_ms {
            let mut digits = String::new();
            // invariant: writing into a String does not fail.
            let _ = write!(digits, "{retry_ms}");
            write_field("retry", &digits, out);
        }
        if let Some(event) = self.event {
            write_field("event", event, out);
        }
        if let Some(id) = self.id {
            write_field("id", id, out);
        }
        if let Some(data) = self.data {
            for line in lines(data) {
                write_field("data", line, out);
            }
        }
        out.push(b'\n');
        Ok(())
    }

    /// The block in a buffer of its own.
    ///
    /// # Errors
    /// As [`Block::encode_into`].
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let text = [self.event, self.id, self.data].into_iter().flatten().map(str::len).sum::<usize>();
        let mut out = Vec::with_capacity(text + 48);
        self.encode_into(&mut out)?;
        Ok(out)
    }
}

/// Appends a comment, which clients ignore: a sign of life. An empty text gives `:`.
pub fn comment_into(text: &str, out: &mut Vec<u8>) {
    for line in lines(text) {
        out.push(b':');
        if !line.is_empty() {
            out.push(b' ');
            out.extend_from_slice(line.as_bytes());
        }
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// Appends one field line. The space after the colon is the one clients take off, so a value may start with a space.
fn write_field(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// The lines of a text, at least one, split at LF, CR LF and CR, as clients split them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = memchr::memchr2(b'\n', b'\r', text.as_bytes()) else {
            rest = None;
            return Some(text);
        };
        let (line, tail) = text.split_at(end);
        rest = tail.strip_prefix("\r\n").or_else(|| tail.get(1..));
        Some(line)
    })
}
