//! HTTP on the public port: heads, methods, paths, origins.

use std::time::{Duration, Instant};

use tidegate_e2e::http::{HttpConn, exchange, get, request};
use tidegate_e2e::{Follow, Setup};

use crate::Rig;

#[tokio::test]
async fn slow_headers() {
    let mut rig = Rig::start(Setup::new().set("limits.head_timeout", "1s")).await;
    let mut slow = Vec::new();
    for start in
        ["", "G", "GET /v1/events?channel=a HTTP/1.1\r\n", "GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: "]
    {
        let mut conn = HttpConn::connect(rig.server.public()).await.expect("connects");
        conn.send(start).await.expect("sent");
        slow.push((conn, start, Instant::now()));
    }
    for (conn, start, begun) in &mut slow {
        let heard = conn.until_closed().await;
        let shown = String::from_utf8_lossy(&heard);
        assert!(heard.is_empty() || shown.starts_with("HTTP/1.1 408"), "{start:?}: {shown}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{start:?}");
    }
    // A body that does not come in time, too, is the client's own affair.
    let mut conn = HttpConn::connect(rig.server.public()).await.expect("connects");
    conn.send("POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        .await
        .expect("sent");
    rig.unharmed().await;
    assert_eq!(conn.response().await.expect("an answer").problem(), "request_timeout");
    rig.end().await;
}

#[tokio::test]
async fn foreign_origins() {
    let mut rig = Rig::start(Setup::new()).await;
    for origin in [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://localhost:80@evil.example",
        "http://127.0.0.1.evil.example",
        "https://localhost",
        "http://LOCALHOST:5173",
        "file://",
        "http://localhost:",
        "",
    ] {
        let follow = Follow::channels(["a"]).header("origin", origin);
        rig.refused_everywhere(&follow, 403, "forbidden").await;
        let body = "{\"channel\":\"a\",\"data\":1}";
        for (method, path) in [("POST", "/v1/messages"), ("OPTIONS", "/v1/events"), ("POST", "/demo/publish")]
        {
            let refused =
                exchange(rig.server.public(), request(method, path, &[("origin", origin)], body)).await;
            assert_eq!((refused.status(), refused.problem().as_str()), (403, "forbidden"), "{origin} {path}");
            assert_eq!(refused.header("access-control-allow-origin"), None, "{origin}");
        }
    }
    let twice =
        Follow::channels(["a"]).header("origin", "http://localhost:1").header("origin", "http://localhost:1");
    rig.refused_everywhere(&twice, 403, "forbidden").await;
    rig.end().await;
}

#[tokio::test]
async fn wrong_methods_and_paths() {
    let rig = Rig::start(Setup::new()).await;
    let address = rig.server.public();
    for method in ["PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"] {
        for (path, allow) in [("/v1/events", "GET, OPTIONS"), ("/v1/messages", "POST, OPTIONS")] {
            let refused = exchange(address, request(method, path, &[], "")).await;
            assert_eq!(
                (refused.status(), refused.problem().as_str()),
                (405, "method_not_allowed"),
                "{method}"
            );
            assert_eq!(refused.header("allow"), Some(allow), "{method} {path}");
        }
    }
    assert_eq!(
        exchange(address, request("POST", "/v1/events", &[], "")).await.problem(),
        "method_not_allowed"
    );
    assert_eq!(get(address, "/v1/messages", &[]).await.problem(), "method_not_allowed");
    for path in [
        "/v1",
        "/v1/",
        "/v1/events/",
        "//v1/events",
        "/v1/../v1/events",
        "/V1/EVENTS",
        "/v1/%65vents",
        "/metrics",
        "/readyz",
        "/livez",
        "/debug/pprof",
        "/admin",
        "/.git/config",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/publish",
        "/tidegate.publish.v1.Publisher/Publish",
        "/index.html",
    ] {
        let refused = get(address, path, &[]).await;
        assert_eq!((refused.status(), refused.problem().as_str()), (404, "not_found"), "{path}");
        let body = "{\"channel\":\"neighbour\",\"data\":\"forged\"}";
        assert_eq!(exchange(address, request("POST", path, &[], body)).await.status(), 404, "{path}");
    }
    for (port, path) in [(rig.server.api(), "/v1/events"), (rig.server.admin(), "/v1/publish")] {
        assert_eq!(get(port, path, &[]).await.status(), 404, "{path}");
    }
    rig.end().await;
}

#[tokio::test]
async fn header_bombs() {
    let mut rig = Rig::start(Setup::new()).await;
    let many: String = (0..101).map(|n| format!("x-{n}: y\r\n")).collect();
    let long_value = format!("x-long: {}\r\n", "y".repeat(20_000));
    let long_name = format!("{}: y\r\n", "x".repeat(20_000));
    let endless = "x: y\r\n".repeat(200_000);
    for headers in [many, long_value, long_name, endless] {
        let mut conn = HttpConn::connect(rig.server.public()).await.expect("connects");
        let bomb = format!("GET /v1/events?channel=a HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        let _ = conn.send(bomb).await; // It may be cut while it sends.
        let heard = conn.until_closed().await;
        let shown = String::from_utf8_lossy(&heard);
        let is_told =
            shown.is_empty() || shown.starts_with("HTTP/1.1 431") || shown.starts_with("HTTP/1.1 400");
        assert!(is_told, "{} bytes: {shown}", headers.len());
        rig.unharmed().await;
    }
    for path in [format!("/{}", "x".repeat(1_000_000)), format!("/v1/events?channel={}", "x".repeat(70_000))]
    {
        let mut conn = HttpConn::connect(rig.server.public()).await.expect("connects");
        let _ = conn.send(request("GET", &path, &[], "")).await;
        let heard = conn.until_closed().await;
        let shown = String::from_utf8_lossy(&heard);
        assert!(shown.is_empty() || shown.starts_with("HTTP/1.1 4"), "{shown}");
    }
    rig.end().await;
}

/// One request or none is seen in what a proxy before us might read otherwise: the connection does not go on after
/// anything that can be read in two ways.
#[tokio::test]
async fn request_smuggling_shapes() {
    let mut rig = Rig::start(Setup::new()).await;
    let hidden = "GET /v1/events?channel=hidden&as=json HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let length = hidden.len();
    let shapes = [
        format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n\r\n0\r\n\r\n{hidden}"),
        format!("content-length: 0\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        format!("content-length: 0, {length}\r\n\r\n{hidden}"),
        format!("content-length: +{length}\r\n\r\n{hidden}"),
        format!("content-length: -1\r\n\r\n{hidden}"),
        format!("content-length: 0x10\r\n\r\n{hidden}"),
        format!("content-length: 99999999999999999999\r\n\r\n{hidden}"),
        format!("transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        format!("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("transfer-encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("content-length : {length}\r\n\r\n{hidden}"),
        format!("x: y\r\n content-length: {length}\r\n\r\n{hidden}"),
        format!("x: a\rb\r\n\r\n{hidden}"),
        format!("x: a\0b\r\n\r\n{hidden}"),
        format!("transfer-encoding: chunked\r\n\r\nZ\r\n\r\n{hidden}"),
        format!("transfer-encoding: chunked\r\n\r\n-1\r\n\r\n{hidden}"),
    ];
    for shape in shapes {
        for path in ["/v1/messages", "/v1/publish"] {
            let mut conn = HttpConn::connect(rig.server.public()).await.expect("connects");
            conn.send(format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{shape}")).await.expect("sent");
            let heard = conn.until_closed_or_answered(1).await;
            let shown = String::from_utf8_lossy(&heard);
            let answers = shown.matches("HTTP/1.1 ").count();
            assert!(answers <= 1, "{path} {shape:?}: a second request was seen: {shown}");
            assert!(answers == 0 || shown.starts_with("HTTP/1.1 4"), "{path} {shape:?}: {shown}");
        }
    }
    // Upgrade with a body, and frames glued to the request: the first refused, the second no second request.
    let body = format!(
        "GET /v1/events?channel=a HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\ncontent-length: {length}\r\n\r\n{hidden}"
    );
    let refused = exchange(rig.server.public(), body).await;
    assert_eq!((refused.status(), refused.problem().as_str()), (400, "bad_request"));
    let glued = request("GET", "/v1/events?channel=a", &[("accept", "text/event-stream")], "");
    let mut conn = HttpConn::connect(rig.server.public()).await.expect("connects");
    conn.send(format!("{glued}{hidden}")).await.expect("sent");
    assert_eq!(conn.head().await.expect("a head").status, 200);
    rig.unharmed().await;
    let mut heard = conn.take_buffer();
    while !String::from_utf8_lossy(&heard).contains("tidegate.state") {
        assert!(conn.read_more().await.expect("open"));
        heard.extend(conn.take_buffer());
    }
    assert!(!String::from_utf8_lossy(&heard).contains("HTTP/1.1"), "a stream has no second answer");
    rig.end().await;
}
