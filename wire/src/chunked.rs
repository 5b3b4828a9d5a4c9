//! Chunked bodies (RFC 9112, section 7.1) for streams taken from the HTTP server.
//!
//! **Owns** the framing of one chunk and of the end, and a [`Decoder`] for tests and load. **Invariant:** a chunk is
//! never empty, because an empty one ends the body; lengths are `NonZeroUsize`. **Does not** send trailers.

mod decode;

use std::num::NonZeroUsize;

use bytes::{BufMut, Bytes, BytesMut};

pub use decode::{ChunkError, Decoder};

/// Longest head of a chunk, in bytes: 16 hexadecimal digits and a line end.
pub const HEAD_BYTES_LIMIT: usize = 18;
/// What follows the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// What ends the body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The head of a chunk, and how many of its bytes count: `&head[..len]`, the data, [`CHUNK_END`].
pub fn head(data_len: NonZeroUsize) -> ([u8; HEAD_BYTES_LIMIT], usize) {
    let data_len = data_len.get() as u64;
    let digits = 16 - (data_len.leading_zeros() / 4) as usize;
    let mut head = [0; HEAD_BYTES_LIMIT];
    for (position, byte) in head.iter_mut().take(digits).enumerate() {
        let digit = (data_len >> (4 * (digits - 1 - position))) & 0xF;
        *byte = b"0123456789abcdef".get(digit as usize).copied().unwrap_or(b'0');
    }
    for (byte, end) in head.iter_mut().skip(digits).zip(CHUNK_END) {
        *byte = *end;
    }
    (head, digits + CHUNK_END.len())
}

/// Appends one chunk to `out`; nothing if `data` is empty.
pub fn encode_into(data: &[u8], out: &mut impl BufMut) {
    let Some(data_len) = NonZeroUsize::new(data.len()) else { return };
    let (head, len) = head(data_len);
    out.put_slice(head.get(..len).unwrap_or_default());
    out.put_slice(data);
    out.put_slice(CHUNK_END);
}

/// One chunk, to be shared by many sockets; nothing if `data` is empty.
pub fn encode(data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES_LIMIT + data.len() + CHUNK_END.len());
    encode_into(data, &mut out);
    out.freeze()
}

#[cfg(test)]
mod tests;
