use super::*;

/// The headers of the example in RFC 6455, section 1.3.
fn good() -> Vec<(&'static str, &'static str)> {
    vec![
        ("host", "server.example.com"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("origin", "http://example.com"),
        ("sec-websocket-version", "13"),
    ]
}

fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

/// The good request with some lines replaced (`None`: left out) and others added.
#[track_caller]
fn check_headers(
    name: &str,
    replace: &[(&'static str, Option<&'static str>)],
    add: &[(&'static str, &'static str)],
    expected: Result<Option<&str>, HandshakeError>,
) {
    let mut lines = good();
    for (name, value) in replace {
        lines.retain(|(existing, _)| existing != name);
        lines.extend(value.map(|value| (*name, value)));
    }
    lines.extend_from_slice(add);
    let outcome = check(&Method::GET, Version::HTTP_11, &map(&lines), &["json.v1", "proto.v1"]);
    assert_eq!(outcome.map(|accept| accept.subprotocol), expected, "{name}");
}

#[test]
fn the_example_of_the_rfc() {
    let accept = check(&Method::GET, Version::HTTP_11, &map(&good()), &[]).unwrap();
    assert_eq!(accept.key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let head = accept.response_head(&[(http::header::SERVER, HeaderValue::from_static("tidegate"))]);
    assert_eq!(
        String::from_utf8(head).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nserver: tidegate\r\n\r\n"
    );
}

#[test]
fn w11_requests_that_are_refused() {
    use HandshakeError as E;
    let headers = map(&good());
    let with = |method, version| check(&method, version, &headers, &[]).unwrap_err();
    assert_eq!(with(Method::POST, Version::HTTP_11), E::Method);
    assert_eq!(with(Method::HEAD, Version::HTTP_11), E::Method);
    assert_eq!(with(Method::GET, Version::HTTP_10), E::HttpVersion);
    assert_eq!(with(Method::GET, Version::HTTP_2), E::HttpVersion);

    check_headers("no host", &[("host", None)], &[], Err(E::Host));
    check_headers("two hosts", &[], &[("host", "other")], Err(E::Host));
    check_headers("no upgrade", &[("upgrade", None)], &[], Err(E::Upgrade));
    check_headers("other upgrade", &[("upgrade", Some("h2c"))], &[], Err(E::Upgrade));
    check_headers("part of a token", &[("upgrade", Some("websockets"))], &[], Err(E::Upgrade));
    check_headers("no connection", &[("connection", None)], &[], Err(E::Connection));
    check_headers("keep-alive only", &[("connection", Some("keep-alive"))], &[], Err(E::Connection));
    check_headers("body", &[], &[("content-length", "5")], Err(E::Body));
    check_headers("body of a strange length", &[], &[("content-length", "00")], Err(E::Body));
    check_headers("chunked body", &[], &[("transfer-encoding", "chunked")], Err(E::Body));
    check_headers("no version", &[("sec-websocket-version", None)], &[], Err(E::WebSocketVersion));
    check_headers("version 8", &[("sec-websocket-version", Some("8"))], &[], Err(E::WebSocketVersion));
    check_headers("a list", &[("sec-websocket-version", Some("13, 8"))], &[], Err(E::WebSocketVersion));
    check_headers("two versions", &[], &[("sec-websocket-version", "13")], Err(E::DuplicateVersion));
    check_headers("no key", &[("sec-websocket-key", None)], &[], Err(E::MissingKey));
    check_headers(
        "two keys",
        &[],
        &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")],
        Err(E::DuplicateKey),
    );
    for key in ["", "AAAA", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZTE=", "not base64 not base64!=="]
    {
        check_headers("bad key", &[("sec-websocket-key", Some(key))], &[], Err(E::BadKey));
    }
}

#[test]
fn requests_that_are_granted() {
    check_headers("as a browser sends", &[("connection", Some("keep-alive, Upgrade"))], &[], Ok(None));
    check_headers(
        "any case",
        &[("upgrade", Some("WebSocket")), ("connection", Some("upgrade"))],
        &[],
        Ok(None),
    );
    check_headers("over several lines", &[], &[("connection", "keep-alive"), ("upgrade", "h2c")], Ok(None));
    check_headers("empty body", &[], &[("content-length", "0")], Ok(None));
    let deflate = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
    check_headers("an extension is not negotiated", &[], &[deflate], Ok(None));
}

#[test]
fn w13_subprotocols() {
    let name = "sec-websocket-protocol";
    check_headers("none offered", &[], &[], Ok(None));
    check_headers("unknown", &[], &[(name, "mqtt")], Ok(None));
    check_headers("known", &[], &[(name, "proto.v1")], Ok(Some("proto.v1")));
    check_headers("the client's first", &[], &[(name, "mqtt, proto.v1, json.v1")], Ok(Some("proto.v1")));
    check_headers("over several lines", &[], &[(name, "mqtt"), (name, "json.v1")], Ok(Some("json.v1")));
    check_headers("case counts", &[], &[(name, "JSON.v1")], Ok(None));
    check_headers("no part of a name", &[], &[(name, "json")], Ok(None));

    // A token smuggled in as a subprotocol must not come back.
    let lines = [&good()[..], &[(name, "json.v1, secret-token")]].concat();
    let accept = check(&Method::GET, Version::HTTP_11, &map(&lines), &["json.v1"]).unwrap();
    let head = String::from_utf8(accept.response_head(&[])).unwrap();
    assert!(head.contains("sec-websocket-protocol: json.v1\r\n"), "{head}");
    assert!(!head.contains("secret-token"), "{head}");
}

#[test]
fn refusals_say_what_would_do() {
    assert_eq!(HandshakeError::WebSocketVersion.status(), StatusCode::UPGRADE_REQUIRED);
    let headers = HandshakeError::WebSocketVersion.headers();
    assert!(headers.contains(&(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))));
    assert_eq!(HandshakeError::BadKey.status(), StatusCode::BAD_REQUEST);
    assert!(HandshakeError::BadKey.headers().is_empty());
}

#[test]
fn header_values_that_are_not_ascii_are_no_match() {
    let mut headers = map(&good());
    headers.insert(UPGRADE, HeaderValue::from_bytes(b"websocket\xFF").unwrap());
    assert_eq!(check(&Method::GET, Version::HTTP_11, &headers, &[]), Err(HandshakeError::Upgrade));
    let mut headers = map(&good());
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_bytes(b"\xFF").unwrap());
    assert_eq!(check(&Method::GET, Version::HTTP_11, &headers, &[]), Err(HandshakeError::BadKey));
}
