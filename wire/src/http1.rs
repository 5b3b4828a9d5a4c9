//! HTTP/1 response heads for sockets taken from the HTTP server.
//!
//! **Owns** the head of a stream's answer and the small whole answer that refuses one. **Invariant:** names and values
//! are `http` types, which cannot hold a line break, so no header can be injected. **Does not** know the time: `Date`
//! is among the caller's extra headers (RFC 9110, section 6.6.1).

use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
};

/// `text/event-stream`.
pub const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// `application/x-ndjson`.
pub const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
/// `application/json`.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Tells nginx not to hold the stream back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The head of an answer whose body is a stream without an end in sight.
#[derive(Debug, Clone)]
pub struct StreamHead<'a> {
    /// The request was HTTP/1.0: the body is not chunked and ends with the connection.
    pub http_10: bool,
    /// The body's type.
    pub content_type: HeaderValue,
    /// Headers beyond those every stream has.
    pub extra: &'a [(HeaderName, HeaderValue)],
    /// Whether another request may follow on an HTTP/1.1 connection once the body has ended.
    pub keep_alive: bool,
}

impl StreamHead<'_> {
    /// Whether the body has to be chunked (RFC 9112, section 7.1).
    pub fn is_chunked(&self) -> bool {
        !self.http_10
    }

    /// The head with its empty line.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(384);
        let status_line: &[u8] = if self.http_10 { b"HTTP/1.0 200 OK\r\n" } else { b"HTTP/1.1 200 OK\r\n" };
        out.extend_from_slice(status_line);
        write_headers(&[(CONTENT_TYPE, self.content_type.clone())], &mut out);
        write_headers(&stream_headers(), &mut out);
        if self.is_chunked() {
            write_headers(&[(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))], &mut out);
        }
        if self.http_10 || !self.keep_alive {
            write_headers(&[(CONNECTION, HeaderValue::from_static("close"))], &mut out);
        }
        write_headers(self.extra, &mut out);
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// The headers of every stream: not stored, not transformed, not held back by a proxy, not sniffed.
pub fn stream_headers() -> [(HeaderName, HeaderValue); 4] {
    [
        (CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ]
}

/// A whole HTTP/1.1 answer with its length, after which another request may follow if `keep_alive`. A status that has no body (1xx, 204,
/// 304; RFC 9110, section 6.4.1) gets none, nor a length.
pub fn full_response(
    status: StatusCode,
    headers: &[(HeaderName, HeaderValue)],
    body: &[u8],
    keep_alive: bool,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + body.len());
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    write_headers(headers, &mut out);
    if !keep_alive {
        write_headers(&[(CONNECTION, HeaderValue::from_static("close"))], &mut out);
    }
    let has_body = !(status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED);
    if has_body {
        write_headers(&[(CONTENT_LENGTH, HeaderValue::from(body.len()))], &mut out);
    }
    out.extend_from_slice(b"\r\n");
    if has_body {
        out.extend_from_slice(body);
    }
    out
}

/// Appends header lines.
pub(crate) fn write_headers(headers: &[(HeaderName, HeaderValue)], out: &mut Vec<u8>) {
    for (name, value) in headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
