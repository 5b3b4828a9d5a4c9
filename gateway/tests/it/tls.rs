//! TLS on the public port: every transport, handshakes that fail, certificates that change, readers that do not read.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tidegate_gateway::TlsFiles;
use tidegate_router::Api;
use tidegate_router::publish::{Data, PublishRequest, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::rustls::{self, version};

use crate::harness::{PATIENCE, eventually};
use crate::tls_harness::{Secure, certify, connect, put, read_fresh, read_until};

const RELOAD_FAILURES: &str = "tidegate_gateway_tls_reload_failures_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_transport_works_over_tls() {
    let secure = Secure::start(|_| {}).await;
    let mut websocket = secure.websocket().await;
    let mut sse = secure.connect().await;
    secure.get(&mut sse, "/v1/events?channel=a", "accept: text/event-stream\r\n").await;
    read_fresh(&mut sse).await;
    let mut ndjson =
        connect(secure.tcp().await, &secure.cert, &[], &[&version::TLS12]).await.expect("TLS 1.2, no ALPN");
    secure.get(&mut ndjson, "/v1/events?channel=a", "accept: application/x-ndjson\r\n").await;
    read_fresh(&mut ndjson).await;
    let mut poll = secure.connect().await;
    secure.get(&mut poll, "/v1/events?channel=a&wait=20s", "").await;
    read_is_open(&secure, "poll").await; // Else the first event may be before it.

    for round in 0..3 {
        secure.process.publish(round).await;
        websocket.hears_events(round..round + 1).await;
        let event = format!("\"data\":{round}");
        read_until(&mut sse, &event).await;
        read_until(&mut ndjson, &event).await;
        let answer = read_until(&mut poll, "\"fresh\"").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(&event), "{answer}");
        // On the same connection, and without an answer that hyper wrote in between.
        secure.get(&mut poll, "/v1/events?channel=a&wait=20s", "").await;
        read_is_open(&secure, "poll").await;
    }
    websocket.say(7).await;
    websocket.hear("ack").await;

    // hyper's own answer, and one that ends its connection in TLS' own way.
    let mut page = secure.connect().await;
    secure.get(&mut page, "/tidegate.js", "").await;
    read_until(&mut page, "EventSource").await;
    let mut last = secure.connect().await;
    secure.get(&mut last, "/v1/events?channel=a&last=5", "connection: close\r\n").await;
    let mut answer = String::new();
    last.read_to_string(&mut answer).await.expect("an orderly end");
    assert!(answer.contains("connection: close"), "{answer}");
    websocket.0.close(None).await.expect("closes");
    while let Some(message) = websocket.0.next().await {
        message.expect("an orderly end");
    }
    drop((websocket, sse, ndjson, poll, page));
    secure.stop().await;
}

