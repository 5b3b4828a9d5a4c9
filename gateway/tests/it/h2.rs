//! HTTP/2: streams of events and polls side by side on one socket.

use std::time::{Duration, SystemTime};

use ::h2::client::SendRequest;
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::{Request, Response};
use tokio::task::JoinHandle;
use tokio_rustls::rustls;

use crate::harness::{PATIENCE, eventually};
use crate::tls_harness::{Secure, connect};

/// A socket that speaks HTTP/2; the task ends with it.
pub(crate) async fn socket(secure: &Secure) -> (SendRequest<Bytes>, JoinHandle<Result<(), ::h2::Error>>) {
    let tls = connect(secure.tcp().await, &secure.cert, &[b"h2", b"http/1.1"], rustls::DEFAULT_VERSIONS);
    let (client, connection) = ::h2::client::handshake(tls.await.expect("secure")).await.expect("HTTP/2");
    (client, tokio::spawn(connection))
}

fn request(secure: &Secure, target: &str, accept: &str) -> Request<()> {
    let url = format!("https://{}{target}", secure.gateway.local_addr());
    Request::get(url).header("accept", accept).body(()).expect("a request")
}

/// The answer to a GET, which says when it was made.
pub(crate) async fn get(
    client: &SendRequest<Bytes>,
    secure: &Secure,
    target: &str,
    accept: &str,
) -> Response<RecvStream> {
    let mut client = client.clone().ready().await.expect("open");
    let (response, _) = client.send_request(request(secure, target, accept), true).expect("sent");
    let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("answered");
    assert_dated(&response);
    response
}

/// RFC 9110, section 6.6.1: an answer names the second in which it was made, once.
pub(crate) fn assert_dated(response: &Response<RecvStream>) {
    let dates: Vec<_> = response.headers().get_all("date").iter().collect();
    let [date] = dates[..] else { panic!("{dates:?}, of {response:?}") };
    let date = httpdate::parse_http_date(date.to_str().expect("text")).expect("a date");
    let age = SystemTime::now().duration_since(date).expect("not from the future");
    assert!(age < PATIENCE, "{age:?}, of {response:?}");
}

/// Reads until the text is there.
pub(crate) async fn read_until(body: &mut RecvStream, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let piece = tokio::time::timeout(PATIENCE, body.data()).await.expect("in time");
        let piece = piece.unwrap_or_else(|| panic!("{text} in {read}")).expect("no error");
        body.flow_control().release_capacity(piece.len()).expect("open");
        read.push_str(std::str::from_utf8(&piece).expect("text"));
    }
    read
}

async fn publish(secure: &Secure, data: String) {
    secure.process.publish_json(data).await;
}

