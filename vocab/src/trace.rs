//! W3C trace context: which trace a publish belongs to, carried with the event from the API to the fan-out.

use std::fmt;

/// A `traceparent` of version 00 (W3C Trace Context, section 3.2): who called, and whether the trace is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace, never 0.
    pub trace_id: u128,
    /// The caller's span, never 0.
    pub span_id: u64,
    /// Flags; the lowest bit says that the caller records the trace.
    pub flags: u8,
}

/// The text is no `traceparent`; such a header is ignored, as the recommendation asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct TraceContextError;

impl TraceContext {
    /// The name of the header, in HTTP, gRPC metadata and the log.
    pub const HEADER: &str = "traceparent";

    /// Reads `00-<32 hex digits>-<16>-<2>`; of a later version, only what version 00 has.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &[u8]) -> Result<Self, TraceContextError> {
        let text = std::str::from_utf8(text).map_err(|_| TraceContextError)?;
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(TraceContextError)?;
            let lower = part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            if lower {
                u128::from_str_radix(part, 16).map_err(|_| TraceContextError)
            } else {
                Err(TraceContextError)
            }
        };
        let version = hex(2)?;
        let context = Self { trace_id: hex(32)?, span_id: hex(16)? as u64, flags: hex(2)? as u8 };
        let is_whole = version != 0 || parts.next().is_none();
        let is_valid = version != 0xff && context.trace_id != 0 && context.span_id != 0 && is_whole;
        if is_valid { Ok(context) } else { Err(TraceContextError) }
    }

    /// Whether the caller records the trace.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_w3c_allows_is_read_and_nothing_else() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(text.as_bytes()).expect("valid");
        assert_eq!(context.to_string(), text);
        assert!(context.is_sampled());
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more";
        assert!(!TraceContext::parse(later.as_bytes()).expect("valid").is_sampled());
        for bad in [
            "",
            "00",
            "00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), Err(TraceContextError), "{bad}");
        }
        assert_eq!(TraceContext::parse(&[0xff; 55]), Err(TraceContextError));
    }
}
