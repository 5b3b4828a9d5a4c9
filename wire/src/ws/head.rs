//! The head of a client's frame (RFC 6455, section 5.2).

use super::{Opcode, Violation};

/// Longest head: two bytes, a 64-bit length and a mask.
pub(crate) const HEAD_BYTES_LIMIT: usize = 14;

/// A frame's head, valid on its own; whether it fits the open message and the limits is the decoder's question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Last frame of its message.
    pub(crate) fin: bool,
    /// What the frame is.
    pub(crate) opcode: Opcode,
    /// Payload bytes, as declared.
    pub(crate) len: u64,
    /// Masking key.
    pub(crate) mask: [u8; 4],
}

/// Reads a head from the start of `bytes`: the head and its length, or `None` if more bytes are needed. Judges each
/// byte in the order it arrives, so the verdict does not depend on how the bytes were split.
///
/// # Errors
/// A head no client may send.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Violation> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Violation::ReservedBits);
    }
    let opcode = Opcode::from_bits(first & 0x0F).ok_or(Violation::ReservedOpcode)?;
    let fin = first & 0x80 != 0;
    if opcode.is_control() && !fin {
        return Err(Violation::ControlFragmented);
    }

    let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(Violation::Unmasked);
    }
    let short = second & 0x7F;
    if opcode.is_control() && short > 125 {
        return Err(Violation::ControlTooLong);
    }

    let Some((len, rest)) = parse_len(short, rest)? else { return Ok(None) };
    let Some((&mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    Ok(Some((Head { fin, opcode, len, mask }, bytes.len() - rest.len())))
}

/// The payload length and what follows it, or `None` if more bytes are needed.
fn parse_len(short: u8, bytes: &[u8]) -> Result<Option<(u64, &[u8])>, Violation> {
    match short {
        126 => {
            let Some((raw, rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
            let len = u16::from_be_bytes(*raw);
            if len < 126 {
                return Err(Violation::NonMinimalLength);
            }
            Ok(Some((u64::from(len), rest)))
        }
        127 => {
            let Some((raw, rest)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
            let len = u64::from_be_bytes(*raw);
            if len >> 63 != 0 {
                return Err(Violation::LengthTopBit);
            }
            if len <= u64::from(u16::MAX) {
                return Err(Violation::NonMinimalLength);
            }
            Ok(Some((len, rest)))
        }
        short => Ok(Some((u64::from(short), bytes))),
    }
}
