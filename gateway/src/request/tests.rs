use http::Request;
use tidegate_vocab::{LogEpoch, Offset, PartitionId, Topic};

use super::*;

fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("valid").into_parts().0
}

fn parsed(uri: &str, headers: &[(&str, &str)]) -> Result<EventsRequest, ErrorKind> {
    let parts = parts(uri, headers);
    let transport = transport_of(&parts).map_err(|problem| problem.kind)?;
    parse(&parts, transport, 128).map_err(|problem| problem.kind)
}

fn a_cursor(next: u64) -> (Cursor, String) {
    let mut cursor = Cursor::default();
    let partition = PartitionId { topic: Topic::Events, number: 1 };
    cursor.cover(&Channel::parse("a").expect("valid"), partition, LogEpoch(1), Offset(next));
    let text = cursor.encode();
    (cursor, text)
}

#[test]
fn one_url_five_transports() {
    let check = |uri: &str, headers: &[(&str, &str)], expected| {
        assert_eq!(parsed(uri, headers).map(|r| r.transport), expected, "{uri} {headers:?}")
    };
    check("/v1/events?channel=a", &[("accept", "text/event-stream")], Ok(Transport::Sse));
    check("/v1/events?channel=a", &[("accept", "text/html, Text/Event-Stream;q=0.9")], Ok(Transport::Sse));
    check("/v1/events?channel=a", &[("accept", "application/x-ndjson")], Ok(Transport::Ndjson));
    check("/v1/events?channel=a", &[("accept", "*/*")], Ok(Transport::Poll));
    check("/v1/events?channel=a", &[], Ok(Transport::Poll));
    check(
        "/v1/events?channel=a",
        &[("connection", "Upgrade"), ("upgrade", "websocket"), ("accept", "text/event-stream")],
        Ok(Transport::WebSocket),
    );
    check("/v1/events?channel=a&as=sse", &[("accept", "application/x-ndjson")], Ok(Transport::Sse));
    check("/v1/events?channel=a&as=xml", &[], Err(ErrorKind::BadRequest));
}

#[test]
fn bad_parameters() {
    let check = |uri: &str, kind| assert_eq!(parsed(uri, &[]).err(), Some(kind), "{uri}");
    check("/v1/events?channel=", ErrorKind::BadChannel);
    check("/v1/events?channel=a%0Ab", ErrorKind::BadChannel);
    check("/v1/events?channel=a%00", ErrorKind::BadChannel);
    check("/v1/events?channel=%FF", ErrorKind::BadChannel);
    check(&format!("/v1/events?channel={}", "x".repeat(256)), ErrorKind::BadChannel);
    check("/v1/events?channel=a&wait=soon", ErrorKind::BadRequest);
    check("/v1/events?channel=a&wait=-1s", ErrorKind::BadRequest);
    check("/v1/events?channel=a&last=-1", ErrorKind::BadRequest);
    check("/v1/events?channel=a&last=1001", ErrorKind::BadRequest);
    check("/v1/events?channel=a&since=yesterday", ErrorKind::BadRequest);
    check("/v1/events?channel=a&since=1s&last=1", ErrorKind::BadRequest);
    let many: String = (0..129).map(|n| format!("&channel=c{n}")).collect();
    check(&format!("/v1/events?{many}"), ErrorKind::TooMany);
}

#[test]
fn waits_are_capped_and_channels_are_taken_once() {
    let request = parsed("/v1/events?channel=b&channel=a&channel=b&wait=10h&last=5", &[]).expect("valid");
    assert_eq!(request.channels.iter().map(Channel::as_str).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(request.wait_ms, limits::POLL_WAIT_LIMIT_MS);
    assert_eq!(request.fresh, WantFrom::Last(5));
    assert_eq!(parse_duration_ms("250ms"), Some(250));
    assert_eq!(parse_duration_ms("2m"), Some(120_000));
    assert_eq!(parse_duration_ms("99999999999999999999s"), None);
    assert_eq!(parse_duration_ms("18446744073709551615h"), None);
}

#[test]
fn last_event_id_beats_the_cursor_and_both_beat_if_none_match() {
    let (one, one_text) = a_cursor(1);
    let (two, two_text) = a_cursor(2);
    let (three, three_text) = a_cursor(3);
    let uri = format!("/v1/events?channel=a&cursor={two_text}");
    let tag = format!("\"{three_text}\"");
    let cursor = |uri: &str, headers: &[(&str, &str)]| parsed(uri, headers).expect("valid").cursor;
    assert_eq!(
        cursor(&uri, &[("last-event-id", &one_text), ("if-none-match", &tag)]),
        CursorParam::Good(one)
    );
    assert_eq!(cursor(&uri, &[("if-none-match", &tag)]), CursorParam::Good(two.clone()));
    assert_eq!(cursor(&uri, &[("last-event-id", "")]), CursorParam::Good(two));
    assert_eq!(cursor("/v1/events?channel=a", &[("if-none-match", &tag)]), CursorParam::Good(three));
    assert_eq!(cursor("/v1/events?channel=a", &[]), CursorParam::None);
}

#[test]
fn hostile_last_event_ids_are_bad_cursors_and_no_errors() {
    for id in ["-1", "x", "AAAA", "\u{7f}", &"A".repeat(5000), "0", "1.2.3", "%00"] {
        let mut bad = parts("/v1/events?channel=a", &[("accept", "text/event-stream")]);
        if let Ok(value) = http::HeaderValue::from_bytes(id.as_bytes()) {
            bad.headers.insert(LAST_EVENT_ID, value);
            assert_eq!(
                parse(&bad, Transport::Sse, 128).expect("accepted").cursor,
                CursorParam::Bad,
                "{id:?}"
            );
        }
    }
    let mut latin = parts("/v1/events?channel=a", &[]);
    latin.headers.insert(LAST_EVENT_ID, http::HeaderValue::from_bytes(&[0xe9]).expect("opaque"));
    assert_eq!(parse(&latin, Transport::Sse, 128).expect("accepted").cursor, CursorParam::Bad);
}

#[test]
fn tokens_come_from_the_header_or_the_query() {
    let token =
        |uri: &str, headers: &[(&str, &str)]| token_of(&parts(uri, headers)).map_err(|problem| problem.kind);
    assert_eq!(token("/v1/events?token=q", &[("authorization", "Bearer h")]), Ok(Some("h".to_owned())));
    assert_eq!(token("/v1/events?token=q", &[]), Ok(Some("q".to_owned())));
    assert_eq!(token("/v1/events", &[]), Ok(None));
    assert_eq!(token("/v1/events", &[("authorization", "Basic eDp5")]), Err(ErrorKind::Unauthorized));
}
