//! A client that goes and comes back, and knows what it must get.

use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng as _;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};

use super::Planted;
use crate::mark::Mark;
use crate::websocket::WebSocket;

/// Who is refused comes again after so long, by chance up to twice that: as clients do.
const RETRY: Duration = Duration::from_millis(200);

/// What went wrong for one client, or for several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Events that came.
    pub came: u64,
    /// Events that a later one came before, or that did not come.
    pub lost: u64,
    /// That came again.
    pub twice: u64,
    /// Times that a server said `lost`.
    pub told_lost: u64,
}

impl Tally {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            came: self.came + other.came,
            lost: self.lost + other.lost,
            twice: self.twice + other.twice,
            told_lost: self.told_lost + other.told_lost,
        }
    }
}

/// How a return went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    pub(super) is_back: bool,
    pub(super) refused: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    gateway: SocketAddr,
    channel: String,
    socket: Option<WebSocket>,
    state: State,
}

/// What it has.
#[derive(Debug, Default)]
struct State {
    cursor: Option<String>,
    planted: Option<Planted>,
    has_state: bool,
    /// The number of the event that must come next.
    next: u64,
    tally: Tally,
}

impl Client {
    pub(super) fn new(gateway: SocketAddr, channel: &str, planted: Option<Planted>) -> Self {
        let state = State { planted, ..State::default() };
        Self { gateway, channel: channel.to_owned(), socket: None, state }
    }

    pub(super) fn tally(&self) -> Tally {
        self.state.tally
    }

    /// Goes.
    pub(super) fn reset(&mut self) -> std::io::Result<()> {
        self.socket.take().map_or(Ok(()), WebSocket::reset)
    }

    /// Connects, again and again if it must, and reads until it has all events below `wanted`, or its time is up.
    pub(super) async fn come(&mut self, wanted: u64, deadline: Instant) -> Came {
        let mut refused = 0;
        loop {
            if matches!(timeout_at(deadline, self.come_once(wanted)).await, Ok(Ok(()))) {
                return Came { is_back: true, refused };
            }
            self.socket = None;
            if Instant::now() >= deadline {
                self.state.miss_below(wanted);
                return Came { is_back: false, refused };
            }
            refused += 1;
            let jitter = rand::rng().random_range(1.0..2.0);
            sleep(RETRY.mul_f64(jitter)).await;
        }
    }

    async fn come_once(&mut self, wanted: u64) -> anyhow::Result<()> {
        let cursor = self.state.cursor.as_ref().filter(|_| self.state.planted != Some(Planted::NoCursor));
        let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let path = format!("/v1/events?channel={}{cursor}", self.channel);
        let socket = self.socket.insert(WebSocket::open(self.gateway, &path).await?);
        self.state.has_state = false;
        while !self.state.has_state || self.state.next < wanted {
            socket.read(|message| self.state.take(message)).await?;
        }
        Ok(())
    }

    /// Reads until it has all events below `wanted`, or its time is up, or the server closes.
    pub(super) async fn hear(&mut self, wanted: u64, deadline: Instant) {
        let Some(socket) = &mut self.socket else { return self.state.miss_below(wanted) };
        while self.state.next < wanted {
            let reading = timeout_at(deadline, socket.read(|message| self.state.take(message))).await;
            if !matches!(reading, Ok(Ok(()))) {
                self.state.miss_below(wanted);
            }
        }
    }
}

impl State {
    fn take(&mut self, message: &[u8]) {
        if let Some(cursor) = member(message, b"\"cursor\":\"").or_else(|| member(message, b"\"id\":\""))
            && (self.cursor.is_none() || self.planted != Some(Planted::OldCursor))
        {
            self.cursor = Some(cursor);
        }
        if message.starts_with(b"{\"type\":\"state\"") {
            self.has_state = true;
            self.tally.told_lost += u64::from(member(message, b"\"lost\":[{\"channel\":\"").is_some());
            return;
        }
        let Some(Mark { seq, .. }) = Mark::find(message, &mut 0) else { return };
        if seq < self.next {
            self.tally.twice += 1;
            return;
        }
        self.miss_below(seq);
        self.next = seq + 1;
        self.tally.came += 1;
    }

    fn miss_below(&mut self, seq: u64) {
        self.tally.lost += seq.saturating_sub(self.next);
        self.next = self.next.max(seq);
    }
}

/// What stands between this beginning and the next quotation mark.
fn member(message: &[u8], begin: &[u8]) -> Option<String> {
    let at = message.windows(begin.len()).position(|window| window == begin)? + begin.len();
    let end = message[at..].iter().position(|byte| *byte == b'"')?;
    String::from_utf8(message[at..at + end].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(messages: &[&str]) -> State {
        let mut state = State::default();
        messages.iter().for_each(|message| state.take(message.as_bytes()));
        state
    }

    fn event(seq: u64) -> String {
        let data = Mark { due_us: 7, seq }.data(40);
        format!(
            r#"{{"type":"event","channel":"c","data":"{data}","time":1,"pos":"e.0.{seq}","id":"after-{seq}"}}"#
        )
    }

    #[test]
    fn what_is_skipped_is_lost_and_what_is_there_already_is_there_twice() {
        let state = r#"{"type":"state","cursor":"first","recovered":["c"],"lost":[],"fresh":[]}"#;
        let all = [state.to_owned(), event(0), event(1), event(1), event(4)];
        let state = after(&all.each_ref().map(String::as_str));
        assert_eq!(state.tally, Tally { came: 3, lost: 2, twice: 1, told_lost: 0 });
        assert_eq!((state.cursor.as_deref(), state.next), (Some("after-4"), 5));
    }

    #[test]
    fn a_state_brings_a_cursor_and_may_say_lost() {
        let state = after(&[
            r#"{"type":"state","cursor":"x","recovered":[],"lost":[{"channel":"c","reason":"expired"}],"fresh":[]}"#,
        ]);
        assert_eq!((state.cursor.as_deref(), state.tally.told_lost, state.has_state), (Some("x"), 1, true));
    }
}