/// Waits until a connection of this kind is there.
async fn read_is_open(secure: &Secure, transport: &str) {
    eventually("a poll waits", || secure.count("tidegate_gateway_connections", transport) == 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_fail_say_why_and_are_counted() {
    let secure = Secure::start(|config| config.head_timeout = Duration::from_millis(400)).await;
    let all = rustls::DEFAULT_VERSIONS;
    let refused = connect(secure.tcp().await, &secure.cert, &[b"spdy/3"], all).await.expect_err("refused");
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    eventually("it is counted", || secure.handshakes("no_common_protocol") == 1.0).await;

    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("signed").cert;
    connect(secure.tcp().await, other.der(), &[], all).await.expect_err("it trusts another one");
    eventually("it is counted", || secure.handshakes("client_alert") == 1.0).await;

    let mut plain = secure.tcp().await;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("written");
    plain.shutdown().await.expect("ended");
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.expect("an orderly end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 400 ") && body.contains("https://"), "{answer}");
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
    assert!(head.contains("\r\ndate: "), "{answer}");
    eventually("it is counted", || secure.handshakes("plain_http") == 1.0).await;

    let mut garbage = secure.tcp().await;
    let server_hello_done = [0x16, 3, 1, 0, 4, 14, 0, 0, 0];
    garbage.write_all(&server_hello_done).await.expect("written");
    let mut alert = Vec::new();
    garbage.read_to_end(&mut alert).await.expect("an orderly end");
    assert_eq!(alert.first(), Some(&0x15), "an alert: {alert:?}");
    eventually("it is counted", || secure.handshakes("invalid") == 1.0).await;

    drop(secure.tcp().await);
    eventually("it is counted", || secure.handshakes("closed") == 1.0).await;

    // A handshake that stalls counts as a socket until its time is over.
    for begun in [&b""[..], &[0x16, 3, 1][..]] {
        let since = Instant::now();
        let mut stalled = secure.tcp().await;
        stalled.write_all(begun).await.expect("written");
        eventually("its socket counts", || secure.gateway.connections() == 1).await;
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stalled.read_to_end(&mut rest)).await.expect("in time");
        assert_eq!(read.unwrap_or(0), 0);
        assert!(since.elapsed() >= Duration::from_millis(390), "{:?}", since.elapsed());
        eventually("no socket counts", || secure.gateway.connections() == 0).await;
    }
    assert_eq!(secure.handshakes("timeout"), 2.0);
    assert_eq!(secure.handshakes("ok"), 0.0);
    secure.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_used_and_no_connection_is_dropped() {
    let secure = Secure::start(|_| {}).await;
    let expiry = || secure.count("tidegate_gateway_tls_certificate_expiry_timestamp_seconds", "");
    assert!(expiry() > 4_000_000_000.0, "rcgen's certificates are for long");
    let mut before = secure.websocket().await;

    let newer = certify(&secure.files);
    let all = rustls::DEFAULT_VERSIONS;
    secure.shows(&newer).await;
    connect(secure.tcp().await, &secure.cert, &[], all).await.expect_err("the old one is no more");
    secure.process.publish(0).await;
    before.hears_events(0..1).await;

    // What is broken is counted once, and changes nothing.
    for (number, (path, text)) in
        [(&secure.files.cert, "no certificate"), (&secure.files.key, "no key")].into_iter().enumerate()
    {
        put(path, text);
        eventually("it is counted", || secure.count(RELOAD_FAILURES, "") == (number + 1) as f64).await;
        connect(secure.tcp().await, &newer, &[], all).await.expect("the one before it stays");
    }
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("signed");
    put(&secure.files.cert, &other.cert.pem());
    eventually("it is counted", || secure.count(RELOAD_FAILURES, "") == 3.0).await;
    put(&secure.files.key, &other.signing_key.serialize_pem());
    secure.shows(other.cert.der()).await;
    assert_eq!(secure.count(RELOAD_FAILURES, ""), 3.0);
    secure.process.publish(1).await;
    before.hears_events(1..2).await;
    before.0.send(tokio_tungstenite::tungstenite::Message::text(r#"{"data":1}"#)).await.expect("open");
    before.hear("ack").await;
    drop(before);
    secure.stop().await;
}

/// A secret that is mounted: names that lead through one link, which is swapped for all of them at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mounted_secret_that_changes_is_used() {
    let mount = tempfile::tempdir().expect("directory");
    let at = |name: &str| mount.path().join(name);
    let version = |name: &str| {
        std::fs::create_dir(at(name)).expect("a directory");
        certify(&TlsFiles { cert: at(name).join("tls.crt"), key: at(name).join("tls.key") })
    };
    let lead = |name: &str| {
        symlink(name, at("..data_tmp")).expect("a link");
        std::fs::rename(at("..data_tmp"), at("..data")).expect("swapped");
    };
    let older = version("..2026_01_01");
    lead("..2026_01_01");
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), at(name)).expect("a link");
    }
    let files = TlsFiles { cert: at("tls.crt"), key: at("tls.key") };
    let secure = Secure::start(|config| config.tls = Some(files)).await;
    let all = rustls::DEFAULT_VERSIONS;
    let mut before = connect(secure.tcp().await, &older, &[], all).await.expect("the first is used");
    let newer = version("..2026_02_02");
    lead("..2026_02_02");
    std::fs::remove_dir_all(at("..2026_01_01")).expect("gone, as the kubelet does it");
    secure.shows(&newer).await;
    connect(secure.tcp().await, &older, &[], all).await.expect_err("the old one is no more");
    assert_eq!(secure.count(RELOAD_FAILURES, ""), 0.0);
    secure.get(&mut before, "/tidegate.js", "").await;
    read_until(&mut before, "EventSource").await;
    drop(before);
    secure.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_over_tls_is_disconnected_and_holds_little() {
    let limit = 256 * 1024;
    let secure = Secure::start(|config| config.outbox_bytes_limit = limit).await;
    let mut healthy = secure.websocket().await;
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let tcp = socket.connect(secure.gateway.local_addr()).await.expect("connects");
    let mut slow = connect(tcp, &secure.cert, &[], rustls::DEFAULT_VERSIONS).await.expect("secure");
    secure.get(&mut slow, "/v1/events?channel=a", "accept: text/event-stream\r\n").await;
    read_fresh(&mut slow).await;

    let text = format!("\"{}\"", "x".repeat(30_000));
    let waiting = || secure.count("tidegate_gateway_outbox_bytes", "");
    let (mut most, mut published) = (0.0_f64, 0);
    while secure.count("tidegate_gateway_connections_closed_total", "slow_consumer") == 0.0 {
        let request = PublishRequest {
            targets: vec![Target::Channel("a".into())],
            event: None,
            data: Data::Json(Bytes::from(text.clone())),
            idempotency_key: None,
            ttl_ms: None,
            ephemeral: false,
            trace: None,
        };
        secure.process.router.publish(Api::Local, request).await.expect("accepted");
        healthy.hear("event").await;
        most = most.max(waiting());
        published += 1;
        assert!(published < 1_000, "it is never disconnected");
    }
    assert!(most > 0.0 && most <= limit as f64 + 31_000.0, "{most}");
    eventually("what waited for it is gone", || waiting() == 0.0).await;
    eventually("its socket is closed", || secure.gateway.connections() == 1).await;
    // What was under way arrives whole; then it is cut.
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut rest)).await.expect("in time");
    drop(healthy);
    secure.stop().await;
}

