//! Long and short polls, one after the other on one connection for as long as the server keeps it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Interval;

use super::Heard;
use crate::follow::{Follow, Transport};
use crate::http::{HttpConn, Response};
use crate::object::Object;

/// How often a short poll asks.
const SHORT_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Idle time after which a server may have closed a connection without any fault.
const IDLE_TIME_MIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct PollSide {
    address: SocketAddr,
    transport: Transport,
    follow: Follow,
    conn: Option<HttpConn>,
    /// A request is under way.
    is_asking: bool,
    has_state: bool,
    used_at: Instant,
    pace: Interval,
    heard: VecDeque<Heard>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    events: Vec<Box<RawValue>>,
    cursor: String,
    recovered: Vec<String>,
    lost: Vec<Value>,
    fresh: Vec<String>,
    #[serde(default)]
    pending: Vec<String>,
}

impl PollSide {
    pub(super) async fn open(address: SocketAddr, transport: Transport, follow: &Follow) -> io::Result<Self> {
        let mut pace = tokio::time::interval(SHORT_POLL_INTERVAL);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Ok(Self {
            address,
            transport,
            follow: follow.clone(),
            conn: Some(HttpConn::connect(address).await?),
            is_asking: false,
            has_state: false,
            used_at: Instant::now(),
            pace,
            heard: VecDeque::new(),
        })
    }

    pub(super) async fn hear(&mut self, cursor: &str) -> Heard {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return heard;
            }
            match self.ask(cursor).await {
                Ok(response) => self.take_in(response, cursor),
                Err(_) => {
                    (self.conn, self.is_asking) = (None, false);
                    return Heard::End { is_clean: false };
                }
            }
        }
    }

    async fn ask(&mut self, cursor: &str) -> io::Result<Response> {
        if self.transport == Transport::ShortPoll && !self.is_asking {
            self.pace.tick().await;
        }
        let is_reused = self.conn.is_some() && self.used_at.elapsed() > IDLE_TIME_MIN;
        let response = match self.exchange(cursor).await {
            Err(_) if is_reused => {
                // The server may close a connection on which nothing was asked for long.
                (self.conn, self.is_asking) = (None, false);
                self.exchange(cursor).await?
            }
            answered => answered?,
        };
        self.used_at = Instant::now();
        self.is_asking = false;
        if response.header("connection") == Some("close") || self.follow.http_10 {
            self.conn = None;
        }
        Ok(response)
    }

    async fn exchange(&mut self, cursor: &str) -> io::Result<Response> {
        if self.conn.is_none() {
            self.conn = Some(HttpConn::connect(self.address).await?);
        }
        let conn = self.conn.as_mut().expect("connected just now");
        if !self.is_asking {
            let known = (!cursor.is_empty()).then_some(cursor);
            // The first poll does not wait: it tells where this begins, also when nothing happens.
            let transport = if self.has_state { self.transport } else { Transport::ShortPoll };
            let mut request = self.follow.request(transport, known);
            if self.transport == Transport::ShortPoll && self.has_state {
                request = request.replace("\r\n\r\n", &format!("\r\nif-none-match: \"{cursor}\"\r\n\r\n"));
            }
            conn.send(request).await?;
            self.is_asking = true;
        }
        conn.response().await
    }

    fn take_in(&mut self, response: Response, cursor: &str) {
        if response.status() == 304 {
            let tag = format!("\"{cursor}\"");
            assert_eq!(response.header("etag"), Some(tag.as_str()), "304 means: the cursor that you have");
            return;
        }
        if response.status() != 200 {
            return self.heard.push_back(Heard::Refused(Box::new(response)));
        }
        let answer: Answer = serde_json::from_slice(&response.body).expect("a poll's answer");
        let tag = format!("\"{}\"", answer.cursor);
        assert_eq!(response.header("etag"), Some(tag.as_str()), "the ETag is the cursor");
        let state = json!({"type": "state", "cursor": answer.cursor, "recovered": answer.recovered,
            "lost": answer.lost, "fresh": answer.fresh, "pending": answer.pending});
        // Each answer says what became of its cursor; what a client does not expect later on is handed out.
        let is_news = !answer.lost.is_empty() || !answer.fresh.is_empty() || !answer.pending.is_empty();
        if !self.has_state || is_news {
            self.has_state = true;
            let mut state = Object::parse(&state.to_string(), None);
            state.cursor = None; // It is behind the events, which are handed out after this.
            self.heard.push_back(Heard::Object(state));
        }
        let count = answer.events.len();
        for (at, raw) in answer.events.iter().enumerate() {
            let mut object = Object::parse(raw.get(), None);
            assert!(object.cursor.is_none(), "a poll's events have no cursor of their own: {}", object.raw);
            if at + 1 == count && object.value["pos"].is_string() {
                object.cursor = Some(answer.cursor.clone());
            }
            self.heard.push_back(Heard::Object(object));
        }
        if count == 0 || self.heard.back().is_none_or(has_no_cursor) {
            let ping = format!("{{\"type\":\"ping\",\"id\":\"{}\"}}", answer.cursor);
            self.heard.push_back(Heard::Object(Object::parse(&ping, None)));
        }
    }

    /// What was answered and not handed out.
    pub(super) fn into_rest(self) -> Vec<Heard> {
        self.heard.into()
    }
}

fn has_no_cursor(heard: &Heard) -> bool {
    matches!(heard, Heard::Object(object) if object.cursor.is_none())
}
