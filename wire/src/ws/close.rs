//! Close frames as a client sends them.

use super::{Incoming, Violation};

/// Whether a peer may send this close code: the registered ones that may travel (1000-1003, 1007-1014), libraries'
/// (3000-3999) and applications' (4000-4999). RFC 6455, section 7.4, and the IANA registry of close codes.
pub fn is_valid_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Reads the unmasked payload of a close frame (RFC 6455, section 5.5.1).
///
/// # Errors
/// Half a code, a code that may not be sent, or a reason that is not UTF-8.
pub(crate) fn parse(payload: &[u8]) -> Result<Incoming<'_>, Violation> {
    if payload.is_empty() {
        return Ok(Incoming::Close(None));
    }
    let (code, reason) = payload.split_first_chunk::<2>().ok_or(Violation::CloseOneByte)?;
    let code = u16::from_be_bytes(*code);
    if !is_valid_close_code(code) {
        return Err(Violation::CloseCode);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::CloseReasonUtf8)?;
    Ok(Incoming::Close(Some((code, reason))))
}
