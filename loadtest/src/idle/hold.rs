//! Connections that are held: one thread that reads what comes and answers pings.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};

use crate::compare;
use crate::connection::Connection;
use crate::frames::{self, Frames, pong};

const EVENTS_AT_ONCE: usize = 1024;
const BUFFER_BYTES: usize = 16 * 1024;

#[derive(Debug, Default)]
struct Shared {
    pings: AtomicU64,
    closed: AtomicU64,
    stop: AtomicBool,
    sockets: Mutex<Vec<Socket>>,
}

/// A connection that is held.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// Of a WebSocket; on other transports whatever comes is a ping.
    frames: Option<Frames>,
}

impl From<compare::Socket> for Socket {
    fn from(socket: compare::Socket) -> Self {
        Self { stream: socket.stream, frames: Some(socket.frames) }
    }
}

impl TryFrom<Connection> for Socket {
    type Error = std::io::Error;

    fn try_from(connection: Connection) -> Result<Self, Self::Error> {
        let (stream, _rest_of_the_state) = connection.into_parts();
        Ok(Self { stream: TcpStream::from_std(stream.into_std()?), frames: None })
    }
}

/// See the module. They are closed when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    shared: Arc<Shared>,
    registry: Registry,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Held {
    pub(super) fn new() -> anyhow::Result<Self> {
        let poll = Poll::new().context("epoll")?;
        let registry = poll.registry().try_clone()?;
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new().name("held".into()).spawn({
            let shared = Arc::clone(&shared);
            move || run(poll, &shared)
        })?;
        Ok(Self { shared, registry, thread: Some(thread) })
    }

    /// Holds this too.
    pub(super) fn add(&self, mut socket: Socket) -> anyhow::Result<()> {
        let mut sockets = self.shared.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        self.registry.register(&mut socket.stream, Token(sockets.len()), Interest::READABLE)?;
        sockets.push(socket);
        Ok(())
    }

    /// Pings so far.
    pub(super) fn pings(&self) -> u64 {
        self.shared.pings.load(Ordering::Relaxed)
    }

    /// Connections that the server has closed.
    pub(super) fn closed(&self) -> u64 {
        self.shared.closed.load(Ordering::Relaxed)
    }

    /// Lets go of them.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow::anyhow!("the thread that holds connections ended"))?
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn run(mut poll: Poll, shared: &Shared) -> anyhow::Result<()> {
    let (mut events, mut buffer) = (Events::with_capacity(EVENTS_AT_ONCE), vec![0; BUFFER_BYTES]);
    while !shared.stop.load(Ordering::Relaxed) {
        match poll.poll(&mut events, Some(Duration::from_millis(50))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        let mut sockets = shared.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for event in &events {
            let Some(socket) = sockets.get_mut(event.token().0) else { continue };
            match read(socket, &mut buffer) {
                Some(pings) => shared.pings.fetch_add(pings, Ordering::Relaxed),
                None => {
                    let _gone_anyway = poll.registry().deregister(&mut socket.stream);
                    shared.closed.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
    }
    Ok(())
}

/// Reads until the kernel has no more and answers pings: how many came; nothing when the connection is over.
fn read(socket: &mut Socket, buffer: &mut [u8]) -> Option<u64> {
    let mut pings = 0;
    loop {
        let count = match socket.stream.read(buffer) {
            Ok(0) => return None,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(pings),
            Err(_) => return None,
        };
        let Socket { stream, frames } = socket;
        let Some(frames) = frames else {
            pings += 1;
            continue;
        };
        let mut is_over = false;
        let fed = frames.feed(&buffer[..count], |opcode, payload| match opcode {
            frames::PING => {
                pings += 1;
                let _full_buffers_are_no_concern = stream.write(&pong(payload));
            }
            frames::CLOSE => is_over = true,
            _ => {}
        });
        if fed.is_err() || is_over {
            return None;
        }
        if count < buffer.len() {
            return Some(pings);
        }
    }
}
