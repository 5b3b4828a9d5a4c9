//! HTTP/2 on a TLS socket whose client asked for it: each stream of events, WebSocket and poll is a stream of the socket.
//!
//! The h2 library keeps the socket. A request that is a stream is adopted by the shard with an [`H2Stream`] in the place of
//! a socket, and counts as a connection of its own against the limits. What its client may make us do without asking for
//! anything is counted ([`meter`]); who overdoes it is sent away.

mod body;
mod meter;
mod stream;

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tidegate_vocab::limits;
use tidegate_wire::http1::{EVENT_STREAM, NDJSON, stream_headers};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};

use super::ANSWER_TIMEOUT;
use super::answer::Answer;
use super::route::{self, Outcome};
use crate::admission::{Entry, Permit};
use crate::request::{ExtendedConnect, Transport};
use crate::shard::Shard;
use crate::socket::ClientSocket;
use body::H2Body;
use meter::{MeteredSocket, Seen};
pub(crate) use stream::H2Stream;

const PONG_TIMEOUT: Duration = Duration::from_millis(limits::PONG_TIMEOUT_MS);

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits::H2_STREAMS_LIMIT)
        .max_pending_accept_reset_streams(limits::H2_PENDING_RESETS_LIMIT)
        .max_local_error_reset_streams(Some(limits::H2_LOCAL_RESETS_LIMIT))
        .max_header_list_size(limits::REQUEST_HEAD_BYTES_LIMIT as u32)
        .max_send_buffer_size(limits::H2_SEND_BYTES_LIMIT)
        .initial_window_size(limits::H2_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_WINDOW_BYTES)
        .enable_connect_protocol();
    builder
}

/// Serves requests until the socket closes, is idle for too long, is abused or the node drains.
pub(crate) async fn serve(
    shard: Rc<Shard>,
    socket: ClientSocket,
    permit: Permit,
    entry: Entry,
    mut accepting: watch::Receiver<bool>,
) {
    let seen = Rc::<Seen>::default();
    let handshake = builder().handshake(MeteredSocket::new(socket, Rc::clone(&seen)));
    let idle_after = shard.shared.config.head_timeout;
    let ended = match tokio::time::timeout(idle_after, handshake).await {
        Ok(Ok(connection)) => {
            let mut serving = Serving::new(&shard, connection, Rc::clone(&seen), entry);
            let mut draining = pin!(accepting.wait_for(|accepting| !accepting));
            poll_fn(|cx| {
                if !serving.is_ending && draining.as_mut().poll(cx).is_ready() {
                    serving.say_goodbye();
                }
                serving.poll(cx)
            })
            .await
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(()), // It never began.
    };
    if let (Err(error), Some(tls)) = (ended, &shard.shared.tls)
        && let Some(kind) = seen.flood.get().or_else(|| fault_of(&error, &seen))
    {
        tls.metrics.h2_faults.with_label_values(&[kind]).inc();
    }
    drop(permit);
}

/// What the client did, where it is the client's fault, as the metric's label.
fn fault_of(error: &h2::Error, seen: &Seen) -> Option<&'static str> {
    if !error.is_library() {
        return None; // It went, or its network did.
    }
    // The library says more only to the client, in the words of its GOAWAY.
    let known = [
        ("too_many_resets", "unanswered_reset"),
        ("too_many_internal_resets", "provoked_reset"),
        ("too_many_continuations", "continuation"),
        ("header_list_way_too_large", "header_list"),
        ("too_many_data_frames", "data"),
    ];
    let known = known.iter().find(|(words, _)| seen.ends_in(words));
    Some(known.map_or("protocol", |(_, kind)| kind))
}

/// A socket and what is known of its use.
struct Serving {
    shard: Rc<Shard>,
    connection: Connection<MeteredSocket, Bytes>,
    seen: Rc<Seen>,
    entry: Entry,
    /// Each open request holds a clone.
    open: Rc<()>,
    /// There was a request since the last look.
    begun: bool,
    /// The client has been told that no further request is taken.
    is_ending: bool,
    looks: Interval,
    liveness: Liveness,
}

impl Serving {
    fn new(
        shard: &Rc<Shard>,
        mut connection: Connection<MeteredSocket, Bytes>,
        seen: Rc<Seen>,
        entry: Entry,
    ) -> Self {
        let idle_after = shard.shared.config.head_timeout;
        let mut looks = tokio::time::interval_at(Instant::now() + idle_after, idle_after);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let liveness = Liveness::new(connection.ping_pong(), shard.shared.config.ping_interval);
        let (shard, open) = (Rc::clone(shard), Rc::new(()));
        Self { shard, connection, seen, entry, open, begun: false, is_ending: false, looks, liveness }
    }

    fn say_goodbye(&mut self) {
        self.is_ending = true;
        self.connection.graceful_shutdown();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while self.looks.poll_tick(cx).is_ready() {
            if std::mem::take(&mut self.begun) || Rc::strong_count(&self.open) > 1 {
                continue;
            }
            if self.is_ending {
                return Poll::Ready(Ok(())); // It was asked to go, has nothing open and is still here.
            }
            self.say_goodbye();
        }
        loop {
            if self.liveness.poll_dead(cx, &self.seen).is_ready() {
                return Poll::Ready(Ok(()));
            }
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.begun = true;
                    let (shard, open) = (Rc::clone(&self.shard), Rc::clone(&self.open));
                    tokio::task::spawn_local(handle(shard, open, self.entry, request, respond));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                // A socket that was refused at the door goes once it has been told: the next one may be let in.
                Poll::Pending if !self.is_ending && self.entry != Entry::Open && self.begun => {
                    self.say_goodbye();
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Asks a client that says nothing for a sign of life.
struct Liveness {
    pings: Option<PingPong>,
    interval: Duration,
    due: Pin<Box<Sleep>>,
    is_asked: bool,
}

impl Liveness {
    fn new(pings: Option<PingPong>, interval: Duration) -> Self {
        Self { pings, interval, due: Box::pin(tokio::time::sleep(interval)), is_asked: false }
    }

    /// Ready when a ping was not answered in time, by whatever.
    fn poll_dead(&mut self, cx: &mut Context<'_>, seen: &Seen) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        while self.due.as_mut().poll(cx).is_ready() {
            let is_heard = seen.heard.take();
            if self.is_asked && !is_heard {
                return Poll::Ready(());
            }
            let _ = pings.poll_pong(cx); // Taken, so that another may be sent.
            self.is_asked = !is_heard && pings.send_ping(Ping::opaque()).is_ok();
            let wait = if self.is_asked { PONG_TIMEOUT } else { self.interval };
            self.due.as_mut().reset(Instant::now() + wait);
        }
        Poll::Pending
    }
}

/// Answers a request, or gives it to the shard as a stream or a poll.
async fn handle(
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
fn send_answer(mut respond: SendResponse<Bytes>, mut head: Response<()>, body: Bytes, open: Rc<()>) {
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
