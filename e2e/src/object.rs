//! What the server says, as it said it.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

/// One object of a stream or of a poll's answer.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its `type`.
    pub kind: String,
    /// All of it.
    pub value: Value,
    /// The text as it came.
    pub raw: String,
    /// The cursor that came with it.
    pub cursor: Option<String>,
}

/// An event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its channel.
    pub channel: String,
    /// Its own name.
    pub name: String,
    /// Its data as written, if it is JSON.
    pub data: Option<String>,
    /// Its data, if it is not.
    pub data_b64: Option<String>,
    /// When the log took it, in milliseconds.
    pub time: u64,
    /// Its position; none when it is ephemeral.
    pub pos: Option<String>,
    /// The cursor that came with it.
    pub cursor: Option<String>,
}

impl Object {
    /// Reads a text; `id` is the cursor where the transport has it outside.
    ///
    /// # Panics
    /// When it is no object with a type.
    #[must_use]
    pub fn parse(raw: &str, id: Option<String>) -> Self {
        let value: Value = serde_json::from_str(raw).unwrap_or_else(|error| panic!("{error}: {raw}"));
        let kind = value["type"].as_str().unwrap_or_else(|| panic!("no type: {raw}")).to_owned();
        let inside = if kind == "state" { &value["cursor"] } else { &value["id"] };
        let cursor = id.or_else(|| inside.as_str().map(str::to_owned));
        Self { kind, raw: raw.to_owned(), cursor, value }
    }

    /// The event, if it is one.
    ///
    /// # Panics
    /// When it lacks what every event has, or has what none has.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        if self.kind != "event" {
            return None;
        }
        let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&self.raw).expect("an object");
        let known = ["type", "channel", "event", "data", "data_b64", "time", "pos", "id"];
        assert!(members.keys().all(|name| known.contains(&name.as_str())), "{}", self.raw);
        let text = |name: &str| self.value[name].as_str().map(str::to_owned);
        let event = Event {
            channel: text("channel").expect("a channel"),
            name: text("event").expect("a name"),
            data: members.get("data").map(|raw| raw.get().to_owned()),
            data_b64: text("data_b64"),
            time: self.value["time"].as_u64().expect("a time"),
            pos: text("pos"),
            cursor: self.cursor.clone(),
        };
        assert!(event.data.is_some() != event.data_b64.is_some(), "{}", self.raw);
        assert!(event.pos.is_some() || event.cursor.is_none(), "no cursor without a position: {}", self.raw);
        Some(event)
    }
}

impl Event {
    /// The data as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.data.as_deref().expect("JSON data")).expect("JSON")
    }

    /// The offset of its position.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn offset(&self) -> u64 {
        let pos = self.pos.as_deref().expect("a position");
        pos.rsplit('.')
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("no position: {pos}"))
    }
}
