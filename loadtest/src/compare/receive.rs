//! The receivers: a thread each for thousands of sockets, which counts frames and does as little as that takes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::schedule::Schedule;
use crate::clock::now_us;
use crate::frames::{self, Frames, pong};
use crate::histogram::Histogram;
use crate::mark::Mark;

/// One buffer that all sockets of a thread are read into.
const BUFFER_BYTES: usize = 256 * 1_024;
/// Most that one wait for the kernel brings.
const EVENTS_AT_ONCE: usize = 1_024;
/// Numbers that are believed; higher ones are no events.
const SEQ_LIMIT: u64 = 1 << 20;
/// How finely throughput over time is kept.
pub(super) const SLICE_US: u64 = 250_000;
/// Most slices of time that are kept.
const SLICES_LIMIT: usize = 4 * 3_700;

/// An open socket, and where it stands in its stream of frames.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    pub(super) frames: Frames,
}

/// What receivers and their owner tell each other while they run.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Deliveries so far, repeats apart.
    pub(super) received: AtomicU64,
    /// Receivers shall end.
    pub(super) stop: AtomicBool,
}

/// What a receiver counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Deliveries, each event once per socket.
    pub(super) received: u64,
    pub(super) duplicated: u64,
    /// Deliveries within the window, repeats too: they cost the same.
    pub(super) in_window: u64,
    /// Bytes within the window, frame heads too.
    pub(super) window_bytes: u64,
    /// Sockets that the server closed, or that sent no frames.
    pub(super) closed: u64,
    /// Of events that were due within the window.
    pub(super) latencies: Histogram,
    /// Deliveries by the time they came, in slices since the beginning.
    pub(super) slices: Vec<u64>,
}

impl Tally {
    pub(super) fn merge(&mut self, other: &Self) {
        self.received += other.received;
        self.duplicated += other.duplicated;
        self.in_window += other.in_window;
        self.window_bytes += other.window_bytes;
        self.closed += other.closed;
        self.latencies.merge(&other.latencies);
        self.slices.resize(self.slices.len().max(other.slices.len()), 0);
        for (own, others) in self.slices.iter_mut().zip(&other.slices) {
            *own += others;
        }
    }
}

/// Starts a thread for each part of the sockets.
pub(super) fn spawn(
    sockets: Vec<Socket>,
    threads: usize,
    schedule: Schedule,
    shared: &Arc<Shared>,
) -> anyhow::Result<Vec<JoinHandle<anyhow::Result<Tally>>>> {
    let each = sockets.len().div_ceil(threads).max(1);
    let (mut rest, mut handles) = (sockets, Vec::new());
    while !rest.is_empty() {
        let behind = rest.split_off(each.min(rest.len()));
        let receiver = Receiver::new(rest, schedule, Arc::clone(shared))?;
        handles.push(std::thread::Builder::new().name("receiver".into()).spawn(|| receiver.run())?);
        rest = behind;
    }
    Ok(handles)
}

struct Receiver {
    poll: Poll,
    sockets: Vec<Socket>,
    counter: Counter,
    shared: Arc<Shared>,
}

impl Receiver {
    fn new(mut sockets: Vec<Socket>, schedule: Schedule, shared: Arc<Shared>) -> anyhow::Result<Self> {
        let poll = Poll::new().context("epoll")?;
        for (number, socket) in sockets.iter_mut().enumerate() {
            poll.registry().register(&mut socket.stream, Token(number), Interest::READABLE)?;
        }
        let counter = Counter::new(sockets.len(), schedule);
        Ok(Self { poll, sockets, counter, shared })
    }

    fn run(mut self) -> anyhow::Result<Tally> {
        let (mut events, mut buffer) = (Events::with_capacity(EVENTS_AT_ONCE), vec![0; BUFFER_BYTES]);
        while !self.shared.stop.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, Some(Duration::from_millis(50))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            let before = self.counter.tally.received;
            for event in &events {
                let number = event.token().0;
                if !read(&mut self.sockets[number], number, &mut buffer, &mut self.counter) {
                    self.counter.tally.closed += 1;
                    let _gone_anyway = self.poll.registry().deregister(&mut self.sockets[number].stream);
                }
            }
            self.shared.received.fetch_add(self.counter.tally.received - before, Ordering::Relaxed);
        }
        Ok(self.counter.tally)
    }
}

