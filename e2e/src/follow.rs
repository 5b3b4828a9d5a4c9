//! What a client asks for.

/// How events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Text frames.
    WebSocket,
    /// `text/event-stream`.
    Sse,
    /// `application/x-ndjson`.
    Ndjson,
    /// Polls that wait.
    LongPoll,
    /// Polls that do not.
    ShortPoll,
}

impl Transport {
    /// All five.
    pub const ALL: [Self; 5] = [Self::WebSocket, Self::Sse, Self::Ndjson, Self::LongPoll, Self::ShortPoll];

    /// The name in `proto/vectors/`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::LongPoll => "longpoll",
            Self::ShortPoll => "shortpoll",
        }
    }

    /// One answer per request.
    #[must_use]
    pub fn is_poll(self) -> bool {
        matches!(self, Self::LongPoll | Self::ShortPoll)
    }
}

/// A request for events, whatever the transport.
#[derive(Debug, Clone, Default)]
pub struct Follow {
    /// Channels by name.
    pub channels: Vec<String>,
    /// Where to go on.
    pub cursor: Option<String>,
    /// `since=`.
    pub since: Option<String>,
    /// `last=`.
    pub last: Option<u64>,
    /// `user=`.
    pub user: Option<String>,
    /// Header lines.
    pub headers: Vec<(String, String)>,
    /// More of the query, as it is.
    pub query: String,
    /// Ask with HTTP/1.0.
    pub http_10: bool,
}

impl Follow {
    /// Follows these channels from now.
    #[must_use]
    pub fn channels<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { channels: names.into_iter().map(|name| name.as_ref().to_owned()).collect(), ..Self::default() }
    }

    /// Goes on from a cursor.
    #[must_use]
    pub fn resume(mut self, cursor: impl Into<String>) -> Self {
        self.cursor = Some(cursor.into());
        self
    }

    /// As this user, without proof.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// From the last so many events.
    #[must_use]
    pub fn last(mut self, count: u64) -> Self {
        self.last = Some(count);
        self
    }

    /// From some time ago.
    #[must_use]
    pub fn since(mut self, since: &str) -> Self {
        self.since = Some(since.to_owned());
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With more in the query.
    #[must_use]
    pub fn query(mut self, query: &str) -> Self {
        self.query = query.to_owned();
        self
    }

    /// The request's bytes. `cursor` stands in the query, or for SSE in `Last-Event-ID`.
    pub(crate) fn request(&self, transport: Transport, cursor: Option<&str>) -> String {
        let mut query: Vec<String> =
            self.channels.iter().map(|name| format!("channel={}", percent_encoded(name))).collect();
        let mut lines = vec!["host: localhost".to_owned()];
        lines.extend(self.headers.iter().map(|(name, value)| format!("{name}: {value}")));
        query.extend(self.user.iter().map(|user| format!("user={}", percent_encoded(user))));
        query.extend(self.since.iter().map(|since| format!("since={since}")));
        query.extend(self.last.iter().map(|last| format!("last={last}")));
        if transport == Transport::Sse {
            lines.extend(cursor.map(|cursor| format!("last-event-id: {cursor}")));
        } else {
            query.extend(cursor.map(|cursor| format!("cursor={}", percent_encoded(cursor))));
        }
        match transport {
            Transport::WebSocket => lines.extend([
                "connection: Upgrade".to_owned(),
                "upgrade: websocket".to_owned(),
                "sec-websocket-version: 13".to_owned(),
                "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
            ]),
            Transport::Sse => lines.push("accept: text/event-stream".to_owned()),
            Transport::Ndjson => lines.push("accept: application/x-ndjson".to_owned()),
            Transport::LongPoll => query.push("wait=25s".to_owned()),
            Transport::ShortPoll => {}
        }
        if !self.query.is_empty() {
            query.push(self.query.clone());
        }
        let version = if self.http_10 { "HTTP/1.0" } else { "HTTP/1.1" };
        format!("GET /v1/events?{} {version}\r\n{}\r\n\r\n", query.join("&"), lines.join("\r\n"))
    }
}

/// Text as it may stand in a query.
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
