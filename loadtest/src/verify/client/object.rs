//! What a gateway says, as it said it.

use serde::Deserialize;

/// One object of a stream, or of a poll's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) kind: String,
    pub(super) channel: String,
    pub(super) key: Option<String>,
    pub(super) pos: Option<String>,
    /// The cursor that came with it.
    pub(super) cursor: Option<String>,
    pub(super) recovered: Vec<String>,
    pub(super) fresh: Vec<String>,
    pub(super) lost: Vec<String>,
    pub(super) pending: Vec<String>,
    pub(super) code: u64,
    pub(super) reason: String,
}

/// The members that matter; the vectors in `proto/vectors/` say what else there may be.
#[derive(Deserialize)]
struct Members {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    channel: String,
    data: Option<Data>,
    pos: Option<String>,
    id: Option<String>,
    cursor: Option<String>,
    #[serde(default)]
    recovered: Vec<String>,
    #[serde(default)]
    fresh: Vec<String>,
    #[serde(default)]
    lost: Vec<Lost>,
    #[serde(default)]
    pending: Vec<String>,
    #[serde(default)]
    code: u64,
    #[serde(default)]
    reason: String,
}

/// Our own data; that of others has no key.
#[derive(Deserialize)]
#[serde(untagged)]
enum Data {
    Ours { key: String },
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Lost {
    channel: String,
}

/// The answer to a poll.
#[derive(Deserialize)]
struct Answer {
    events: Vec<Members>,
    #[serde(flatten)]
    state: Members,
}

impl Object {
    /// Reads a text; `id` is the cursor where the transport has it outside.
    pub(super) fn parse(text: &str, id: Option<String>) -> Result<Self, String> {
        let members: Members =
            serde_json::from_str(text).map_err(|error| format!("no object: {error}: {text}"))?;
        Ok(Self::of(members, id))
    }

    /// The state and the events of a poll's answer, whose cursor is behind its events.
    pub(super) fn parse_answer(text: &[u8]) -> Result<(Self, Vec<Self>), String> {
        let answer: Answer = serde_json::from_slice(text).map_err(|error| format!("no answer: {error}"))?;
        let state = Members { kind: "state".to_owned(), ..answer.state };
        Ok((Self::of(state, None), answer.events.into_iter().map(|event| Self::of(event, None)).collect()))
    }

    fn of(members: Members, id: Option<String>) -> Self {
        let key = match members.data {
            Some(Data::Ours { key }) => Some(key),
            Some(Data::Other(_)) | None => None,
        };
        Self {
            kind: members.kind,
            channel: members.channel,
            key,
            pos: members.pos,
            cursor: id.or(members.id).or(members.cursor),
            recovered: members.recovered,
            fresh: members.fresh,
            lost: members.lost.into_iter().map(|lost| lost.channel).collect(),
            pending: members.pending,
            code: members.code,
            reason: members.reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_a_state_and_an_answer_are_read() {
        let event = r#"{"type":"event","channel":"a","event":"message","data":{"key":"k"},"time":1,"pos":"e.0.7","id":"c"}"#;
        let event = Object::parse(event, None).expect("an event");
        assert_eq!(
            (event.key.as_deref(), event.pos.as_deref(), event.cursor.as_deref()),
            (Some("k"), Some("e.0.7"), Some("c"))
        );
        let state = r#"{"type":"state","cursor":"c","recovered":["a"],"lost":[{"channel":"b","reason":"expired"}],"fresh":[]}"#;
        let state = Object::parse(state, None).expect("a state");
        assert_eq!((state.recovered, state.lost), (vec!["a".to_owned()], vec!["b".to_owned()]));
        let answer = r#"{"events":[{"type":"event","channel":"a","data":5,"pos":"e.0.7"}],"cursor":"c","recovered":[],"lost":[],"fresh":["a"]}"#;
        let (state, events) = Object::parse_answer(answer.as_bytes()).expect("an answer");
        assert_eq!((state.kind.as_str(), state.cursor.as_deref(), events.len()), ("state", Some("c"), 1));
        assert_eq!((events[0].key.as_deref(), events[0].pos.as_deref()), (None, Some("e.0.7")));
    }
}
