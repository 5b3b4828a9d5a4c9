//! One request over HTTP/2: answered here, or given to the shard as a stream or a poll.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tidegate_vocab::limits;
use tidegate_wire::http1::{EVENT_STREAM, NDJSON, stream_headers};

use super::H2Stream;
use super::body::H2Body;
use crate::admission::Entry;
use crate::http::answer::Answer;
use crate::http::route::{self, Outcome};
use crate::http::{ANSWER_TIMEOUT, date};
use crate::request::{ExtendedConnect, Transport};
use crate::shard::Shard;
use crate::socket::ClientSocket;

/// Answers a request, or gives it to the shard as a stream or a poll.
pub(super) async fn handle(
    shard: Rc<Shard>,
    open: Rc<()>,
    entry: Entry,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (mut parts, said) = request.into_parts();
    // What HTTP/1.1 says in a header stands in the target here; which host is asked for is checked there.
    let authority = parts.uri.authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok());
    if let Some(authority) = authority {
        parts.headers.insert(HOST, authority);
    }
    let is_head = parts.method == Method::HEAD;
    // RFC 8441: what follows are a WebSocket's frames, and no body.
    let protocol = parts.extensions.get::<Protocol>();
    let is_websocket =
        parts.method == Method::CONNECT && protocol.is_some_and(|it| it.as_str() == "websocket");
    let (frames, said) = if is_websocket { (Some(said), None) } else { (None, Some(said)) };
    if is_websocket {
        parts.method = Method::GET;
        parts.extensions.insert(ExtendedConnect);
    }
    let permit = shard.shared.sockets.permit_stream();
    let is_full = shard.shared.sockets() > shard.shared.sockets_limit;
    let entry = if is_full { Entry::NodeFull } else { entry };
    let routed = {
        let request = Request::from_parts(parts, H2Body::new(said));
        let mut routing = pin!(route::handle(Rc::clone(&shard), entry, request));
        poll_fn(|cx| match routing.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => respond.poll_reset(cx).map(|_| None), // Nobody waits for it any more.
        })
        .await
    };
    let takeover = match routed {
        Some(Outcome::Takeover(takeover)) => takeover,
        Some(Outcome::Answer(answer)) => {
            let (head, body) = whole(answer).await;
            return send_answer(respond, head, if is_head { Bytes::new() } else { body }, open);
        }
        None => return,
    };
    let mut head = Response::new(());
    let headers = head.headers_mut();
    let stream = match takeover.request.transport {
        Transport::Poll => H2Stream::waiting(respond, open),
        transport => {
            if transport != Transport::WebSocket {
                let is_sse = transport == Transport::Sse;
                headers.insert(CONTENT_TYPE, if is_sse { EVENT_STREAM } else { NDJSON });
                headers.extend(stream_headers());
            }
            headers.extend(takeover.headers.iter().cloned());
            headers.insert(DATE, date());
            let Ok(send) = respond.send_response(head, false) else { return }; // Reset meanwhile.
            H2Stream::open(send, frames, open)
        }
    };
    shard.adopt(ClientSocket::H2(Box::new(stream)), permit, *takeover, Vec::new());
}

async fn whole(answer: Answer) -> (Response<()>, Bytes) {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap_or_else(|never: Infallible| match never {});
    (Response::from_parts(head, ()), body.to_bytes())
}

/// Sends an answer: at once what h2 may hold for a stream, more of it as the client takes it.
pub(super) fn send_answer(
    mut respond: SendResponse<Bytes>,
    mut head: Response<()>,
    body: Bytes,
    open: Rc<()>,
) {
    head.headers_mut().entry(DATE).or_insert_with(date);
    for name in [CONNECTION, UPGRADE] {
        head.headers_mut().remove(name); // HTTP/2 has no such header, and the library refuses it.
    }
    if ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status()) {
        head.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| body.len().into());
    }
    let Ok(mut stream) = respond.send_response(head, body.is_empty()) else { return };
    if body.is_empty() {
        return;
    }
    if body.len() <= limits::H2_SEND_BYTES_LIMIT {
        let _ = stream.send_data(body, true); // The client may have gone.
        return;
    }
    tokio::task::spawn_local(async move {
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, send_as_taken(&mut stream, body)).await;
        if sent.is_err() {
            stream.send_reset(Reason::CANCEL);
        }
        drop(open);
    });
}

async fn send_as_taken(stream: &mut h2::SendStream<Bytes>, mut body: Bytes) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len().min(limits::H2_SEND_BYTES_LIMIT));
        if stream.capacity() == 0 {
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(_)) => continue,
                _ => return, // Reset.
            }
        }
        let piece = body.split_to(stream.capacity().min(body.len()));
        if stream.send_data(piece, body.is_empty()).is_err() {
            return;
        }
    }
}
