//! What a server sends on one connection, taken apart as cheaply as can be: no IO, and no buffer while nothing is cut off.

use tidegate_wire::chunked;

use crate::frames::{self, Frames, NotAFrame};
use crate::history::Receiving;

/// Longest head of an answer, and longest answer to a poll, that is believed.
const HEAD_BYTES_LIMIT: usize = 16 * 1_024;
const ANSWER_BYTES_LIMIT: usize = 8 << 20;

/// Something that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A line or a frame: an object, or a field of an event stream.
    Line(&'a [u8]),
    /// A ping to be answered.
    Ping(&'a [u8]),
    /// A poll's answer.
    Answer(Answer<'a>),
    /// The server ends the connection.
    Close,
}

/// A whole answer to a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    /// The cursor, without its quotes.
    pub(super) etag: Option<&'a str>,
    pub(super) body: &'a [u8],
    /// No other request may follow.
    pub(super) is_last: bool,
}

/// Why nothing more can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The server does not want us now.
    Refused {
        /// What it said.
        text: String,
        /// When to come back, if it said so.
        retry_ms: Option<u64>,
    },
    /// What came makes no sense.
    Broken(String),
}

/// Where a connection stands in what it reads.
#[derive(Debug)]
pub(super) enum Reader {
    /// Of a stream: the head is not all there.
    Head(Vec<u8>),
    /// A WebSocket.
    Frames(Frames),
    /// An event stream or lines of JSON.
    Lines(Box<Lines>),
    /// Answers to polls: the beginning of one.
    Answers(Vec<u8>),
}

#[derive(Debug, Default)]
pub(super) struct Lines {
    chunks: chunked::Decoder,
    cut_off: Vec<u8>,
}

impl From<NotAFrame> for Ended {
    fn from(error: NotAFrame) -> Self {
        Self::Broken(error.to_string())
    }
}

impl Reader {
    pub(super) fn new(transport: Receiving) -> Self {
        match transport {
            Receiving::Ws | Receiving::Sse | Receiving::Ndjson => Self::Head(Vec::new()),
            Receiving::LongPoll | Receiving::ShortPoll => Self::Answers(Vec::new()),
        }
    }

