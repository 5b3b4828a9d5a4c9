//! What a follower knows: its cursor, what it has printed, how a connection ended. Does no IO.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_vocab::{ErrorKind, Offset, Position};
use tokio_tungstenite::tungstenite::http::{Response, StatusCode, header};

use crate::cli::tail::show;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everything that was asked for is here.
    Done,
    /// Coming back would not help.
    Refused {
        /// For the user.
        text: String,
    },
    /// To be tried again, after the time that the server named or after a pause of our own.
    Again {
        /// For the user.
        why: String,
        /// What the server asked for.
        retry: Option<Duration>,
    },
}

/// What an object means to the user.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// A line for standard output.
    pub(super) out: Option<String>,
    /// Lines for standard error.
    pub(super) note: Vec<String>,
}

/// One object of `/v1/events`, whatever its type.
#[derive(Deserialize)]
pub(super) struct Object<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    pub(super) channel: String,
    #[serde(default)]
    pub(super) event: String,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) data_b64: Option<String>,
    #[serde(default)]
    pub(super) time: u64,
    #[serde(default)]
    pos: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    cursor: Option<String>,
    #[serde(default)]
    recovered: Vec<String>,
    #[serde(default)]
    lost: Vec<LostChannel>,
    #[serde(default)]
    fresh: Vec<String>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    retry_ms: Option<u64>,
}

#[derive(Deserialize)]
struct LostChannel {
    channel: String,
    reason: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Follower {
    json: bool,
    left: Option<u64>,
    cursor: Option<String>,
    /// The last position printed of each channel: after a resume, a repeat may come.
    printed: HashMap<String, Position>,
    /// What the server said before it closed.
    close: Option<(String, Option<Duration>)>,
}

impl Follower {
    pub(super) fn new(json: bool, count: Option<u64>, cursor: Option<String>) -> Self {
        Self { json, left: count, cursor, printed: HashMap::new(), close: None }
    }

    /// Where to go on.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// True once as many events as asked for were printed.
    pub(super) fn has_enough(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes in one object.
    pub(super) fn on_object(&mut self, text: &str) -> Said {
        let Ok(object) = serde_json::from_str::<Object<'_>>(text) else {
            return Said {
                out: None,
                note: vec!["the server sent something that is no object of ours".into()],
            };
        };
        if let Some(cursor) = object.id.as_ref().or(object.cursor.as_ref()) {
            self.cursor = Some(cursor.clone());
        }
        let mut said = match object.kind.as_str() {
            "event" => return self.on_event(&object, text),
            "ping" => return Said::default(),
            "state" => Said { out: None, note: notes_of_state(&object) },
            "gap" => Said { out: None, note: vec![format!("gap in {}: {}", object.channel, object.reason)] },
            "close" => {
                self.close = Some((object.reason, object.retry_ms.map(Duration::from_millis)));
                Said::default()
            }
            _ => Said::default(),
        };
        if self.json {
            said.out = Some(text.to_owned());
        }
        said
    }

    fn on_event(&mut self, object: &Object<'_>, text: &str) -> Said {
        let pos: Option<Position> = object.pos.as_deref().and_then(|pos| pos.parse().ok());
        if let Some(pos) = pos {
            let before = self.printed.insert(object.channel.clone(), pos);
            if before.is_some_and(|before| is_repeat(before, pos)) {
                self.printed.extend(before.map(|before| (object.channel.clone(), before)));
                return Said::default();
            }
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        let line = if self.json { text.to_owned() } else { show::event(object, pos) };
        Said { out: Some(line), note: Vec::new() }
    }

    /// The socket was closed in good order: what its `close` object said counts, else the frame's reason.
    pub(super) fn closed(&mut self, reason: &str) -> Ended {
        let (said, retry) = self.close.take().unwrap_or_else(|| (reason.to_owned(), None));
        let kind = ErrorKind::ALL.iter().find(|kind| kind.as_str() == said);
        match kind {
            Some(kind) if !kind.is_retryable() => {
                Ended::Refused { text: format!("the server ended the connection: {said}:{}", kind.meaning()) }
            }
            _ => Ended::Again { why: said, retry },
        }
    }

    /// The connection ended without a word, or after a `close` object.
    pub(super) fn ended(&mut self, why: &str) -> Ended {
        match self.close.is_some() {
            true => self.closed(""),
            false => Ended::Again { why: why.to_owned(), retry: None },
        }
    }
}

/// The same place or an earlier one of the same log.
fn is_repeat(before: Position, pos: Position) -> bool {
    let place = |pos: Position| -> (u32, Offset) { (pos.partition, pos.offset) };
    before.epoch == pos.epoch && place(pos) <= place(before)
}

fn notes_of_state(object: &Object<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |what: &str, channels: &[String]| {
        if !channels.is_empty() {
            notes.push(format!("{what}: {}", channels.join(" ")));
        }
    };
    note("from now on", &object.fresh);
    note("recovered, nothing lost", &object.recovered);
    for lost in &object.lost {
        note(&format!("lost ({})", lost.reason), std::slice::from_ref(&lost.channel));
    }
    notes
}

/// What a refused upgrade means.
pub(super) fn refusal(response: &Response<Option<Vec<u8>>>) -> Ended {
    #[derive(Deserialize, Default)]
    struct Problem {
        #[serde(default)]
        detail: String,
        #[serde(default)]
        retry_ms: Option<u64>,
    }
    let body = response.body().as_deref().unwrap_or_default();
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let status = response.status();
    let text = format!("{status}: {}", problem.detail);
    let is_final = status.is_client_error()
        && ![StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if is_final {
        let hint = match status {
            StatusCode::UNAUTHORIZED => "; pass --token, or set TIDEGATE_TOKEN",
            _ => "",
        };
        return Ended::Refused { text: format!("{text}{hint}") };
    }
    let seconds =
        response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry = problem.retry_ms.map(Duration::from_millis).or(seconds.map(Duration::from_secs));
    Ended::Again { why: text, retry }
}
