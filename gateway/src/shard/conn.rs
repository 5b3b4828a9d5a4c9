//! One client connection: a socket and what little is kept about it. What is only needed while a connection opens,
//! replays or is slow is boxed and gone again afterwards.

use std::io;
use std::task::Waker;

use bytes::Bytes;
use tidegate_tenure::{Outcome, WantId};
use tidegate_vocab::{LogEpoch, Offset, UserId};
use tidegate_wire::object::Framing;
use tidegate_wire::ws;

use super::item::SharedEvent;
use super::outbox::{Outbox, Tag};
use super::table::{ChannelIdx, SetIdx};
use crate::admission::Permit;
use crate::control::TokenMark;
use crate::request::Transport;
use crate::socket::ClientSocket;

/// Slices handed to one `writev`.
const SLICES_LIMIT: usize = 64;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A stream of frames.
    Stream(Framing),
    /// One answer, then back to HTTP.
    Poll,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// The last bytes are on their way; then our side is shut and the client's end is awaited until `due_tick`.
    Closing,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: ClientSocket,
    /// Counts the socket for as long as it is held.
    pub(crate) permit: Permit,
    pub(crate) sequence: u64,
    pub(crate) waker: Option<Waker>,
    pub(crate) outbox: Option<Box<Outbox>>,
    pub(crate) opening: Option<Box<Opening>>,
    pub(crate) user: Option<UserId>,
    /// What of its token counts against revocations; none without a token.
    pub(crate) token: Option<Box<TokenMark>>,
    pub(crate) decoder: ws::Decoder,
    pub(crate) generation: u32,
    pub(crate) set: SetIdx,
    pub(crate) place: u32,
    /// The tick of the wheel's entry that counts.
    pub(crate) due_tick: u32,
    pub(crate) wrote_tick: u32,
    pub(crate) cursor_tick: u32,
    /// When the token ends; 0 for never.
    pub(crate) expires_tick: u32,
    /// When an unanswered WebSocket ping was sent; 0 for none.
    pub(crate) pinged_tick: u32,
    /// Messages of the client so far, and how many of them wait for the log.
    pub(crate) messages: u32,
    pub(crate) in_flight: u16,
    pub(crate) mode: Mode,
    pub(crate) phase: Phase,
}

// The budget of an idle connection is 1 KiB in all: socket, task and this (DESIGN, section 7).
const _: () = assert!(size_of::<Conn>() <= 192, "a connection's own state stays small");

impl Conn {
    pub(crate) fn transport(&self) -> Transport {
        match self.mode {
            Mode::Stream(Framing::WebSocket) => Transport::WebSocket,
            Mode::Stream(Framing::Sse { .. }) => Transport::Sse,
            Mode::Stream(Framing::Ndjson { .. }) => Transport::Ndjson,
            Mode::Poll => Transport::Poll,
        }
    }

