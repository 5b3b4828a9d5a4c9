//! A client on any of the five transports, through one interface. Everything that comes is handed out as it came:
//! nothing is deduplicated, nothing is reordered.

mod poll;
mod stream;
mod websocket;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::eventually::{PATIENCE, QUIET, Tries};
use crate::follow::{Follow, Transport};
use crate::http::Response;
use crate::object::{Event, Object};
use poll::PollSide;
use stream::StreamSide;
use websocket::WebSocketSide;

/// What a connection is told.
#[derive(Debug, Clone)]
pub enum Heard {
    /// One of the objects.
    Object(Object),
    /// A ping frame, a comment.
    Ping,
    /// SSE's `retry:`, in milliseconds.
    Retry(u64),
    /// A WebSocket's close frame.
    CloseFrame(u16, String),
    /// A poll that was refused.
    Refused(Box<Response>),
    /// The connection is over; in good order, or cut.
    End {
        /// The body, or the close handshake, came to its end.
        is_clean: bool,
    },
}

/// What is left of a connection that the client cut.
#[derive(Debug)]
pub struct Cut {
    /// Where to go on, behind all of `rest`.
    pub cursor: String,
    /// What an answer held beyond what had been handed out.
    pub rest: Vec<Heard>,
}

/// See the module.
#[derive(Debug)]
pub struct Follower {
    /// How events come.
    pub transport: Transport,
    side: Side,
    cursor: String,
    queue: VecDeque<Heard>,
}

#[derive(Debug)]
enum Side {
    WebSocket(Box<WebSocketSide>),
    Stream(Box<StreamSide>),
    Poll(Box<PollSide>),
}

impl Follower {
    /// Opens a connection. A poll opens with its first answer only.
    ///
    /// # Errors
    /// The answer that refused it.
    ///
    /// # Panics
    /// When there is no answer in time.
    pub async fn try_open(
        address: SocketAddr,
        transport: Transport,
        follow: &Follow,
    ) -> std::io::Result<Result<Self, Box<Response>>> {
        let side = match transport {
            Transport::WebSocket => {
                WebSocketSide::open(address, follow).await?.map(|side| Side::WebSocket(Box::new(side)))
            }
            Transport::Sse | Transport::Ndjson => {
                StreamSide::open(address, transport, follow).await?.map(|side| Side::Stream(Box::new(side)))
            }
            Transport::LongPoll | Transport::ShortPoll => {
                Ok(Side::Poll(Box::new(PollSide::open(address, transport, follow).await?)))
            }
        };
        let cursor = follow.cursor.clone().unwrap_or_default();
        Ok(side.map(|side| Self { transport, side, cursor, queue: VecDeque::new() }))
    }

    /// As [`Follower::try_open`], where nothing refuses it.
    ///
    /// # Panics
    /// When something does.
    pub async fn open(address: SocketAddr, transport: Transport, follow: &Follow) -> Self {
        let opened = tokio::time::timeout(PATIENCE, Self::try_open(address, transport, follow)).await;
        match opened.expect("an answer in time") {
            Ok(Ok(follower)) => follower,
            Ok(Err(refusal)) => panic!("{transport:?} refused: {} {}", refusal.status(), refusal.text()),
            Err(error) => panic!("{transport:?}: {error}"),
        }
    }

    /// Opens as soon as the server lets it: while it restarts, it does not.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`].
    pub async fn reopen(address: SocketAddr, transport: Transport, follow: &Follow) -> Self {
        let mut tries = Tries::new();
        loop {
            tries.next("the server lets a client in again").await;
            if let Ok(Ok(follower)) = Self::try_open(address, transport, follow).await {
                return follower;
            }
        }
    }

    /// The next thing heard.
    ///
    /// # Panics
    /// When there is none within [`PATIENCE`].
    pub async fn hear(&mut self) -> Heard {
        let transport = self.transport;
        let heard = self.hear_within(PATIENCE).await;
        heard.unwrap_or_else(|| panic!("{transport:?} heard nothing for {PATIENCE:?}"))
    }

    /// The next thing heard within a time, or nothing.
    pub async fn hear_within(&mut self, time: Duration) -> Option<Heard> {
        let heard = match self.queue.pop_front() {
            Some(heard) => heard,
            None => {
                let hearing = async {
                    match &mut self.side {
                        Side::WebSocket(side) => side.hear().await,
                        Side::Stream(side) => side.hear().await,
                        Side::Poll(side) => side.hear(&self.cursor).await,
                    }
                };
                tokio::time::timeout(time, hearing).await.ok()?
            }
        };
        if let Heard::Object(Object { cursor: Some(cursor), .. }) = &heard {
            self.cursor.clone_from(cursor);
        }
        Some(heard)
    }

