//! The task of one connection: it flushes what waits, reads what the client says, and ends with the connection.
//!
//! The task holds nothing but indices; all state is the shard's, so an idle connection costs its socket, a small task
//! and a [`Conn`](super::conn::Conn). Both readiness slots of the socket are asked for in the first poll, so that they
//! let go of the HTTP task that had the socket before (tokio keeps the last waker of each direction).

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::DATE;
use http::{HeaderName, HeaderValue};
use tidegate_vocab::{Channel, ErrorKind, Problem, limits};
use tidegate_wire::http1::{EVENT_STREAM, NDJSON, StreamHead};
use tidegate_wire::object::{self, Framing};
use tidegate_wire::ws::{self, DecoderLimits, Incoming};

use super::conn::{Conn, Mode, Phase, Poll as PollAnswer};
use super::table::ConnIdx;
use super::{Shard, State, revoked};
use crate::admission::Permit;
use crate::auth::{Identity, LEEWAY_SECONDS};
use crate::clock::{ticks, unix_ms};
use crate::http::date;
use crate::request::{EventsRequest, Transport};
use crate::socket::ClientSocket;

/// When a client that was sent away because the node is held up should come back, in milliseconds.
const HELD_UP_RETRY_MS: u64 = 2_000;
/// Reads of one socket in a row before others have their turn.
const READS_IN_A_ROW: usize = 8;

/// A request that takes its socket away from HTTP.
#[derive(Debug)]
pub(crate) struct Takeover {
    pub(crate) request: EventsRequest,
    pub(crate) identity: Identity,
    /// Headers that let a web page read the answer.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The head of a WebSocket's 101 answer.
    pub(crate) ws_head: Option<Vec<u8>>,
}

/// See the module.
pub(super) struct ConnTask {
    shard: Rc<Shard>,
    idx: ConnIdx,
    generation: u32,
}

impl Future for ConnTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shard.state.borrow_mut();
        let done = state.poll_conn(self.idx, self.generation, cx);
        state.flush_pending();
        state.flush_commands();
        done
    }
}

/// What a client's frame asks for, taken out of the decoder's borrow.
enum Action {
    Message(Result<Bytes, Bytes>),
    Ping(Bytes),
    Pong,
    Close(Option<u16>),
}

impl Shard {
    /// Takes a socket over from HTTP, with what the client sent behind its request.
    pub(crate) fn adopt(
        self: &Rc<Self>,
        stream: ClientSocket,
        permit: Permit,
        takeover: Takeover,
        leftover: Vec<u8>,
    ) {
        let (idx, generation) = self.state.borrow_mut().adopt(stream, permit, takeover, leftover);
        tokio::task::spawn_local(ConnTask { shard: Rc::clone(self), idx, generation });
    }
}

impl State {
    fn adopt(
        &mut self,
        stream: ClientSocket,
        permit: Permit,
        takeover: Takeover,
        leftover: Vec<u8>,
    ) -> (ConnIdx, u32) {
        let Takeover { request, identity, headers, ws_head } = takeover;
        let now = self.tick_now();
        // Asked again: what was revoked since the request was let in may have been applied here already.
        let is_revoked = self.shared.control.is_revoked(&identity);
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let is_h2 = stream.is_h2();
        let is_chunked = !request.http_10 && !is_h2;
        let mode = match request.transport {
            Transport::WebSocket => Mode::Stream(Framing::WebSocket),
            Transport::Sse => Mode::Stream(Framing::Sse { chunked: is_chunked }),
            Transport::Ndjson => Mode::Stream(Framing::Ndjson { chunked: is_chunked }),
            Transport::Poll => Mode::Poll,
        };
        let names = followed(&request, &identity, &self.shared.everyone);
        let idx = self.conns.vacant_key() as ConnIdx;
        let (set, place) = self.table.join(&names, idx);
        let expires_tick = identity.expires_s.map_or(0, |expires_s| {
            now.saturating_add(
                ticks((expires_s + LEEWAY_SECONDS).saturating_mul(1_000).saturating_sub(unix_ms())).max(1),
            )
        });
        self.conns.insert(Box::new(Conn {
            stream,
            permit,
            sequence: self.shared.next_sequence(),
            waker: None,
            outbox: None,
            opening: None,
            user: identity.user,
            token: identity.token.map(Box::new),
            decoder: ws::Decoder::new(),
            generation,
            set,
            place,
            due_tick: 0,
            wrote_tick: now,
            cursor_tick: now,
            expires_tick,
            pinged_tick: 0,
            messages: 0,
            in_flight: 0,
            mode,
            phase: Phase::Open,
        }));
        self.shared.presences.come(names.iter(), request.transport, request.wait_ms);
        let transport = request.transport.as_str();
        self.shared.metrics.connections.with_label_values(&[transport]).inc();
        self.shared.metrics.opened.with_label_values(&[transport]).inc();
        self.want_all(idx, generation, &request);
        if mode == Mode::Poll {
            self.begin_poll(idx, &request, headers, leftover);
        } else {
            let head = head(
                mode,
                is_h2,
                &request,
                ws_head,
                &headers,
                self.shared.config.sse_retry.as_millis() as u64,
            );
            self.send_now(idx, &head);
            self.take_input(idx, generation, leftover);
        }
        self.arm(idx, ticks(limits::STATE_GRACE_MS));
        if is_revoked {
            self.close(idx, &revoked::problem());
        } else if self.commands.len() > limits::NODE_QUEUE_LIMIT {
            // The node task takes nothing, for want of a word on what is revoked say: what is asked of it has a bound.
            let refusal = Problem::new(ErrorKind::Overloaded, "the node is held up");
            self.close(idx, &refusal.retry_after_ms(HELD_UP_RETRY_MS));
        }
        (idx, generation)
    }

