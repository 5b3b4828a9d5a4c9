//! A worker: one thread, one epoll, thousands of connections, no runtime. It ends when its input does.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{BufRead as _, ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use mio::{Events, Interest, Poll, Token, Waker};

use super::conn::{Conn, Phase, begin, source};
use super::count::{Tally, in_window};
use super::hearing::{Hearing, Next};
use super::order::{Counts, Drop, Group, Measure, Open, Order, Said};
use super::reader::{Ended, Reader};
use super::share::share;
use crate::clock::now_us;
use crate::files::make_room;

/// One buffer that all sockets are read into.
const BUFFER_BYTES: usize = 256 * 1_024;
const EVENTS_AT_ONCE: usize = 1_024;
/// A connection that is not open after this long is given up, and comes back.
const OPENING_TIMEOUT_US: u64 = 60_000_000;
const COUNTS_INTERVAL_US: u64 = 1_000_000;
/// A connection that was refused or closed comes back after this long, and up to as much again.
const RETURN_US: u64 = 500_000;
const WAKER: Token = Token(usize::MAX);

/// Runs until standard input ends.
///
/// # Errors
/// When an order is none, or the kernel gives no epoll.
pub fn run() -> anyhow::Result<()> {
    let poll = Poll::new().context("epoll")?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let (tell, orders) = sync_channel(64);
    let reading = move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                break;
            }
            let _the_loop_ends_too = waker.wake();
        }
        drop(tell);
        let _the_loop_ends_too = waker.wake();
    };
    std::thread::Builder::new().name("orders".into()).spawn(reading)?;
    let mut worker = Worker::new(poll);
    let result = worker.run(&orders);
    if let Err(error) = &result {
        say(&Said::Problem(format!("{error:#}")));
    }
    result
}

fn say(said: &Said) {
    let mut out = std::io::stdout().lock();
    let line = serde_json::to_string(said).unwrap_or_default();
    let _nobody_may_listen = writeln!(out, "{line}").and_then(|()| out.flush());
}

struct Worker {
    poll: Poll,
    groups: Vec<Group>,
    conns: Vec<Conn>,
    /// What a connection does next, and when: open, or ask again.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    /// Those that were due to open, and when, and found as many opening as may be.
    waiting: VecDeque<(u64, u32)>,
    /// Those that began to open, and when.
    begun: VecDeque<(u64, u32)>,
    opening: u64,
    /// So many may.
    at_once: u64,
    source: u64,
    ports_each: u64,
    tell: Tell,
}

/// What is counted while connections are borrowed.
struct Tell {
    measure: Measure,
    tallies: Vec<Tally>,
    counts: Counts,
    hint: usize,
}

impl Worker {
    fn new(poll: Poll) -> Self {
        let measure = Measure { begin_us: now_us(), slot_us: COUNTS_INTERVAL_US, window_us: (0, u64::MAX) };
        Self {
            poll,
            groups: Vec::new(),
            conns: Vec::new(),
            due: BinaryHeap::new(),
            waiting: VecDeque::new(),
            begun: VecDeque::new(),
            opening: 0,
            at_once: 0,
            source: 0,
            ports_each: u64::MAX,
            tell: Tell { measure, tallies: Vec::new(), counts: Counts::default(), hint: 0 },
        }
    }