fn connections(secure: &Secure, transport: &str) -> f64 {
    secure.count("tidegate_gateway_connections", transport)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_polls_share_a_socket() {
    let secure = Secure::start(|_| {}).await;
    let (client, running) = socket(&secure).await;
    let mut streams = Vec::new();
    for accept in ["text/event-stream"; 10].into_iter().chain(["application/x-ndjson"; 2]) {
        let response = get(&client, &secure, "/v1/events?channel=a", accept).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &accept.parse().expect("valid"))
        );
        assert!(!response.headers().contains_key("transfer-encoding"));
        let mut body = response.into_body();
        read_until(&mut body, "\"type\":\"state\"").await;
        streams.push(body);
    }
    eventually("each counts", || secure.gateway.connections() == 13).await;
    let known = get(&client, &secure, "/v1/events?channel=a", "application/json").await;
    let tag = known.headers()["etag"].to_str().expect("text").trim_matches('"').to_owned();
    let mut again = request(&secure, "/v1/events?channel=a", "application/json");
    again.headers_mut().insert("if-none-match", known.headers()["etag"].clone());
    let (unchanged, _) = client.clone().ready().await.expect("open").send_request(again, true).expect("sent");
    let unchanged = tokio::time::timeout(PATIENCE, unchanged).await.expect("in time").expect("answered");
    assert_dated(&unchanged);
    assert_eq!(unchanged.status(), 304);
    for round in 0..3 {
        let target = format!("/v1/events?channel=a&wait=20s&cursor={tag}");
        let mut polling = client.clone().ready().await.expect("open");
        let (polled, _) =
            polling.send_request(request(&secure, &target, "application/json"), true).expect("sent");
        if round == 0 {
            eventually("a poll waits", || connections(&secure, "poll") == 1.0).await;
        }
        publish(&secure, format!("\"round-{round}\"")).await;
        for body in &mut streams {
            let text = read_until(body, &format!("round-{round}")).await;
            assert!(!text.contains("HTTP/1.1"), "{text}");
        }
        let polled = tokio::time::timeout(PATIENCE, polled).await.expect("in time").expect("answered");
        assert_dated(&polled);
        read_until(&mut polled.into_body(), "round-").await;
    }

    // A stream that the client resets is over, and so is a poll; the others go on.
    let mut abandoned = client.clone().ready().await.expect("open");
    let (waiting, _) = abandoned
        .send_request(request(&secure, "/v1/events?channel=a&wait=20s", "application/json"), true)
        .expect("sent");
    eventually("a poll waits", || connections(&secure, "poll") == 1.0).await;
    drop((waiting, streams.remove(0)));
    eventually("they are over", || secure.gateway.connections() == 12).await;
    assert_eq!(connections(&secure, "sse") + connections(&secure, "poll"), 9.0);
    publish(&secure, "\"after\"".into()).await;
    for body in &mut streams {
        read_until(body, "\"after\"").await;
    }

    // Names of other hosts are refused here too: nobody needs a token.
    let mut foreign = client.clone().ready().await.expect("open");
    let elsewhere = Request::get("https://evil.test/v1/events?channel=a").body(()).expect("a request");
    let (refused, _) = foreign.send_request(elsewhere, true).expect("sent");
    let refused = refused.await.expect("answered");
    assert_dated(&refused);
    assert_eq!(refused.status(), 403);

    // A drain ends each stream in good order.
    let drained = tokio::time::timeout(PATIENCE, secure.gateway.drain());
    let reading = async {
        for body in &mut streams {
            read_until(body, "draining").await;
            while let Some(rest) = body.data().await {
                rest.expect("an orderly end");
            }
        }
    };
    let (drained, ()) = tokio::join!(drained, reading);
    drained.expect("in time");
    drop((client, streams, foreign, abandoned));
    let _ = tokio::time::timeout(PATIENCE, running).await.expect("the socket is closed");
    secure.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_read_holds_up_nobody_else() {
    let limit = 256 * 1024;
    let secure = Secure::start(|config| config.outbox_bytes_limit = limit).await;
    let (client, running) = socket(&secure).await;
    let accept = "text/event-stream";
    let mut slow = get(&client, &secure, "/v1/events?channel=a", accept).await.into_body();
    read_until(&mut slow, "\"type\":\"state\"").await;
    // What is not read of one stream takes a part of what the whole socket may send: a second socket for the other.
    let (other, other_running) = socket(&secure).await;
    let mut healthy = get(&other, &secure, "/v1/events?channel=a", accept).await.into_body();
    read_until(&mut healthy, "\"type\":\"state\"").await;
    let (mut most, mut number) = (0.0_f64, 0);
    while secure.count("tidegate_gateway_connections_closed_total", "slow_consumer") == 0.0 {
        publish(&secure, format!("\"{}-{number}-\"", "x".repeat(20_000))).await;
        read_until(&mut healthy, &format!("x-{number}-")).await;
        most = most.max(secure.count("tidegate_gateway_outbox_bytes", ""));
        number += 1;
        assert!(number < 1_000, "it is never disconnected");
    }
    assert!(most > 0.0 && most <= f64::from(limit as u32) + 21_000.0, "{most}");
    let end = loop {
        match tokio::time::timeout(PATIENCE, slow.data()).await.expect("in time") {
            Some(Ok(piece)) => slow.flow_control().release_capacity(piece.len()).expect("open"),
            Some(Err(error)) => break error,
            None => panic!("it is cut, not ended"),
        }
    };
    assert!(end.is_reset(), "{end}");
    let again = get(&client, &secure, "/v1/events?channel=a", "application/json").await;
    assert_eq!(again.status(), 200, "its socket is as good as before");
    drop((client, other, healthy, slow, again));
    running.abort();
    other_running.abort();
    secure.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_without_a_use_are_closed() {
    let secure = Secure::start(|config| config.head_timeout = Duration::from_millis(300)).await;
    // One that never says anything, and one that is idle.
    let tls =
        connect(secure.tcp().await, &secure.cert, &[b"h2"], rustls::DEFAULT_VERSIONS).await.expect("secure");
    let (client, running) = socket(&secure).await;
    assert_eq!(get(&client, &secure, "/v1/events?channel=a", "application/json").await.status(), 200);
    eventually("both are closed", || secure.gateway.connections() == 0).await;
    drop((tls, client));
    let _ = tokio::time::timeout(PATIENCE, running).await.expect("closed");

    // Who resets what it asks for, again and again, is sent away.
    let (client, running) = socket(&secure).await;
    let mut client = client.ready().await.expect("open");
    for _ in 0..100_000 {
        let target = "/v1/events?channel=a&wait=20s";
        let Ok((_, mut stream)) = client.send_request(request(&secure, target, "application/json"), true)
        else {
            break;
        };
        stream.send_reset(Reason::CANCEL);
        match client.ready().await {
            Ok(ready) => client = ready,
            Err(_) => break,
        }
    }
    eventually("nothing of it is left", || secure.gateway.connections() == 0).await;
    let _ = tokio::time::timeout(PATIENCE, running).await.expect("closed");
    secure.stop().await;
}

/// A socket that came when there was no room is told so and goes, so that the next one may be let in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_found_no_room_does_not_stay() {
    let secure = Secure::start(|config| config.admission.address_limit = 1).await;
    let (first, first_running) = socket(&secure).await;
    let mut body = get(&first, &secure, "/v1/events?channel=a", "text/event-stream").await.into_body();
    read_until(&mut body, "\"type\":\"state\"").await;
    let (second, second_running) = socket(&secure).await;
    let refused = get(&second, &secure, "/v1/events?channel=a", "application/json").await;
    assert_eq!(refused.status(), 429);
    drop(refused);
    // In good order, unless a frame of the client's own finds the socket closed already.
    let _ = tokio::time::timeout(PATIENCE, second_running).await.expect("it goes").expect("joined");
    drop((second, body, first));
    tokio::time::timeout(PATIENCE, first_running)
        .await
        .expect("it goes")
        .expect("joined")
        .expect("in good order");
    eventually("nobody is left", || secure.gateway.connections() == 0).await;
    let (third, _running) = socket(&secure).await;
    let answer = get(&third, &secure, "/v1/events?channel=a", "application/json").await;
    assert_eq!(answer.status(), 200);
    drop((answer, third));
    secure.stop().await;
}