    fn begin_poll(
        &mut self,
        idx: ConnIdx,
        request: &EventsRequest,
        headers: Vec<(HeaderName, HeaderValue)>,
        leftover: Vec<u8>,
    ) {
        // A poll that does not wait still has to hear what each channel turned out to be.
        let deadline_tick = self.tick_now() + ticks(request.wait_ms.max(limits::POLL_ANSWER_TIMEOUT_MS));
        let deadline_tick =
            if request.wait_ms > 0 { self.tick_now() + ticks(request.wait_ms) } else { deadline_tick };
        let poll = PollAnswer {
            events: Vec::new(),
            bytes: 0,
            is_full: false,
            deadline_tick,
            waits: request.wait_ms > 0,
            if_none_match: request.if_none_match.clone(),
            keep_alive: request.keep_alive && !request.http_10,
            headers,
            leftover,
        };
        if let Some(opening) = self.conns[idx as usize].opening.as_mut() {
            opening.poll = Some(Box::new(poll));
        }
    }

    fn poll_conn(&mut self, idx: ConnIdx, generation: u32, cx: &mut Context<'_>) -> Poll<()> {
        let Some(conn) = self.conn(idx, generation) else { return Poll::Ready(()) };
        if !conn.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            conn.waker = Some(cx.waker().clone());
        }
        self.poll_writes(idx, generation, cx);
        for _ in 0..READS_IN_A_ROW {
            let Some(conn) = self.conn(idx, generation) else { return Poll::Ready(()) };
            if ready!(conn.stream.poll_read_ready(cx)).is_err() {
                self.remove(idx, "read_error");
                return Poll::Ready(());
            }
            self.read(idx, generation);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Flushes what waits; when all is out, goes on with what waited for that.
    fn poll_writes(&mut self, idx: ConnIdx, generation: u32, cx: &mut Context<'_>) {
        let tick = self.tick_now();
        let Some(conn) = self.conn(idx, generation) else { return };
        if conn.outbox.is_none() {
            let _ = conn.stream.poll_write_ready(cx);
        }
        let had_outbox = conn.outbox.is_some();
        while let Some(conn) = self.conn(idx, generation).filter(|conn| conn.outbox.is_some()) {
            match conn.stream.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return self.remove(idx, "write_error"),
                Poll::Pending => return,
            }
            let before = conn.queued_bytes();
            let flushed = conn.flush(tick);
            conn.wrote_tick = tick;
            let after = conn.queued_bytes();
            self.account(idx, before, after, flushed);
        }
        if had_outbox {
            self.resume_stalled(idx);
        }
        if let Some(conn) = self.conn(idx, generation).filter(|conn| conn.phase == Phase::Closing) {
            conn.stream.shutdown_write();
            if conn.stream.has_unsent() {
                let _ = conn.stream.poll_write_ready(cx);
            }
        }
    }

