//! `loadtest floor`: what a broadcast costs when nothing but the kernel is in the way.
//!
//! One thread, one ready-made WebSocket frame, one `write()` per socket. epoll only while sockets are accepted, and when a
//! socket's buffer is full. It parses nothing, follows nothing, remembers nothing and recovers nothing: a server that does
//! all this can come near it, and beat it only by sending several events at once.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};

use crate::clock::{now_us, sleep_until_us};
use crate::files::make_room;
use crate::frames::text_frame;
use crate::mark::Mark;

/// The listener; sockets have the numbers below.
const LISTENER: Token = Token(usize::MAX - 1);
/// Bytes of a request that are read; more is refused.
const REQUEST_BYTES_LIMIT: usize = 4_096;
/// Time in which all sockets must have come.
const ACCEPT_TIMEOUT_US: u64 = 120_000_000;
/// What every socket is answered; nobody checks the key, least of all against a floor.
const UPGRADED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

/// What shall be sent.
#[derive(Debug, Clone)]
pub struct FloorOptions {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How many sockets; it begins when all are there.
    pub sockets: usize,
    /// Broadcasts a second; nothing: as many as fit.
    pub rate: Option<f64>,
    /// For how long.
    pub seconds: u64,
    /// Bytes of an event.
    pub bytes: usize,
    /// A fault to be noticed: this write, counted over all sockets and broadcasts, is left out.
    pub planted_drop: Option<u64>,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloorSent {
    /// To every socket.
    pub broadcasts: u64,
    /// How often a socket's buffer was full and it waited.
    pub waits: u64,
}

/// Listens, says where, waits for all sockets, asks `begin` when to begin on the shared clock, sends, and tells
/// `sent` how much; only then it closes them.
///
/// # Errors
/// When a limit binds, or sockets do not come or go away.
pub fn floor(
    options: &FloorOptions,
    listening: impl FnOnce(SocketAddr) -> anyhow::Result<()>,
    begin: impl FnOnce() -> anyhow::Result<u64>,
    sent: impl FnOnce(FloorSent) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    make_room(options.sockets)?;
    let listener =
        TcpListener::bind(options.listen).with_context(|| format!("cannot listen on {}", options.listen))?;
    listening(listener.local_addr()?)?;
    let mut poll = Poll::new()?;
    let sockets = accept(&mut poll, listener, options.sockets)?;
    let mut floor = Floor { poll, sockets, writes: 0, waits: 0, planted_drop: options.planted_drop };
    let begin_us = begin()?;
    let mut seq = 0;
    loop {
        let due_us = match options.rate {
            Some(rate) => begin_us + (seq as f64 * 1e6 / rate) as u64,
            None => now_us().max(begin_us),
        };
        if due_us >= begin_us + options.seconds * 1_000_000 {
            return sent(FloorSent { broadcasts: seq, waits: floor.waits });
        }
        sleep_until_us(due_us);
        floor.broadcast(&text_frame(Mark { due_us, seq }.data(options.bytes).as_bytes()))?;
        seq += 1;
    }
}

struct Floor {
    poll: Poll,
    sockets: Vec<TcpStream>,
    writes: u64,
    waits: u64,
    planted_drop: Option<u64>,
}

impl Floor {
    fn broadcast(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        for number in 0..self.sockets.len() {
            self.writes += 1;
            if self.planted_drop == Some(self.writes) {
                continue;
            }
            match self.sockets[number].write(frame) {
                Ok(count) if count == frame.len() => {}
                Ok(count) => self.write_rest(number, &frame[count..])?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.write_rest(number, frame)?,
                Err(error) => return Err(error).context("a receiver went away"),
            }
        }
        Ok(())
    }

    /// Waits for this one socket. Nobody else gets anything meanwhile: it is a floor, not a server.
    fn write_rest(&mut self, number: usize, mut rest: &[u8]) -> anyhow::Result<()> {
        self.waits += 1;
        let socket = &mut self.sockets[number];
        self.poll.registry().register(socket, Token(number), Interest::WRITABLE)?;
        while !rest.is_empty() {
            self.poll.poll(&mut Events::with_capacity(1), Some(Duration::from_secs(10)))?;
            match socket.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("a receiver went away"),
            }
        }
        Ok(self.poll.registry().deregister(socket)?)
    }
}

/// Takes so many sockets, and answers each one's request.
fn accept(poll: &mut Poll, mut listener: TcpListener, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut asking, mut upgraded): (Vec<Option<TcpStream>>, Vec<_>) = (Vec::new(), Vec::new());
    let (mut events, deadline) = (Events::with_capacity(1_024), now_us() + ACCEPT_TIMEOUT_US);
    while upgraded.len() < count {
        let taken = asking.len();
        if now_us() > deadline {
            bail!("{} of {count} sockets asked for a WebSocket in time, {taken} connected", upgraded.len());
        }
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        for event in &events {
            if event.token() == LISTENER {
                while let Some(mut socket) = would_block(listener.accept())?.map(|(socket, _)| socket) {
                    poll.registry().register(&mut socket, Token(asking.len()), Interest::READABLE)?;
                    socket.set_nodelay(true)?;
                    asking.push(Some(socket));
                }
            } else if let Some(slot) = asking.get_mut(event.token().0)
                && let Some(mut socket) = slot.take()
            {
                if upgrade(&mut socket)? {
                    poll.registry().deregister(&mut socket)?;
                    upgraded.push(socket);
                } else {
                    *slot = Some(socket);
                }
            }
        }
    }
    Ok(upgraded)
}

/// Whether the request was there, and is answered. Clients here send it at once and whole.
fn upgrade(socket: &mut TcpStream) -> anyhow::Result<bool> {
    let mut request = [0; REQUEST_BYTES_LIMIT];
    let Some(count) = would_block(socket.read(&mut request))? else { return Ok(false) };
    if !request[..count].ends_with(b"\r\n\r\n") {
        bail!("a client sent {count} bytes that are no whole request of at most {REQUEST_BYTES_LIMIT}");
    }
    socket.write_all(UPGRADED)?;
    Ok(true)
}

fn would_block<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
