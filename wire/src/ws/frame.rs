//! What the server sends: frames that are neither masked nor fragmented (RFC 6455, section 5).
//!
//! For a broadcast, encode once with [`encode`] and hand the same `Bytes` to every socket; where the payload is
//! already encoded, send [`head`] and the payload with one vectored write.

use bytes::{BufMut, Bytes, BytesMut};

use super::Opcode;
use crate::limits::{CLOSE_REASON_BYTES_LIMIT, CONTROL_BYTES_LIMIT};

/// Longest head of a server's frame, in bytes: no mask.
pub const HEAD_BYTES_LIMIT: usize = 10;

/// The head of a whole frame, and how many of its bytes count: `&head[..len]` goes before `payload_len` bytes.
/// Control payloads must be at most 125 bytes.
pub fn head(opcode: Opcode, payload_len: usize) -> ([u8; HEAD_BYTES_LIMIT], usize) {
    debug_assert!(!opcode.is_control() || payload_len <= CONTROL_BYTES_LIMIT, "control frame is too long");
    let first = 0x80 | opcode as u8;
    match payload_len {
        0..=125 => ([first, payload_len as u8, 0, 0, 0, 0, 0, 0, 0, 0], 2),
        126..=0xFFFF => {
            let [a, b] = (payload_len as u16).to_be_bytes();
            ([first, 126, a, b, 0, 0, 0, 0, 0, 0], 4)
        }
        _ => {
            let [a, b, c, d, e, f, g, h] = (payload_len as u64).to_be_bytes();
            ([first, 127, a, b, c, d, e, f, g, h], 10)
        }
    }
}

/// Appends a whole frame to `out`. Control payloads must be at most 125 bytes.
pub fn encode_into(opcode: Opcode, payload: &[u8], out: &mut impl BufMut) {
    let (head, len) = head(opcode, payload.len());
    out.put_slice(head.get(..len).unwrap_or_default());
    out.put_slice(payload);
}

/// A whole frame. Control payloads must be at most 125 bytes.
pub fn encode(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES_LIMIT + payload.len());
    encode_into(opcode, payload, &mut out);
    out.freeze()
}

/// A text frame.
pub fn text(payload: &str) -> Bytes {
    encode(Opcode::Text, payload.as_bytes())
}

/// A binary frame.
pub fn binary(payload: &[u8]) -> Bytes {
    encode(Opcode::Binary, payload)
}

/// A ping; of a payload over 125 bytes the rest is left out.
pub fn ping(payload: &[u8]) -> Bytes {
    control(Opcode::Ping, payload)
}

/// A pong; of a payload over 125 bytes the rest is left out, which cannot happen to a received ping's.
pub fn pong(payload: &[u8]) -> Bytes {
    control(Opcode::Pong, payload)
}

/// A close frame with a code and a reason, cut to 123 bytes at the end of a character.
pub fn close(code: u16, reason: &str) -> Bytes {
    debug_assert!(super::is_valid_close_code(code), "close code {code} may not be sent");
    let reason = reason.get(..reason.floor_char_boundary(CLOSE_REASON_BYTES_LIMIT)).unwrap_or_default();
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    encode(Opcode::Close, &payload)
}

/// A close frame without a code: the answer to one without a code.
pub fn close_empty() -> Bytes {
    Bytes::from_static(&[0x88, 0x00])
}

/// A control frame with as much of the payload as may be sent.
fn control(opcode: Opcode, payload: &[u8]) -> Bytes {
    encode(opcode, payload.get(..CONTROL_BYTES_LIMIT).unwrap_or(payload))
}