    fn read(&mut self, idx: ConnIdx, generation: u32) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        if let Some(conn) = self.conn(idx, generation) {
            match conn.stream.try_read(&mut buffer) {
                Ok(0) => self.remove(idx, "client_closed"),
                Ok(count) => self.on_input(idx, generation, &mut buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => self.remove(idx, "read_error"),
            }
        }
        self.read_buffer = buffer;
    }

    fn take_input(&mut self, idx: ConnIdx, generation: u32, mut input: Vec<u8>) {
        if !input.is_empty() {
            self.on_input(idx, generation, &mut input);
        }
    }

    fn on_input(&mut self, idx: ConnIdx, generation: u32, input: &mut [u8]) {
        let Some(conn) = self.conn(idx, generation).filter(|conn| conn.phase == Phase::Open) else { return };
        match conn.mode {
            Mode::Stream(Framing::WebSocket) => self.on_frames(idx, generation, input),
            Mode::Stream(_) => {} // A stream's client has nothing to say here; what it sends is not kept.
            Mode::Poll => {
                let poll = conn.opening.as_mut().and_then(|opening| opening.poll.as_mut());
                let Some(poll) =
                    poll.filter(|poll| poll.leftover.len() + input.len() <= limits::REQUEST_HEAD_BYTES_LIMIT)
                else {
                    return self.remove(idx, "too_much_input");
                };
                poll.leftover.extend_from_slice(input);
            }
        }
    }

    fn on_frames(&mut self, idx: ConnIdx, generation: u32, input: &mut [u8]) {
        let decoder_limits = DecoderLimits {
            message_bytes: self.shared.config.message_bytes_limit,
            fragments: limits::FRAGMENTS_PER_MESSAGE_LIMIT,
        };
        let Some(conn) = self.conn(idx, generation) else { return };
        conn.pinged_tick = 0;
        let mut actions = Vec::new();
        let result = conn.decoder.feed(input, &decoder_limits, &mut |incoming| {
            actions.push(match incoming {
                Incoming::Text(text) => Action::Message(Ok(Bytes::copy_from_slice(text.as_bytes()))),
                Incoming::Binary(bytes) => Action::Message(Err(Bytes::copy_from_slice(bytes))),
                Incoming::Ping(bytes) => Action::Ping(Bytes::copy_from_slice(bytes)),
                Incoming::Pong(_) => Action::Pong,
                Incoming::Close(close) => Action::Close(close.map(|(code, _)| code)),
            });
        });
        for action in actions {
            match action {
                Action::Message(message) => self.on_message(idx, generation, message),
                Action::Ping(payload) => self.send_now(idx, &ws::frame::pong(&payload)),
                Action::Pong => {}
                Action::Close(code) => {
                    let echo = code.map_or_else(ws::frame::close_empty, |code| ws::frame::close(code, ""));
                    self.send_now(idx, &echo);
                    self.begin_closing(idx, "client_closed");
                }
            }
        }
        if let Err(violation) = result {
            self.shared.metrics.frames_invalid.with_label_values(&[violation.label()]).inc();
            self.send_now(idx, &ws::frame::close(violation.close_code(), violation.reason()));
            self.begin_closing(idx, violation.label());
        }
    }
}

/// What a connection follows: the channels it names, its user's own, and everyone's.
pub(super) fn followed(request: &EventsRequest, identity: &Identity, everyone: &Channel) -> Vec<Channel> {
    let mut names = request.channels.clone();
    names.extend(identity.user.as_ref().map(Channel::of_user));
    names.push(everyone.clone());
    names
}

/// The first bytes of a stream's answer.
fn head(
    mode: Mode,
    is_h2: bool,
    request: &EventsRequest,
    ws_head: Option<Vec<u8>>,
    headers: &[(HeaderName, HeaderValue)],
    retry_ms: u64,
) -> Vec<u8> {
    let Mode::Stream(framing) = mode else { return Vec::new() };
    let content_type = if let Framing::Sse { .. } = framing { EVENT_STREAM } else { NDJSON };
    let mut head = ws_head.unwrap_or_else(|| {
        if is_h2 {
            return Vec::new(); // It has been sent.
        }
        let extra = [headers, &[(DATE, date())]].concat();
        StreamHead { http_10: request.http_10, content_type, extra: &extra, keep_alive: false }.encode()
    });
    object::frame_retry(framing, retry_ms, &mut head);
    head
}
