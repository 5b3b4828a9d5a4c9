//! HTTP/2 on a TLS socket whose client asked for it: each stream of events, and each poll, is a stream of the socket.
//!
//! hyper keeps the socket. A request that is a stream is adopted by the shard with one end of a [`pipe`](super::pipe)
//! in the place of a socket, and counts as a connection of its own against the limits.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_vocab::limits;
use tidegate_wire::http1::{EVENT_STREAM, NDJSON, stream_headers};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::pipe::{Cut, PipeBody, pipe};
use super::route::{self, Outcome};
use crate::admission::{Entry, Permit};
use crate::request::Transport;
use crate::shard::Shard;
use crate::socket::ClientSocket;

/// Requests of one socket that are open at once, streams and waiting polls among them.
const STREAMS_LIMIT: u32 = 128;
/// Requests that a client may have reset before they were looked at: rapid reset (CVE-2023-44487) ends here.
const PENDING_RESETS_LIMIT: usize = 20;
/// Streams that a client may have made this side reset before its socket is closed (CVE-2025-8671).
const LOCAL_RESETS_LIMIT: usize = 128;
/// Bytes that hyper may hold for one stream.
const SEND_BYTES_LIMIT: usize = 16 * 1024;
/// Bytes that a client may send on one stream, and on all of a socket, before they are read.
const WINDOW_BYTES: u32 = 64 * 1024;
/// Time in which a ping must be answered.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

type Body = Either<http_body_util::Full<bytes::Bytes>, PipeBody>;

/// Runs hyper's part of each stream on the shard.
#[derive(Debug, Clone, Copy)]
struct OnShard;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnShard {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Serves requests until the socket closes, is idle for too long or the node drains.
pub(crate) async fn serve(
    shard: Rc<Shard>,
    socket: ClientSocket,
    permit: Permit,
    entry: Entry,
    mut accepting: watch::Receiver<bool>,
) {
    let (idle_after, ping_interval) = (shard.shared.config.head_timeout, shard.shared.config.ping_interval);
    // Each open request holds a clone; the counter says that there was one since the last look.
    let (open, begun) = (Rc::new(()), Rc::new(Cell::new(false)));
    let service = service_fn({
        let (open, begun) = (Rc::downgrade(&open), Rc::clone(&begun));
        move |request| {
            begun.set(true);
            handle(Rc::clone(&shard), open.upgrade().unwrap_or_default(), entry, request)
        }
    });
    let connection = http2::Builder::new(OnShard)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_LIMIT)
        .max_pending_accept_reset_streams(PENDING_RESETS_LIMIT)
        .max_local_error_reset_streams(LOCAL_RESETS_LIMIT)
        .max_header_list_size(limits::REQUEST_HEAD_BYTES_LIMIT as u32)
        .max_send_buf_size(SEND_BYTES_LIMIT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .keep_alive_interval(ping_interval)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let mut draining = pin!(accepting.wait_for(|accepting| !accepting));
    let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + idle_after, idle_after);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_ending = false;
    poll_fn(|cx| {
        let mut ends = !is_ending && draining.as_mut().poll(cx).is_ready();
        while looks.poll_tick(cx).is_ready() {
            if begun.replace(false) || Rc::strong_count(&open) > 1 {
                continue;
            }
            if is_ending {
                return Poll::Ready(()); // It was asked to go, has nothing open and is still here.
            }
            ends = true;
        }
        if ends {
            is_ending = true;
            connection.as_mut().graceful_shutdown();
        }
        let mut polled = connection.as_mut().poll(cx);
        // A socket that was refused at the door goes once it has been told: the next one may be let in.
        if polled.is_pending() && !is_ending && entry != Entry::Open && begun.get() {
            is_ending = true;
            connection.as_mut().graceful_shutdown();
            polled = connection.as_mut().poll(cx);
        }
        polled.map(|_| ())
    })
    .await;
    drop(permit);
}

/// Answers a request, or gives it to the shard as a stream or a poll.
async fn handle(
    shard: Rc<Shard>,
    open: Rc<()>,
    entry: Entry,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    // What HTTP/1.1 says in a header stands in the target here; which host is asked for is checked there.
    let authority = request.uri().authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok());
    if let Some(authority) = authority {
        request.headers_mut().insert(HOST, authority);
    }
    let permit = shard.shared.sockets.permit_stream();
    let is_full = shard.shared.sockets() > shard.shared.sockets_limit;
    let entry = if is_full { Entry::NodeFull } else { entry };
    let takeover = match route::handle(Rc::clone(&shard), entry, request).await {
        Outcome::Answer(answer) => return Ok(answer.map(Either::Left)),
        Outcome::Takeover(takeover) => takeover,
    };
    let (stream, body, answered) = pipe(open);
    let content_type = match takeover.request.transport {
        Transport::Sse => EVENT_STREAM,
        Transport::Ndjson => NDJSON,
        Transport::Poll | Transport::WebSocket => {
            shard.adopt(ClientSocket::H2(stream), permit, *takeover, Vec::new());
            // While it waits, the body tells the shard whether the client has gone.
            let answer = answered.await.map_err(|_| Cut)?;
            drop(body);
            return Ok(answer.map(Either::Left));
        }
    };
    let mut response = Response::new(Either::Right(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.extend(stream_headers());
    headers.extend(takeover.headers.iter().cloned());
    shard.adopt(ClientSocket::H2(stream), permit, *takeover, Vec::new());
    Ok(response)
}
