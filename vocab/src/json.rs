//! JSON without a tree: one pass that validates and drops insignificant white space, and string escaping.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::limits;

/// Why data is not usable as JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON text (RFC 8259).
    #[error("not valid JSON")]
    Syntax(#[from] serde_json::Error),
    /// JSON is UTF-8 (RFC 8259, section 8.1).
    #[error("JSON is not UTF-8")]
    NotUtf8(#[from] std::str::Utf8Error),
    /// Arrays and objects are nested more than [`limits::JSON_DEPTH_LIMIT`] deep.
    #[error("JSON is nested deeper than 64 levels")]
    TooDeep,
}

/// Checks that `text` is one JSON value and returns it without white space outside strings.
///
/// Numbers keep their digits and objects the order and number of their members: nothing is interpreted. The result
/// has no raw line break, so it may stand in an NDJSON line or an SSE `data:` field.
///
/// # Errors
/// When it is no JSON value, or one that is nested too deep.
pub fn compact_json(text: &[u8]) -> Result<Bytes, JsonError> {
    check_depth(text)?;
    std::str::from_utf8(text)?;
    serde_json::from_slice::<IgnoredAny>(text)?;
    if !text.iter().any(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t')) {
        return Ok(Bytes::copy_from_slice(text));
    }
    let mut compact = Vec::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in text {
        if in_string {
            compact.push(byte);
            if escaped {
                escaped = false;
            } else if byte == b'\\' {
                escaped = true;
            } else if byte == b'"' {
                in_string = false;
            }
        } else if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            compact.push(byte);
            in_string = byte == b'"';
        }
    }
    Ok(compact.into())
}

/// Refuses deep nesting before any recursive parser sees it.
fn check_depth(text: &[u8]) -> Result<(), JsonError> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > limits::JSON_DEPTH_LIMIT {
                    return Err(JsonError::TooDeep);
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Appends `text` as a JSON string with its quotes.
pub fn push_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if (c as u32) < 0x20 || c == '\u{2028}' || c == '\u{2029}' => {
                let mut escape = String::with_capacity(6);
                write!(escape, "\\u{:04x}", c as u32).expect("invariant: writing to a String cannot fail");
                out.extend_from_slice(escape.as_bytes());
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compact(text: &str) -> Option<String> {
        compact_json(text.as_bytes()).ok().map(|b| String::from_utf8(b.to_vec()).expect("utf-8"))
    }

    #[test]
    fn bad_json() {
        assert_eq!(compact("{ \"a\" : [1, 2.50,\n 3e9 ] }").as_deref(), Some("{\"a\":[1,2.50,3e9]}"));
        assert_eq!(compact(" \"a \\\" b\" ").as_deref(), Some("\"a \\\" b\""));
        assert_eq!(compact("12345678901234567890123").as_deref(), Some("12345678901234567890123"));
        for bad in ["", "{", "{]", "{\"a\":}", "nul", "1 2", "\"\n\"", "'a'", "[1,]"] {
            assert_eq!(compact(bad), None, "{bad:?}");
        }
        assert!(compact_json(b"\"\xff\"").is_err());
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(matches!(compact_json(deep(65).as_bytes()), Err(JsonError::TooDeep)));
        assert!(compact_json(deep(64).as_bytes()).is_ok());
        assert!(matches!(compact_json("[".repeat(1 << 20).as_bytes()), Err(JsonError::TooDeep)));
    }

    proptest! {
        #[test]
        fn compacting_keeps_the_value(text in "[\\[\\]{}:, \n\"\\\\a0-9.eE+-]{0,60}") {
            if let Ok(before) = serde_json::from_str::<serde_json::Value>(&text) {
                let after = compact_json(text.as_bytes()).expect("valid JSON is accepted");
                prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&after).expect("still valid"), before);
                prop_assert!(!after.contains(&b'\n'));
            }
        }

        #[test]
        fn escaped_strings_read_back(text in "\\PC*|[\\x00-\\x1f\"\\\\\u{2028}]{0,20}") {
            let mut out = Vec::new();
            push_json_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("valid"), text);
            prop_assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
        }
    }
}