/// Reads until the kernel has no more; whether the socket is still of use. A read that leaves room in the buffer was the
/// last: what comes after it is another edge.
fn read(socket: &mut Socket, number: usize, buffer: &mut [u8], counter: &mut Counter) -> bool {
    loop {
        let count = match socket.stream.read(buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        };
        let (now, mut closed) = (now_us(), false);
        counter.bytes(count, now);
        let stream = &mut socket.stream;
        let fed = socket.frames.feed(&buffer[..count], |opcode, payload| match opcode {
            frames::TEXT | frames::BINARY => counter.frame(number, payload, now),
            frames::PING => {
                let _full_buffers_are_no_concern = stream.write(&pong(payload));
            }
            frames::CLOSE => closed = true,
            _ => {}
        });
        if fed.is_err() || closed {
            return false;
        }
        if count < buffer.len() {
            return true;
        }
    }
}

/// Counts deliveries: which socket has which event, and when it came.
struct Counter {
    schedule: Schedule,
    window_us: (u64, u64),
    /// A bit for each event, per socket.
    seen: Vec<Vec<u64>>,
    /// Where in a frame the last mark was.
    hint: usize,
    tally: Tally,
}

impl Counter {
    fn new(sockets: usize, schedule: Schedule) -> Self {
        let window_us = schedule.window_us();
        Self { schedule, window_us, seen: vec![Vec::new(); sockets], hint: 0, tally: Tally::default() }
    }

    fn in_window(&self, at_us: u64) -> bool {
        (self.window_us.0..self.window_us.1).contains(&at_us)
    }

    fn bytes(&mut self, count: usize, now: u64) {
        if self.in_window(now) {
            self.tally.window_bytes += count as u64;
        }
    }

    fn frame(&mut self, socket: usize, payload: &[u8], now: u64) {
        let Some(mark) = Mark::find(payload, &mut self.hint).filter(|mark| mark.seq < SEQ_LIMIT) else {
            return;
        };
        if self.in_window(now) {
            self.tally.in_window += 1;
        }
        let (word, bit) = ((mark.seq / 64) as usize, 1 << (mark.seq % 64));
        let seen = &mut self.seen[socket];
        if seen.len() <= word {
            seen.resize(word + 1, 0);
        }
        if seen[word] & bit != 0 {
            self.tally.duplicated += 1;
            return;
        }
        seen[word] |= bit;
        self.tally.received += 1;
        if self.in_window(mark.due_us) {
            self.tally.latencies.add(now.saturating_sub(mark.due_us));
        }
        let slice = (now.saturating_sub(self.schedule.begin_us) / SLICE_US) as usize;
        if slice < SLICES_LIMIT {
            if self.tally.slices.len() <= slice {
                self.tally.slices.resize(slice + 1, 0);
            }
            self.tally.slices[slice] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_and_what_is_outside_the_window_are_told_apart() {
        let schedule = Schedule { begin_us: 10_000_000, rate: Some(10.0), warm_seconds: 1, seconds: 1 };
        let mut counter = Counter::new(2, schedule);
        let payload = |seq: u64| Mark { due_us: schedule.due_us(seq, 10.0), seq }.data(40);
        for (socket, seq, at_us) in [
            (0, 0, 10_001_000),  // warm-up
            (0, 10, 11_003_000), // 3 ms late
            (1, 10, 11_005_000), // the other socket
            (1, 10, 11_006_000), // again
            (1, 19, 12_400_000), // due in the window, and came after it
        ] {
            counter.frame(socket, payload(seq).as_bytes(), at_us);
        }
        counter.frame(0, b"{\"type\":\"state\"}", 11_000_000);
        let tally = counter.tally;
        assert_eq!((tally.received, tally.duplicated, tally.in_window), (4, 1, 3));
        assert_eq!(tally.latencies.quantiles().max_ms, 500.0);
        assert_eq!(tally.slices.iter().sum::<u64>(), 4);
        let mut both = tally.clone();
        both.merge(&tally);
        assert_eq!((both.received, both.slices[0]), (8, 2));
    }
}
