//! The connections that poll: one thread, no more work than needed, since it shares the machine with the server.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::mark::Mark;

/// Bytes read at once: an answer with events has more, which makes a second read.
const BUFFER_BYTES: usize = 16 * 1024;

/// What pollers and their owner tell each other while they run.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Answers 304 so far.
    pub(super) unchanged: AtomicU64,
    /// Answers with something new so far, be it only a cursor; the first of each connection is one.
    pub(super) changed: AtomicU64,
    /// Events found so far, by all connections together, each once.
    pub(super) events: AtomicU64,
    /// Events that came again, or after a later one.
    pub(super) repeated: AtomicU64,
    /// Shall end.
    pub(super) stop: AtomicBool,
}

struct Poller {
    stream: TcpStream,
    read: Vec<u8>,
    request: Vec<u8>,
    /// The number of the next event that it is to find.
    next_seq: u64,
    /// It says the tag of its first answer for ever.
    is_stuck: bool,
    has_tag: bool,
}

/// Asks until it is told to stop; whatever is no 200 or 304 ends it.
pub(super) fn run(
    server: SocketAddr,
    path: &str,
    connections: usize,
    planted_repeat: bool,
    shared: &Arc<Shared>,
) -> anyhow::Result<()> {
    let mut poll = Poll::new().context("epoll")?;
    let mut pollers = Vec::with_capacity(connections);
    for number in 0..connections {
        let stream =
            std::net::TcpStream::connect(server).with_context(|| format!("cannot connect to {server}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
        let is_stuck = planted_repeat && number == 0;
        let (read, request) = (Vec::new(), request(path, None));
        let mut poller = Poller { stream, read, request, next_seq: 0, is_stuck, has_tag: false };
        poller.ask()?;
        pollers.push(poller);
    }
    let (mut events, mut buffer) = (Events::with_capacity(connections.max(16)), vec![0; BUFFER_BYTES]);
    while !shared.stop.load(Ordering::Relaxed) {
        match poll.poll(&mut events, Some(Duration::from_millis(50))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            pollers[event.token().0].take_answers(path, &mut buffer, shared)?;
        }
    }
    Ok(())
}

fn request(path: &str, tag: Option<&str>) -> Vec<u8> {
    let tag = tag.map_or_else(String::new, |tag| format!("If-None-Match: {tag}\r\n"));
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n{tag}\r\n").into_bytes()
}

impl Poller {
    /// One request at a time is small enough for any socket's buffer.
    fn ask(&mut self) -> anyhow::Result<()> {
        let written = self.stream.write(&self.request).context("cannot ask")?;
        ensure!(written == self.request.len(), "a socket took {written} bytes of a request");
        Ok(())
    }

    fn take_answers(&mut self, path: &str, buffer: &mut [u8], shared: &Shared) -> anyhow::Result<()> {
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => bail!("the server has closed a connection that polls"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot read an answer"),
            };
            // As a rule a whole answer, which is looked at where it lies.
            if self.read.is_empty() && is_unchanged(&buffer[..count]) {
                shared.unchanged.fetch_add(1, Ordering::Relaxed);
                self.ask()?;
            } else {
                self.read.extend_from_slice(&buffer[..count]);
                if self.take_answer(path, shared)? {
                    self.ask()?;
                }
            }
            if count < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Takes what has been read so far; whether it was the whole of an answer.
    fn take_answer(&mut self, path: &str, shared: &Shared) -> anyhow::Result<bool> {
        if is_unchanged(&self.read) {
            shared.unchanged.fetch_add(1, Ordering::Relaxed);
            self.read.clear();
            return Ok(true);
        }
        let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(false);
        };
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
        };
        if head.starts_with("HTTP/1.1 304") {
            return Ok(false); // Its end has not come: see above.
        }
        let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let Some(body) = self.read.get(end + 4..end + 4 + length) else { return Ok(false) };
        let body = String::from_utf8_lossy(body).into_owned();
        ensure!(head.starts_with("HTTP/1.1 200"), "a poll was answered with {head}\n{body}");
        let tag = header("etag").with_context(|| format!("a poll's answer has no tag: {head}"))?;
        if !(self.is_stuck && self.has_tag) {
            self.request = request(path, Some(tag));
        }
        self.has_tag = true;
        self.find_events(&body, shared);
        shared.changed.fetch_add(1, Ordering::Relaxed);
        self.read.clear();
        Ok(true)
    }

    /// Looks at the marks of an answer's events.
    fn find_events(&mut self, body: &str, shared: &Shared) {
        Mark::find_all(body.as_bytes(), |mark| {
            let counter = if mark.seq < self.next_seq { &shared.repeated } else { &shared.events };
            counter.fetch_add(1, Ordering::Relaxed);
            self.next_seq = self.next_seq.max(mark.seq + 1);
        });
    }
}

/// Whether these bytes are exactly one answer that says that nothing is new.
fn is_unchanged(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HTTP/1.1 304 ") && bytes.ends_with(b"\r\n\r\n")
}