    /// Bytes that wait for the socket.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.bytes())
    }

    /// Wakes the connection's task, to flush or to end.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Writes what the socket takes now and keeps the rest under its tag. Returns how many bytes the socket took.
    ///
    /// # Errors
    /// When the socket is broken.
    pub(crate) fn send(&mut self, bytes: &Bytes, tag: Tag, tick: u32) -> io::Result<usize> {
        let written = if self.outbox.is_some() { 0 } else { taken(self.stream.try_write_shared(bytes))? };
        if written < bytes.len() {
            self.keep(bytes.slice(written..), tag, tick, written > 0);
        } else if self.stream.has_unsent() {
            self.keep_unsent(tick);
        }
        Ok(written)
    }

    /// Writes what the socket takes now, if nothing waits for it, and keeps nothing; says how much it took. A socket that is
    /// broken takes nothing: who tries again is told.
    pub(crate) fn send_at_once(&mut self, bytes: &Bytes, tick: u32) -> usize {
        if self.outbox.is_some() || self.phase != Phase::Open {
            return 0;
        }
        self.wrote_tick = tick;
        self.stream.try_write_shared(bytes).unwrap_or(0)
    }

    /// As [`Conn::send`], for bytes that nobody else holds and that must be sent.
    ///
    /// # Errors
    /// When the socket is broken.
    pub(crate) fn send_slice(&mut self, bytes: &[u8], tick: u32) -> io::Result<usize> {
        let written = if self.outbox.is_some() { 0 } else { taken(self.stream.try_write(bytes))? };
        if written < bytes.len() {
            self.keep(Bytes::copy_from_slice(&bytes[written..]), Tag::Keep, tick, written > 0);
        } else if self.stream.has_unsent() {
            self.keep_unsent(tick);
        }
        Ok(written)
    }

    /// Nothing of ours waits, but the socket's own: an empty outbox stands for it, so that the task sends it on.
    fn keep_unsent(&mut self, tick: u32) {
        self.outbox(tick);
    }

    /// Adds to what waits.
    pub(super) fn keep(&mut self, bytes: Bytes, tag: Tag, tick: u32, begun: bool) {
        self.outbox(tick).push(bytes, tick, tag, begun);
    }

    /// What waits. Where nothing did, the task is woken: from then until the outbox is gone it waits for the socket.
    fn outbox(&mut self, tick: u32) -> &mut Outbox {
        if self.outbox.is_none() {
            self.wake();
        }
        self.outbox.get_or_insert_with(|| Box::new(Outbox::new(tick)))
    }

    /// Writes from the outbox until it is empty or the socket is full; returns how many bytes went.
    ///
    /// # Errors
    /// When the socket is broken.
    pub(crate) fn flush(&mut self, tick: u32) -> io::Result<usize> {
        let mut total = 0;
        while let Some(outbox) = &mut self.outbox {
            let written = match self.stream.try_write_vectored(&outbox.slices(SLICES_LIMIT)) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            total += written;
            outbox.advance(written, tick);
            if outbox.is_empty() && !self.stream.has_unsent() {
                self.outbox = None;
            }
        }
        Ok(total)
    }
}

/// How many bytes a socket took: none while it takes none.
fn taken(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

/// What a connection keeps until each of its channels is live and caught up with the shard.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) subs: Vec<Sub>,
    /// The first `state` has been sent.
    pub(crate) state_sent: bool,
    /// When the first `state` is sent even so.
    pub(crate) grace_tick: u32,
    /// Frames behind the first `state`.
    pub(crate) held: Vec<u8>,
    /// The cursor that the last event carried: lower than that event's own position while another channel of its
    /// partition was pending. A higher one follows when the opening ends.
    pub(crate) last_cursor: Option<String>,
    pub(crate) poll: Option<Box<Poll>>,
}

/// One channel of an opening connection.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) channel: ChannelIdx,
    pub(crate) progress: Progress,
    /// What it turned out to be, once known; the first answer counts.
    pub(crate) outcome: Option<Outcome>,
    /// The client has been told.
    pub(crate) told: bool,
    /// The first offset that this connection is or will be given: what a `state` says.
    pub(crate) start: Option<(LogEpoch, Offset)>,
    /// Fixed beforehand: the cursor was damaged.
    pub(crate) bad_cursor: bool,
}

/// How far one channel of an opening connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its Want is under way; everything before `next` has been given, where that is known.
    Pending { want: WantId, next: Option<(LogEpoch, Offset)> },
    /// The client reads too slowly for its history: it goes on from here once the outbox is empty.
    Stalled { epoch: LogEpoch, next: Offset },
    /// Live from here on.
    Live { from: Offset },
}

/// A poll's answer in the making.
#[derive(Debug)]
pub(crate) struct Poll {
    pub(crate) events: Vec<std::sync::Arc<SharedEvent>>,
    pub(crate) bytes: usize,
    /// No further event fits: the answer ends before the first that did not.
    pub(crate) is_full: bool,
    pub(crate) deadline_tick: u32,
    pub(crate) waits: bool,
    pub(crate) if_none_match: Option<String>,
    pub(crate) keep_alive: bool,
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// What the client sent behind its request.
    pub(crate) leftover: Vec<u8>,
}