    fn run(&mut self, orders: &Receiver<String>) -> anyhow::Result<()> {
        let (mut events, mut buffer) = (Events::with_capacity(EVENTS_AT_ONCE), vec![0; BUFFER_BYTES]);
        let (mut scratch, mut say_us) = (Vec::new(), now_us() + COUNTS_INTERVAL_US);
        loop {
            let next_us = self.due.peek().map_or(say_us, |Reverse((at_us, _))| say_us.min(*at_us));
            let wait = Duration::from_micros(next_us.saturating_sub(now_us()));
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => result?,
            }
            for event in &events {
                if event.token() != WAKER {
                    self.ready(event.token().0, event.is_writable(), &mut buffer, &mut scratch);
                }
            }
            loop {
                match orders.try_recv() {
                    Ok(line) => self.obey(serde_json::from_str(&line).context("an order")?)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.what_is_due()?;
            if now_us() >= say_us {
                say(&Said::Counts(self.tell.counts.clone()));
                say_us = now_us() + COUNTS_INTERVAL_US;
            }
        }
    }

    fn obey(&mut self, order: Order) -> anyhow::Result<()> {
        match order {
            Order::Open(open) => self.open(open)?,
            Order::Measure(measure) => {
                self.tell.measure = measure;
                self.tell.tallies.fill(Tally::default());
                (self.tell.counts.received, self.tell.counts.twice) = (0, 0);
                for conn in &mut self.conns {
                    conn.seen = None;
                }
            }
            Order::Drop(storm) => self.storm(storm),
            Order::Collect(number) => say(&Said::Tallies(number, self.tell.tallies.clone())),
        }
        Ok(())
    }

    /// Makes its part of the connections, each due when the rate says.
    fn open(&mut self, open: Open) -> anyhow::Result<()> {
        let Open { groups, part, parts, source, ports_each, rate, at_once } = open;
        let begin_us = now_us();
        for (index, group) in groups.iter().enumerate() {
            for number in share(group.connections, group.gateways.len() as u64, part, parts) {
                let place = self.conns.len();
                self.due
                    .push(Reverse((begin_us + (place as f64 * 1e6 / rate) as u64, u32::try_from(place)?)));
                self.conns.push(Conn::new(u16::try_from(index)?, group.first + number, group.transport));
            }
        }
        make_room(self.conns.len())?;
        self.tell.tallies = vec![Tally::default(); groups.len()];
        (self.groups, self.source, self.ports_each, self.at_once) = (groups, source, ports_each, at_once);
        Ok(())
    }

    fn storm(&mut self, storm: Drop) {
        let (mut returned, back_us) = (0, now_us() + storm.away_us);
        for index in 0..self.conns.len() {
            if usize::from(self.conns[index].group) == storm.group {
                self.close(index);
                let pause_us =
                    if storm.rate > 0.0 { (f64::from(returned) * 1e6 / storm.rate) as u64 } else { 0 };
                returned += 1;
                self.conns[index].began_us = back_us + pause_us;
                self.due.push(Reverse((back_us + pause_us, index as u32)));
            }
        }
    }

    fn what_is_due(&mut self) -> anyhow::Result<()> {
        let now = now_us();
        while let Some(Reverse((at_us, index))) = self.due.peek().copied() {
            if at_us > now {
                break;
            }
            self.due.pop();
            let index = index as usize;
            match self.conns[index].phase {
                Phase::Closed => self.waiting.push_back((at_us, index as u32)),
                Phase::Resting => self.ask(index),
                Phase::Opening | Phase::Open => {}
            }
        }
        self.give_up(now);
        while self.opening < self.at_once {
            let Some((at_us, index)) = self.waiting.pop_front() else { break };
            let conn = &self.conns[index as usize];
            // What was due before it was dropped is not any more.
            if conn.phase == Phase::Closed && at_us >= conn.began_us {
                self.begin(index as usize)?;
            }
        }
        Ok(())
    }

    /// Those that a server takes and does not answer would else keep others from opening.
    fn give_up(&mut self, now: u64) {
        while let Some((began_us, index)) = self.begun.front().copied()
            && began_us + OPENING_TIMEOUT_US <= now
        {
            self.begun.pop_front();
            let conn = &self.conns[index as usize];
            if conn.phase == Phase::Opening && conn.began_us == began_us {
                self.lost(index as usize, "not open after a minute".to_owned(), None);
            }
        }
    }

    fn begin(&mut self, index: usize) -> anyhow::Result<()> {
        let conn = &mut self.conns[index];
        let group = &self.groups[usize::from(conn.group)];
        let gateways = group.gateways.len().max(1) as u64;
        let to =
            *group.gateways.get((conn.number % gateways) as usize).context("a group without a gateway")?;
        let mut stream = begin(to, source(self.source + index as u64 / self.ports_each))?;
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        conn.reader = Reader::new(group.transport);
        (conn.stream, conn.phase, conn.has_asked, conn.began_us) =
            (Some(stream), Phase::Opening, false, now_us());
        self.begun.push_back((conn.began_us, index as u32));
        self.opening += 1;
        Ok(())
    }

    /// Sends a request. It is shorter than any socket's buffer.
    fn ask(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let request = conn.request(&self.groups[usize::from(conn.group)]);
        conn.has_asked = true;
        if conn.phase == Phase::Resting {
            conn.phase = Phase::Open;
        }
        let sent = conn.stream.as_mut().map(|stream| stream.write(request.as_bytes()));
        if in_window(&self.tell.measure, now_us()) {
            self.tell.tallies[usize::from(conn.group)].window_bytes_sent += request.len() as u64;
        }
        if !matches!(sent, Some(Ok(count)) if count == request.len()) {
            self.lost(index, "a request could not be sent".to_owned(), None);
        }
    }

    /// Its socket is gone; nothing else is decided.
    fn close(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        match conn.phase {
            Phase::Opening => self.opening -= 1,
            Phase::Open | Phase::Resting => self.tell.counts.open -= 1,
            Phase::Closed => {}
        }
        conn.phase = Phase::Closed;
        let group = &self.groups[usize::from(conn.group)];
        if !group.keeps_cursor
            && matches!(conn.reader, Reader::Head(_) | Reader::Frames(_) | Reader::Lines(_))
        {
            conn.cursor = None;
        }
        if let Some(mut stream) = conn.stream.take() {
            let _gone_anyway = self.poll.registry().deregister(&mut stream);
        }
    }

    /// The server ended it, or it did not come about: it comes back.
    fn lost(&mut self, index: usize, problem: String, retry_ms: Option<u64>) {
        let (was_open, group) = (self.conns[index].phase != Phase::Opening, self.conns[index].group);
        self.close(index);
        if was_open {
            self.tell.counts.closed += 1;
            self.tell.tallies[usize::from(group)].closed += 1;
        } else {
            self.tell.counts.refused += 1;
        }
        self.tell.counts.last_problem = Some(problem);
        let least_us = retry_ms.map_or(RETURN_US, |ms| ms * 1_000);
        let at_us = now_us() + least_us + rand::random_range(0..=least_us);
        self.conns[index].began_us = at_us;
        self.due.push(Reverse((at_us, index as u32)));
    }

    fn ready(&mut self, index: usize, is_writable: bool, buffer: &mut [u8], scratch: &mut Vec<u8>) {
        let conn = &mut self.conns[index];
        let Some(stream) = conn.stream.as_mut() else { return };
        if !conn.has_asked {
            match stream.take_error() {
                Ok(None) if stream.peer_addr().is_ok() => {}
                Ok(None) => return, // Not connected yet.
                Ok(Some(error)) | Err(error) => return self.lost(index, format!("connect: {error}"), None),
            }
            if is_writable {
                self.ask(index);
            }
        }
        match self.read(index, buffer, scratch) {
            Next::Nothing => {}
            Next::Ask => self.ask(index),
            Next::Rest => {
                let conn = &mut self.conns[index];
                conn.phase = Phase::Resting;
                let pause_us = self.groups[usize::from(conn.group)].poll_interval_ms * 1_000;
                self.due.push(Reverse((now_us() + pause_us, index as u32)));
            }
            Next::Again => {
                self.close(index);
                self.due.push(Reverse((now_us(), index as u32)));
            }
            Next::Lost(problem, retry_ms) => self.lost(index, problem, retry_ms),
        }
    }

    /// Reads until the kernel has no more.
    fn read(&mut self, index: usize, buffer: &mut [u8], scratch: &mut Vec<u8>) -> Next {
        let conn = &mut self.conns[index];
        let group = &self.groups[usize::from(conn.group)];
        let mut next = Next::Nothing;
        loop {
            let Some(stream) = conn.stream.as_mut() else { return next };
            let count = match stream.read(buffer) {
                Ok(0) => return Next::Lost("closed by the server".to_owned(), None),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return next,
                Err(error) => return Next::Lost(error.to_string(), None),
            };
            let now = now_us();
            let Conn { stream: Some(stream), phase, reader, cursor, seen, began_us, .. } = conn else {
                return next;
            };
            let tally = &mut self.tell.tallies[usize::from(conn.group)];
            if in_window(&self.tell.measure, now) {
                tally.window_bytes += count as u64;
            }
            let mut hearing = Hearing {
                group,
                tally,
                measure: &self.tell.measure,
                counts: &mut self.tell.counts,
                hint: &mut self.tell.hint,
                opening: &mut self.opening,
                stream,
                phase,
                cursor,
                seen,
                began_us: *began_us,
                now,
                next: Next::Nothing,
            };
            let fed =
                reader.feed(group.transport, &buffer[..count], scratch, &mut |heard| hearing.hear(heard));
            match (fed, hearing.next) {
                (Err(Ended::Refused { text, retry_ms }), _) => return Next::Lost(text, retry_ms),
                (Err(Ended::Broken(text)), _) => return Next::Lost(text, None),
                (Ok(()), Next::Nothing) => {}
                (Ok(()), Next::Lost(problem, retry_ms)) => return Next::Lost(problem, retry_ms),
                (Ok(()), heard) => next = heard,
            }
            // A read that leaves room was the last: what comes after it is another edge.
            if count < buffer.len() {
                return next;
            }
        }
    }
}
