//! WebSockets over HTTP/2 (RFC 8441): frames on a stream of a socket that others share.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::h2::client::SendRequest;
use ::h2::ext::Protocol;
use ::h2::{Reason, RecvStream, SendStream};
use bytes::{Buf as _, Bytes};
use futures::{SinkExt as _, StreamExt as _};
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::h2::{assert_dated, get, read_until, socket};
use crate::harness::{Client, PATIENCE, eventually};
use crate::tls_harness::Secure;

const EVENTS: &str = "/v1/events?channel=a";
const VERSION: (&str, &str) = ("sec-websocket-version", "13");

/// One stream as a socket.
struct StreamSocket {
    send: SendStream<Bytes>,
    receive: RecvStream,
    unread: Bytes,
}

impl AsyncRead for StreamSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(data) => self.unread = data.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..count]);
        self.unread.advance(count);
        self.receive.flow_control().release_capacity(count).map_err(io::Error::other)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(buf.len());
        if self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(capacity) => drop(capacity.map_err(io::Error::other)?),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = self.send.capacity().min(buf.len());
        self.send.send_data(Bytes::copy_from_slice(&buf[..count]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}

/// Asks for what `protocol` names, with these headers.
async fn connect(
    client: &SendRequest<Bytes>,
    secure: &Secure,
    target: &str,
    protocol: &'static str,
    headers: &[(&str, &str)],
) -> (Response<RecvStream>, SendStream<Bytes>) {
    let mut client = client.clone().ready().await.expect("open");
    eventually("it is offered", || client.is_extended_connect_protocol_enabled()).await;
    let url = format!("https://{}{target}", secure.gateway.local_addr());
    let mut request = Request::builder().method(Method::CONNECT).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.extension(Protocol::from_static(protocol)).body(()).expect("a request");
    let (response, send) = client.send_request(request, false).expect("sent");
    let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("answered");
    assert_dated(&response);
    (response, send)
}

async fn websocket(client: &SendRequest<Bytes>, secure: &Secure, target: &str) -> Client<StreamSocket> {
    let version = [VERSION, ("sec-websocket-extensions", "permessage-deflate")];
    let (response, send) = connect(client, secure, target, "websocket", &version).await;
    assert_eq!(response.status(), 200);
    for absent in
        ["sec-websocket-accept", "sec-websocket-extensions", "upgrade", "connection", "content-type"]
    {
        assert!(!response.headers().contains_key(absent), "{absent}");
    }
    let stream = StreamSocket { send, receive: response.into_body(), unread: Bytes::new() };
    let mut client = Client(WebSocketStream::from_raw_socket(stream, Role::Client, None).await);
    while client.hear("state").await["fresh"].as_array().is_none_or(|fresh| !fresh.contains(&"a".into())) {}
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_share_a_socket_with_all_else() {
    let secure = Secure::start(|_| {}).await;
    let (client, running) = socket(&secure).await;
    let mut websockets = Vec::new();
    for _ in 0..5 {
        websockets.push(websocket(&client, &secure, EVENTS).await);
    }
    let mut sse = get(&client, &secure, EVENTS, "text/event-stream").await.into_body();
    read_until(&mut sse, "\"type\":\"state\"").await;
    assert_eq!(secure.count("tidegate_gateway_connections", "ws"), 5.0);
    for round in 0..3 {
        secure.process.publish(round).await;
        for websocket in &mut websockets {
            websocket.hears_events(round..round + 1).await;
        }
        read_until(&mut sse, &format!("\"data\":{round}")).await;
    }
    // What clients say, of more than a frame of HTTP/2 and a stream's window takes at once.
    for websocket in &mut websockets {
        for _ in 0..3 {
            let text = format!(r#"{{"data":"{}"}}"#, "y".repeat(60_000));
            websocket.0.send(Message::text(text)).await.expect("open");
        }
        for _ in 0..3 {
            websocket.hear("ack").await;
        }
    }
    // And what they hear.
    secure.process.publish_json(format!("\"{}\"", "z".repeat(60_000))).await;
    // All at once: what one does not read takes room from the others' window.
    let heard = websockets.iter_mut().map(|websocket| websocket.hear("event"));
    for event in futures::future::join_all(heard).await {
        assert_eq!(event["data"].as_str().map(str::len), Some(60_000));
    }
    websockets[0].0.send(Message::Ping("p".into())).await.expect("open");
    let pong = tokio::time::timeout(PATIENCE, websockets[0].0.next()).await.expect("in time");
    assert!(matches!(pong, Some(Ok(Message::Pong(payload))) if payload == "p"));

    // One says goodbye, one is reset, one just ends its side; the others go on.
    let mut leaving = websockets.remove(0);
    leaving.0.close(None).await.expect("closes");
    while let Some(message) = leaving.0.next().await {
        message.expect("an orderly end");
    }
    websockets.remove(0).0.get_mut().send.send_reset(Reason::CANCEL);
    websockets[0].0.get_mut().send.send_data(Bytes::new(), true).expect("open");
    eventually("three are over", || secure.count("tidegate_gateway_connections", "ws") == 2.0).await;
    drop(websockets.remove(0));
    secure.process.publish(3).await;
    for websocket in &mut websockets {
        websocket.hears_events(3..4).await;
    }

    // A browser's last frame ends its side of the stream too; it still gets the answer, and no reset.
    let mut browser = websockets.remove(0);
    let close_1000 = Bytes::from_static(b"\x88\x82\0\0\0\0\x03\xe8");
    browser.0.get_mut().send.send_data(close_1000, true).expect("open");
    let answer = tokio::time::timeout(PATIENCE, browser.0.next()).await.expect("in time");
    assert!(
        matches!(&answer, Some(Ok(Message::Close(Some(close)))) if u16::from(close.code) == 1000),
        "{answer:?}"
    );
    websockets.push(websocket(&client, &secure, EVENTS).await);

    // A drain ends each in good order.
    let reading = async {
        for websocket in &mut websockets {
            assert_eq!(websocket.hears_its_end().await, "draining");
            while let Some(message) = websocket.0.next().await {
                message.expect("an orderly end");
            }
        }
        read_until(&mut sse, "draining").await;
    };
    let (drained, ()) = tokio::join!(tokio::time::timeout(PATIENCE, secure.gateway.drain()), reading);
    drained.expect("in time");
    drop((client, websockets, sse, leaving));
    let _ = tokio::time::timeout(PATIENCE, running).await.expect("the socket is closed");
    secure.stop().await;
}

/// What is asked for where and with which headers, and the answer.
type Refused = (&'static str, &'static str, &'static [(&'static str, &'static str)], u16, &'static str);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_websocket_is_refused_and_says_why() {
    let secure = Secure::start(|_| {}).await;
    let (client, running) = socket(&secure).await;
    let cases: [Refused; 7] = [
        (EVENTS, "websocket", &[], 426, "version is not 13"),
        (EVENTS, "websocket", &[("sec-websocket-version", "8")], 426, "version is not 13"),
        (EVENTS, "websocket", &[VERSION, VERSION], 400, "given twice"),
        (EVENTS, "websocket", &[VERSION, ("origin", "https://evil.test")], 403, "origin"),
        ("/v1/events?channel=user:x", "websocket", &[VERSION], 403, "user:x"),
        (EVENTS, "connect-udp", &[VERSION], 405, "GET"),
        ("/elsewhere", "websocket", &[VERSION], 404, "/v1/events"),
    ];
    for (target, protocol, headers, status, text) in cases {
        let (response, _send) = connect(&client, &secure, target, protocol, headers).await;
        assert_eq!(response.status(), status, "{target} {protocol} {headers:?}");
        read_until(&mut response.into_body(), text).await;
    }
    let refused = get(&client, &secure, "/v1/events?channel=a&as=ws", "*/*").await;
    assert_eq!(refused.status(), 400);
    read_until(&mut refused.into_body(), "rfc 8441").await;
    // None of it did the socket any harm, and what is no frame ends only its own stream.
    let mut good = websocket(&client, &secure, EVENTS).await;
    let mut bad = websocket(&client, &secure, EVENTS).await;
    bad.0.get_mut().send.send_data(Bytes::from_static(b"\x81\x02hi"), false).expect("open");
    let close = tokio::time::timeout(PATIENCE, bad.0.next()).await.expect("in time");
    let Some(Ok(Message::Close(Some(close)))) = close else { panic!("{close:?}") };
    assert_eq!(u16::from(close.code), 1002, "{close:?}");
    secure.process.publish(0).await;
    good.hears_events(0..1).await;
    drop((client, good, bad));
    let _ = tokio::time::timeout(PATIENCE, running).await.expect("the socket is closed");
    secure.stop().await;
}
