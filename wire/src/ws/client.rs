//! Frames as a client sends them: masked, and fragmented or wrong on purpose. For tests, fuzzing and load; the server
//! never sends one.

use super::{Opcode, mask};

/// Appends one masked frame to `out`. Nothing is checked: a control frame may be long or lack FIN.
pub fn encode_into(fin: bool, opcode: Opcode, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    let first = if fin { 0x80 } else { 0 } | opcode as u8;
    raw_into(first, payload, key, out);
}

/// One masked frame.
pub fn encode(fin: bool, opcode: Opcode, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 14);
    encode_into(fin, opcode, payload, key, &mut out);
    out
}

/// Appends one masked frame whose first byte (FIN, reserved bits, opcode) is `first`.
pub fn raw_into(first: u8, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    out.push(first);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    mask::apply(out.get_mut(start..).unwrap_or_default(), key, 0);
}
