//! What a worker makes of what one connection hears.

use std::io::Write as _;

use mio::net::TcpStream;

use super::conn::{Phase, cursor_in};
use super::count::{Seen, Tally, in_window};
use super::order::{Counts, Group, Measure};
use super::reader::{Answer, Heard};
use crate::frames::pong;
use crate::history::Receiving;
use crate::mark::Mark;

/// What a connection does after it has read.
pub(super) enum Next {
    Nothing,
    /// The next poll at once.
    Ask,
    /// The next poll after a pause.
    Rest,
    /// Another connection, at once.
    Again,
    Lost(String, Option<u64>),
}

/// One connection while it hears something.
pub(super) struct Hearing<'a> {
    pub(super) group: &'a Group,
    pub(super) tally: &'a mut Tally,
    pub(super) measure: &'a Measure,
    pub(super) counts: &'a mut Counts,
    pub(super) hint: &'a mut usize,
    pub(super) opening: &'a mut u64,
    pub(super) stream: &'a mut TcpStream,
    pub(super) phase: &'a mut Phase,
    pub(super) cursor: &'a mut Option<Box<str>>,
    pub(super) seen: &'a mut Option<Box<Seen>>,
    pub(super) began_us: u64,
    pub(super) now: u64,
    pub(super) next: Next,
}

impl Hearing<'_> {
    pub(super) fn hear(&mut self, heard: Heard<'_>) {
        match heard {
            Heard::Line(line) => self.line(line),
            Heard::Ping(content) => {
                self.counts.pings += 1;
                let _full_buffers_are_no_concern = self.stream.write(&pong(content));
            }
            Heard::Answer(answer) => self.answer(answer),
            Heard::Close => {
                if !matches!(self.next, Next::Lost(..)) {
                    self.next = Next::Lost("closed by the server".to_owned(), None);
                }
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        if let Some(mark) = Mark::find(line, self.hint) {
            self.event(mark);
        } else if line.starts_with(b"{\"type\":\"state\"") || line == b"event: tidegate.state" {
            self.follows();
        } else if line == b":" || line == b"{\"type\":\"ping\"}" {
            self.counts.pings += 1;
        }
        let object = line.strip_prefix(b"data: ").unwrap_or(line);
        let begins = |with: &[u8]| object.starts_with(with);
        if begins(b"{\"type\":\"close\"") {
            self.next = Next::Lost(String::from_utf8_lossy(object).into_owned(), None);
        } else if begins(b"{\"type\":\"gap\"") || (begins(b"{\"type\":\"state\"") && says_lost(object)) {
            self.tally.told += 1;
        }
        if self.group.keeps_cursor
            && let Some(cursor) = cursor_in(line, self.group.transport)
        {
            *self.cursor = Some(cursor.into());
        }
    }

    fn event(&mut self, mark: Mark) {
        let seen =
            self.group.targets.map(|targets| self.seen.get_or_insert_default().note(mark.seq, targets));
        if seen == Some(None) {
            return; // No number of ours.
        }
        let (received, twice) = (self.tally.received, self.tally.twice);
        self.tally.event(mark, seen.flatten(), self.measure, self.now);
        self.counts.received += self.tally.received - received;
        self.counts.twice += self.tally.twice - twice;
    }

    /// From now on it follows.
    fn follows(&mut self) {
        if *self.phase == Phase::Opening {
            *self.phase = Phase::Open;
            *self.opening -= 1;
            self.counts.open += 1;
            self.tally.openings.add(self.now.saturating_sub(self.began_us));
        }
    }

    fn answer(&mut self, answer: Answer<'_>) {
        if in_window(self.measure, self.now) {
            self.tally.polls += 1;
        }
        if let Some(etag) = answer.etag {
            *self.cursor = Some(etag.into());
        }
        self.follows();
        Mark::find_all(answer.body, |mark| self.event(mark));
        if says_lost(answer.body) {
            self.tally.told += 1;
        }
        self.next = match self.group.transport {
            _ if answer.is_last => Next::Again,
            Receiving::ShortPoll => Next::Rest,
            _ => Next::Ask,
        };
    }
}

/// Whether an object says that something is gone.
fn says_lost(object: &[u8]) -> bool {
    const KEY: &[u8] = b"\"lost\":[{";
    object.windows(KEY.len()).any(|window| window == KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_that_holds_something_says_that_something_is_lost() {
        assert!(says_lost(b"{\"lost\":[{\"channel\":\"a\",\"reason\":\"expired\"}]}"));
        assert!(!says_lost(b"{\"lost\":[],\"fresh\":[\"a\"]}"));
    }
}
