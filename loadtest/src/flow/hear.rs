//! The subscribers: one thread that notes when what came.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::{Sample, Shared};
use crate::clock::now_us;
use crate::frames::{self, Frames, pong};
use crate::mark::Mark;
use crate::websocket::WebSocket;

/// One buffer that all sockets are read into.
const BUFFER_BYTES: usize = 128 * 1_024;
/// How long a wait for the kernel lasts at most: so long it takes to notice that nobody listens any more.
const WAIT: Duration = Duration::from_millis(20);
/// Numbers that are believed; higher ones are no events.
const SEQ_LIMIT: u64 = 1 << 26;

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) samples: Vec<Sample>,
    pub(super) twice: u64,
}

/// See the module.
pub(super) struct Listener {
    poll: Poll,
    sockets: Vec<Socket>,
    shared: Arc<Shared>,
    planted_delay: Option<Duration>,
    tally: Tally,
    hint: usize,
}

struct Socket {
    stream: TcpStream,
    frames: Frames,
    /// A bit for each event.
    seen: Vec<u64>,
}

impl Listener {
    pub(super) fn new(
        sockets: Vec<WebSocket>,
        shared: Arc<Shared>,
        planted_delay: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let poll = Poll::new().context("epoll")?;
        let mut all = Vec::with_capacity(sockets.len());
        for (number, socket) in sockets.into_iter().enumerate() {
            let (mut stream, frames, _nothing_was_published_yet) = socket.into_parts()?;
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            all.push(Socket { stream, frames, seen: Vec::new() });
        }
        Ok(Self { poll, sockets: all, shared, planted_delay, tally: Tally::default(), hint: 0 })
    }

    pub(super) fn run(mut self) -> anyhow::Result<Tally> {
        let (mut events, mut buffer) = (Events::with_capacity(256), vec![0; BUFFER_BYTES]);
        while !self.shared.hear_no_more.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, Some(WAIT)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                self.read(event.token().0, &mut buffer)?;
            }
        }
        Ok(self.tally)
    }

    fn read(&mut self, number: usize, buffer: &mut [u8]) -> anyhow::Result<()> {
        loop {
            let Socket { stream, frames, seen } = &mut self.sockets[number];
            let count = match stream.read(buffer) {
                Ok(0) => bail!("the gateway closed subscriber {number}"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context(format!("subscriber {number}")),
            };
            let (now, before) = (now_us(), self.tally.samples.len());
            let (tally, hint, mut closed) = (&mut self.tally, &mut self.hint, None);
            frames.feed(&buffer[..count], |opcode, payload| match opcode {
                frames::TEXT | frames::BINARY => {
                    if let Some(mark) = Mark::find(payload, hint).filter(|mark| mark.seq < SEQ_LIMIT) {
                        tally.note(seen, mark, now);
                    }
                }
                frames::PING => {
                    let _full_buffers_are_no_concern = stream.write(&pong(payload));
                }
                frames::CLOSE => {
                    closed = Some(String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned())
                }
                _ => {}
            })?;
            if let Some(reason) = closed {
                bail!("the gateway closed subscriber {number}: {reason}");
            }
            let new = (self.tally.samples.len() - before) as u64;
            self.shared.received.fetch_add(new, Ordering::Relaxed);
            if let Some(delay) = self.planted_delay {
                std::thread::sleep(delay * new as u32);
            }
        }
    }
}

impl Tally {
    fn note(&mut self, seen: &mut Vec<u64>, mark: Mark, now: u64) {
        let (word, bit) = ((mark.seq / 64) as usize, 1 << (mark.seq % 64));
        if seen.len() <= word {
            seen.resize(word + 1, 0);
        }
        if seen[word] & bit != 0 {
            self.twice += 1;
            return;
        }
        seen[word] |= bit;
        self.samples.push(Sample { due_us: mark.due_us, late_us: now.saturating_sub(mark.due_us) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_is_told_apart_and_lateness_counts_from_when_it_was_due() {
        let (mut tally, mut one, mut other) = (Tally::default(), Vec::new(), Vec::new());
        let mark = |seq| Mark { due_us: 1_000, seq };
        tally.note(&mut one, mark(70), 3_000);
        tally.note(&mut other, mark(70), 4_000);
        tally.note(&mut one, mark(70), 5_000);
        let late: Vec<_> = tally.samples.iter().map(|sample| sample.late_us).collect();
        assert_eq!((late, tally.twice), (vec![2_000, 3_000], 1));
    }
}