    /// Takes what was read. `scratch` is any buffer: it holds a stream's content without its chunks.
    pub(super) fn feed(
        &mut self,
        transport: Receiving,
        read: &[u8],
        scratch: &mut Vec<u8>,
        on: &mut impl FnMut(Heard<'_>),
    ) -> Result<(), Ended> {
        match self {
            Self::Frames(frames) => Ok(frames.feed(read, |opcode, payload| match opcode {
                frames::TEXT | frames::BINARY => on(Heard::Line(payload)),
                frames::PING => on(Heard::Ping(payload)),
                frames::CLOSE => on(Heard::Close),
                _ => {}
            })?),
            Self::Lines(lines) => lines.feed(read, scratch, on),
            Self::Answers(cut_off) => answers(cut_off, read, on),
            Self::Head(cut_off) => {
                cut_off.extend_from_slice(read);
                let Some((head, used)) = Head::parse(cut_off)? else { return Ok(()) };
                let wanted = if transport == Receiving::Ws { 101 } else { 200 };
                if head.status != wanted {
                    let text = String::from_utf8_lossy(&cut_off[..cut_off.len().min(400)]).into_owned();
                    return Err(Ended::Refused { text, retry_ms: head.retry_ms });
                }
                let rest = cut_off.split_off(used);
                *self = match transport {
                    Receiving::Ws => Self::Frames(Frames::default()),
                    _ => Self::Lines(Box::default()),
                };
                if rest.is_empty() { Ok(()) } else { self.feed(transport, &rest, scratch, on) }
            }
        }
    }
}

impl Lines {
    fn feed(
        &mut self,
        read: &[u8],
        scratch: &mut Vec<u8>,
        on: &mut impl FnMut(Heard<'_>),
    ) -> Result<(), Ended> {
        scratch.clear();
        scratch.append(&mut self.cut_off);
        self.chunks.feed(read, scratch).map_err(|error| Ended::Broken(error.to_string()))?;
        let mut rest = &scratch[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if end > 0 {
                on(Heard::Line(&rest[..end]));
            }
            rest = &rest[end + 1..];
        }
        if rest.len() > ANSWER_BYTES_LIMIT {
            return Err(Ended::Broken("a line without an end".to_owned()));
        }
        self.cut_off = rest.to_vec();
        if self.chunks.is_finished() {
            on(Heard::Close);
        }
        Ok(())
    }
}

/// Whole answers at the front; the rest is kept.
fn answers(cut_off: &mut Vec<u8>, read: &[u8], on: &mut impl FnMut(Heard<'_>)) -> Result<(), Ended> {
    let joined = if cut_off.is_empty() {
        None
    } else {
        cut_off.extend_from_slice(read);
        Some(std::mem::take(cut_off))
    };
    let mut bytes = joined.as_deref().unwrap_or(read);
    while let Some((head, used)) = Head::parse(bytes)? {
        let is_empty = matches!(head.status, 204 | 304);
        let length = if is_empty { 0 } else { head.length.unwrap_or(usize::MAX) };
        if length > ANSWER_BYTES_LIMIT {
            return Err(Ended::Broken("a poll's answer has no length, or too large a one".to_owned()));
        }
        let Some(body) = bytes.get(used..used + length) else { break };
        let Head { status, etag, is_last, retry_ms, .. } = head;
        if !matches!(status, 200 | 304) {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
            return Err(Ended::Refused { text, retry_ms });
        }
        on(Heard::Answer(Answer { status, etag, body, is_last }));
        bytes = &bytes[used + length..];
    }
    *cut_off = bytes.to_vec();
    Ok(())
}

/// What matters of an answer's head.
#[derive(Debug, Default)]
struct Head<'a> {
    status: u16,
    length: Option<usize>,
    etag: Option<&'a str>,
    is_last: bool,
    retry_ms: Option<u64>,
}

impl<'a> Head<'a> {
    /// With its length; nothing if it is not all there.
    fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, Ended> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            let is_too_long = bytes.len() > HEAD_BYTES_LIMIT;
            return if is_too_long {
                Err(Ended::Broken("a head without an end".to_owned()))
            } else {
                Ok(None)
            };
        };
        let text = std::str::from_utf8(&bytes[..end]);
        let text = text.map_err(|_| Ended::Broken("a head that is no text".to_owned()))?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| Ended::Broken("no HTTP".to_owned()))?;
        let mut head = Self { status, ..Self::default() };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if is("content-length") {
                head.length = value.parse().ok();
            } else if is("etag") {
                head.etag = Some(value.trim_matches('"'));
            } else if is("connection") {
                head.is_last = value.eq_ignore_ascii_case("close");
            } else if is("retry-after") {
                head.retry_ms = value.parse::<u64>().ok().map(|seconds| seconds.saturating_mul(1_000));
            }
        }
        Ok(Some((head, end + 4)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::text_frame;

    /// What is heard, however the bytes are cut.
    fn heard(transport: Receiving, bytes: &[u8]) -> Vec<String> {
        let all: Vec<_> = [1, 2, 7, 64, bytes.len()]
            .map(|step| {
                let (mut reader, mut scratch, mut heard) = (Reader::new(transport), Vec::new(), Vec::new());
                for read in bytes.chunks(step) {
                    let mut on = |one: Heard<'_>| heard.push(shown(one));
                    reader.feed(transport, read, &mut scratch, &mut on).unwrap();
                }
                heard
            })
            .into();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
        all[0].clone()
    }

    fn shown(heard: Heard<'_>) -> String {
        match heard {
            Heard::Line(line) => String::from_utf8_lossy(line).into_owned(),
            Heard::Ping(_) => "ping".to_owned(),
            Heard::Close => "close".to_owned(),
            Heard::Answer(Answer { status, etag, body, is_last }) => {
                format!("{status} {etag:?} {} {is_last}", String::from_utf8_lossy(body))
            }
        }
    }

    #[test]
    fn a_websocket_is_its_frames() {
        let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n".to_vec();
        bytes.extend(text_frame(b"{\"type\":\"state\"}"));
        bytes.extend([0x89, 0, 0x88, 0]);
        assert_eq!(heard(Receiving::Ws, &bytes), ["{\"type\":\"state\"}", "ping", "close"]);
    }

    #[test]
    fn a_stream_is_its_lines_without_the_chunks() {
        let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for chunk in ["retry: 1000\n\nevent: tidegate.st", "ate\ndata: {}\n\n", ": ping\n"] {
            chunked::encode_into(chunk.as_bytes(), &mut bytes);
        }
        bytes.extend_from_slice(chunked::LAST_CHUNK);
        let lines = ["retry: 1000", "event: tidegate.state", "data: {}", ": ping", "close"];
        assert_eq!(heard(Receiving::Sse, &bytes), lines);
    }

    #[test]
    fn polls_are_their_answers() {
        let bytes =
            b"HTTP/1.1 200 OK\r\nETag: \"c1\"\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 304 Not Modified\r\n\
                      connection: close\r\n\r\n";
        assert_eq!(heard(Receiving::LongPoll, bytes), ["200 Some(\"c1\") {} false", "304 None  true"]);
    }

    #[test]
    fn a_refusal_says_when_to_come_back_and_nonsense_ends_it() {
        let bytes = b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\ncontent-length: 0\r\n\r\n";
        for transport in Receiving::ALL {
            let mut reader = Reader::new(transport);
            let error = reader.feed(transport, bytes, &mut Vec::new(), &mut |_| ()).unwrap_err();
            assert!(matches!(error, Ended::Refused { retry_ms: Some(3_000), .. }), "{error:?}");
            let mut reader = Reader::new(transport);
            let error = reader.feed(transport, b"what?\r\n\r\n", &mut Vec::new(), &mut |_| ()).unwrap_err();
            assert!(matches!(error, Ended::Broken(_)), "{error:?}");
        }
    }
}