/// A head that is somewhat too large is refused by itself; one that is far too large would end its socket (`e2e/tests/floods.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_too_large_is_refused_alone() {
    let secure = Secure::start(|_| {}).await;
    let (client, running) = socket(&secure).await;
    let mut asking = client.clone().ready().await.expect("open");
    let mut large = request(&secure, "/v1/events?channel=a", "application/json");
    large.headers_mut().insert("x-large", "y".repeat(20_000).parse().expect("a value"));
    let (refused, _) = asking.send_request(large, true).expect("sent");
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("in time").expect("answered");
    assert_eq!(refused.status(), 431);
    let again = get(&client, &secure, "/v1/events?channel=a", "application/json").await;
    assert_eq!(again.status(), 200);
    // An answer of more than a stream may hold at once comes whole, and a client that does not take it gets no more.
    let mut script = get(&client, &secure, "/tidegate.js", "*/*").await;
    let length: usize = script.headers()["content-length"].to_str().expect("text").parse().expect("a length");
    assert!(length > 16 * 1024, "{length}");
    let mut read = 0;
    while let Some(piece) = tokio::time::timeout(PATIENCE, script.body_mut().data()).await.expect("in time") {
        let piece = piece.expect("no error");
        read += piece.len();
        script.body_mut().flow_control().release_capacity(piece.len()).expect("open");
    }
    assert_eq!(read, length);
    drop((client, asking, again, script));
    let _ = tokio::time::timeout(PATIENCE, running).await.expect("closed");
    secure.stop().await;
}