/// A reader that is slow for a while and not for long gets everything, whole and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_late_over_tls_gets_everything() {
    let secure = Secure::start(|config| config.outbox_bytes_limit = 64 << 20).await;
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let tcp = socket.connect(secure.gateway.local_addr()).await.expect("connects");
    let stream = connect(tcp, &secure.cert, &[], rustls::DEFAULT_VERSIONS).await.expect("secure");
    let url = format!("wss://{}/v1/events?channel=a", secure.gateway.local_addr());
    let (socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("opens");
    let mut client = crate::harness::Client(socket);
    client.hear("state").await;
    let count = 1_000;
    for number in 0..count {
        let request = PublishRequest {
            targets: vec![Target::Channel("a".into())],
            event: None,
            data: Data::Json(Bytes::from(format!("[{number},\"{}\"]", "y".repeat(9_000)))),
            idempotency_key: None,
            ttl_ms: None,
            ephemeral: false,
            trace: None,
        };
        secure.process.router.publish(Api::Local, request).await.expect("accepted");
    }
    eventually("much waits", || secure.count("tidegate_gateway_outbox_bytes", "") > 1e6).await;
    for number in 0..count {
        assert_eq!(client.hear("event").await["data"][0], number);
    }
    eventually("nothing waits", || secure.count("tidegate_gateway_outbox_bytes", "") == 0.0).await;
    drop(client);
    secure.stop().await;
}
