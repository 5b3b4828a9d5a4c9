use super::*;

/// The head as text, without its empty line.
#[track_caller]
fn check(head: Vec<u8>, present: &[&str], absent: &[&str]) {
    let text = String::from_utf8(head).unwrap();
    let (head, _) = text.split_once("\r\n\r\n").expect("the empty line");
    let lines: Vec<&str> = head.split("\r\n").collect();
    assert!(lines.iter().skip(1).all(|line| line.contains(": ")), "{head}");
    for line in present {
        assert!(lines.contains(line), "{line} is missing in:\n{head}");
    }
    for name in absent {
        assert!(!lines.iter().any(|line| line.starts_with(name)), "{name} is in:\n{head}");
    }
}

const EVERY_STREAM: [&str; 5] = [
    "content-type: text/event-stream",
    "cache-control: no-store, no-transform",
    "x-accel-buffering: no",
    "x-content-type-options: nosniff",
    "referrer-policy: no-referrer",
];

fn stream(http_10: bool, keep_alive: bool) -> StreamHead<'static> {
    StreamHead { http_10, content_type: EVENT_STREAM, extra: &[], keep_alive }
}

#[test]
fn streams() {
    let chunked = "transfer-encoding: chunked";
    for head in [stream(false, true), stream(false, false), stream(true, true), stream(true, false)] {
        check(head.encode(), &EVERY_STREAM, &["content-length"]);
    }
    check(stream(false, true).encode(), &["HTTP/1.1 200 OK", chunked], &["connection"]);
    check(stream(false, false).encode(), &["HTTP/1.1 200 OK", chunked, "connection: close"], &[]);
    // HTTP/1.0 knows no chunks (RFC 9112, section 6.1): the end of the connection ends the body.
    for keep_alive in [true, false] {
        let head = stream(true, keep_alive);
        assert!(!head.is_chunked());
        check(head.encode(), &["HTTP/1.0 200 OK", "connection: close"], &["transfer-encoding"]);
    }
    let extra = [(http::header::DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"))];
    let head = StreamHead { extra: &extra, ..stream(false, false) };
    check(head.encode(), &["date: Sun, 06 Nov 1994 08:49:37 GMT"], &[]);
}

#[test]
fn whole_answers() {
    let json = [(CONTENT_TYPE, JSON)];
    let answer = full_response(StatusCode::TOO_MANY_REQUESTS, &json, b"{}", false);
    assert!(answer.ends_with(b"\r\n\r\n{}"));
    let present = ["HTTP/1.1 429 Too Many Requests", "content-length: 2", "connection: close"];
    check(answer, &present, &["transfer-encoding"]);
    check(full_response(StatusCode::OK, &json, b"", false), &["content-length: 0"], &[]);
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
        let answer = full_response(status, &[], b"never", false);
        assert!(answer.ends_with(b"\r\n\r\n"));
        check(answer, &[], &["content-length"]);
    }
    // A status without a name still has its space (RFC 9112, section 4).
    let unnamed = StatusCode::from_u16(599).unwrap();
    check(full_response(unnamed, &[], b"", false), &["HTTP/1.1 599 "], &[]);
}

/// Whoever builds a header from what a peer sent meets this refusal, so no writer here has to check again.
#[test]
fn header_types_refuse_line_breaks() {
    for text in ["a\r\nset-cookie: x", "a\nb", "a\rb", "a\0b"] {
        assert!(HeaderValue::from_str(text).is_err(), "{text:?}");
        assert!(HeaderName::from_bytes(text.as_bytes()).is_err(), "{text:?}");
    }
}
