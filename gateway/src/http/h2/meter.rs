//! Counts the frames by which a client makes work without asking for anything: settings, pings, priorities, window updates,
//! resets, and frames of kinds that nobody knows. Who sends more of them than any client has a use for is sent away. What
//! else can be too much (header lists, CONTINUATION, resets of what was not looked at, small DATA) the h2 library counts.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tidegate_vocab::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::socket::ClientSocket;

/// `PRI * HTTP/2.0` and so on, before the first frame.
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
/// Bytes kept of what was sent last: the words of a GOAWAY.
const SENT_BYTES: usize = 32;

/// Follows the frames of one socket by their heads.
#[derive(Debug)]
pub(super) struct Meter {
    head: [u8; HEAD_BYTES],
    head_len: usize,
    /// Bytes that are no head: of the preface or of a frame.
    skip: usize,
    tokens: f64,
    at: Instant,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        let tokens = f64::from(limits::H2_CONTROL_FRAMES_BURST);
        Self { head: [0; HEAD_BYTES], head_len: 0, skip: PREFACE_BYTES, tokens, at: now }
    }

    /// Takes what was read. Says of which kind the frame is that was one too many.
    pub(super) fn read(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD_BYTES - self.head_len).min(bytes.len());
            self.head[self.head_len..self.head_len + taken].copy_from_slice(&bytes[..taken]);
            self.head_len += taken;
            bytes = &bytes[taken..];
            if self.head_len == HEAD_BYTES {
                let [a, b, c, kind, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.head_len = 0;
                if let Some(kind) = control(kind) {
                    self.take(now).ok_or(kind)?;
                }
            }
        }
        Ok(())
    }

    /// What is sent gives the client reason to send some itself: window updates above all.
    pub(super) fn wrote(&mut self, count: usize) {
        let earned = count as f64 / f64::from(limits::H2_BYTES_PER_CONTROL_FRAME);
        self.tokens = (self.tokens + earned).min(f64::from(limits::H2_CONTROL_FRAMES_BURST));
    }

    fn take(&mut self, now: Instant) -> Option<()> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let earned = passed * f64::from(limits::H2_CONTROL_FRAMES_RATE);
        self.tokens = (self.tokens + earned).min(f64::from(limits::H2_CONTROL_FRAMES_BURST)) - 1.0;
        (self.tokens >= 0.0).then_some(())
    }
}

/// The kinds that count, as a metric's label (RFC 9113, section 6).
fn control(kind: u8) -> Option<&'static str> {
    match kind {
        0 | 1 | 9 => None, // DATA, HEADERS and CONTINUATION have limits of their own.
        2 => Some("priority"),
        3 => Some("reset"),
        4 => Some("settings"),
        6 => Some("ping"),
        8 => Some("window_update"),
        _ => Some("unknown"),
    }
}

/// What the server's loop sees of its socket, which h2 has.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Something came since the last look.
    pub(super) heard: Cell<bool>,
    /// Which kind of frame was one too many.
    pub(super) flood: Cell<Option<&'static str>>,
    /// The end of what was sent last.
    sent: RefCell<Vec<u8>>,
}

impl Seen {
    /// Whether what was sent last ends in these words: as a GOAWAY does that says why.
    pub(super) fn ends_in(&self, words: &str) -> bool {
        self.sent.borrow().ends_with(words.as_bytes())
    }
}

/// A socket whose frames are counted.
#[derive(Debug)]
pub(super) struct MeteredSocket {
    socket: ClientSocket,
    meter: Meter,
    seen: Rc<Seen>,
}

impl MeteredSocket {
    pub(super) fn new(socket: ClientSocket, seen: Rc<Seen>) -> Self {
        Self { socket, meter: Meter::new(Instant::now()), seen }
    }
}

impl AsyncRead for MeteredSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            this.seen.heard.set(true);
        }
        Poll::Ready(this.meter.read(read, Instant::now()).map_err(|kind| {
            this.seen.flood.set(Some(kind));
            io::Error::other("too many frames that ask for nothing")
        }))
    }
}

impl MeteredSocket {
    fn wrote(&mut self, last: &[u8], written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.meter.wrote(count);
            let mut sent = self.seen.sent.borrow_mut();
            sent.clear();
            sent.extend_from_slice(&last[last.len().saturating_sub(SENT_BYTES)..]);
        }
        written
    }
}

impl AsyncWrite for MeteredSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(buf, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        let last = bufs.iter().rev().find(|slice| !slice.is_empty());
        self.wrote(last.map_or(&[], |slice| slice), written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BURST: usize = limits::H2_CONTROL_FRAMES_BURST as usize;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let mut frame = (payload as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.resize(HEAD_BYTES + payload, 6); // A payload that looks like pings.
        frame
    }

    /// How many of these frames are let through, given in pieces of `piece` bytes.
    fn allowed(kind: u8, count: usize, piece: usize) -> usize {
        let now = Instant::now();
        let mut meter = Meter::new(now);
        for piece in PREFACE.chunks(piece) {
            meter.read(piece, now).expect("a preface is no frame");
        }
        let frame = frame(kind, 8);
        (0..count)
            .take_while(|_| frame.chunks(piece).try_for_each(|piece| meter.read(piece, now)).is_ok())
            .count()
    }

    #[test]
    fn frames_that_ask_for_nothing_are_counted_however_they_are_cut() {
        for kind in [2, 3, 4, 6, 8, 10, 255] {
            for piece in [1, 7, 9, 100] {
                assert_eq!(allowed(kind, BURST + 10, piece), BURST, "{kind} by {piece}");
            }
        }
        for kind in [0, 1, 9] {
            assert_eq!(allowed(kind, BURST * 2, 100), BURST * 2, "{kind}");
        }
    }

    #[test]
    fn time_and_what_is_sent_allow_further_ones() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        meter.read(PREFACE, start).expect("a preface");
        let pings = |meter: &mut Meter, now| {
            let allowed = (0..2 * BURST).take_while(|_| meter.read(&frame(6, 8), now).is_ok()).count();
            meter.skip = 0; // Of the one that was too many nothing more comes.
            allowed
        };
        assert_eq!(pings(&mut meter, start), BURST);
        let later = start + Duration::from_secs(2);
        let earned = 2 * limits::H2_CONTROL_FRAMES_RATE as usize;
        assert!(pings(&mut meter, later).abs_diff(earned) <= 2, "{earned}");
        meter.wrote(limits::H2_BYTES_PER_CONTROL_FRAME as usize * 100);
        assert!(pings(&mut meter, later).abs_diff(100) <= 2);
        // Their own answers earn a client nothing near what it needs: a pong has 17 bytes.
        meter.wrote(17 * 100);
        assert!(pings(&mut meter, later) < 60);
    }

    #[test]
    fn what_is_left_unused_adds_up_to_one_burst_only() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        meter.read(PREFACE, start).expect("a preface");
        meter.wrote(1 << 30);
        let later = start + Duration::from_secs(3_600);
        let count = (0..2 * BURST).take_while(|_| meter.read(&frame(4, 0), later).is_ok()).count();
        assert_eq!(count, BURST);
    }
}