    /// The next object, whatever else comes before it.
    ///
    /// # Panics
    /// When the connection ends first.
    pub async fn object(&mut self) -> Object {
        loop {
            match self.hear().await {
                Heard::Object(object) if object.kind != "ping" => return object,
                Heard::Object(_) | Heard::Ping | Heard::Retry(_) => {}
                other => panic!("{:?} wanted an object and got {other:?}", self.transport),
            }
        }
    }

    /// The first `state`, and what it left open told: `recovered`, `lost` and `fresh` of all channels.
    ///
    /// # Panics
    /// When something else comes first.
    pub async fn state(&mut self) -> Value {
        let mut state = self.object().await;
        assert_eq!(state.kind, "state", "first on every stream: {}", state.raw);
        let mut waiting = VecDeque::new();
        let mut pending = names(&state.value["pending"]);
        while !pending.is_empty() {
            let object = self.object().await;
            if object.kind != "state" {
                waiting.push_back(Heard::Object(object));
                continue;
            }
            let mut told = names(&object.value["recovered"]);
            told.extend(names(&object.value["fresh"]));
            let lost = object.value["lost"].as_array().expect("a list");
            told.extend(lost.iter().filter_map(|lost| lost["channel"].as_str().map(str::to_owned)));
            pending.retain(|channel| !told.contains(channel));
            for list in ["recovered", "lost", "fresh"] {
                let more = object.value[list].as_array().cloned().expect("a list");
                state.value[list].as_array_mut().expect("a list").extend(more);
            }
        }
        waiting.append(&mut self.queue);
        self.queue = waiting;
        state.value
    }

    /// The next event; further states and acks are passed over.
    ///
    /// # Panics
    /// When the connection ends first, or has a gap.
    pub async fn event(&mut self) -> Event {
        loop {
            let object = self.object().await;
            match object.event() {
                Some(event) => return event,
                None => assert!(["state", "ack"].contains(&object.kind.as_str()), "{}", object.raw),
            }
        }
    }

    /// So many events.
    pub async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            events.push(self.event().await);
        }
        events
    }

    /// What still comes within a moment in which nothing should.
    pub async fn quiet(&mut self) -> Vec<Object> {
        let mut heard = Vec::new();
        while let Some(next) = self.hear_within(QUIET).await {
            match next {
                Heard::Object(object) if object.kind != "ping" => heard.push(object),
                Heard::End { .. } | Heard::Refused(_) => return heard,
                _ => {}
            }
        }
        heard
    }

    /// The `close` object, and all that follows it to the end of the connection.
    ///
    /// # Panics
    /// When the connection ends without one.
    pub async fn closed(&mut self) -> (Value, Vec<Heard>) {
        let mut close = None;
        let mut after = Vec::new();
        loop {
            match self.hear().await {
                Heard::Object(object) if object.kind == "close" => close = Some(object.value),
                end @ Heard::End { .. } => {
                    after.push(end);
                    return (close.unwrap_or_else(|| panic!("{:?}: no close object", self.transport)), after);
                }
                heard => after.push(heard),
            }
        }
    }

    /// Sends a text frame.
    ///
    /// # Panics
    /// When this is no WebSocket.
    pub async fn say(&mut self, text: &str) {
        self.web_socket().say(tokio_tungstenite::tungstenite::Message::text(text)).await;
    }

    /// Sends a binary frame.
    ///
    /// # Panics
    /// When this is no WebSocket.
    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        self.web_socket().say(tokio_tungstenite::tungstenite::Message::binary(bytes.to_vec())).await;
    }

    fn web_socket(&mut self) -> &mut WebSocketSide {
        match &mut self.side {
            Side::WebSocket(side) => side,
            _ => panic!("only a WebSocket can be talked to"),
        }
    }

    /// The last cursor.
    #[must_use]
    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// Cuts the connection, without a word.
    #[must_use]
    pub fn cut(self) -> Cut {
        let mut rest: Vec<Heard> = self.queue.into();
        if let Side::Poll(side) = self.side {
            rest.extend(side.into_rest());
        }
        let last = rest.iter().rev().find_map(|heard| match heard {
            Heard::Object(object) => object.cursor.clone(),
            _ => None,
        });
        Cut { cursor: last.unwrap_or(self.cursor), rest }
    }
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}
