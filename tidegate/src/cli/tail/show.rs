//! An event as one line for people.

use tidegate_vocab::Position;

use crate::cli::tail::follow::Object;

/// `12:34:56.789 score:42 goal 7:42 {"home":1}`; times are UTC, an ephemeral event has `-` for its place.
pub(super) fn event(object: &Object<'_>, pos: Option<Position>) -> String {
    let place = pos.map_or_else(|| "-".into(), |pos| format!("{}:{}", pos.partition, pos.offset));
    let data = match (object.data, &object.data_b64) {
        (Some(json), _) => harmless(json.get()),
        (None, Some(base64)) => format!("base64:{base64}"),
        (None, None) => String::new(),
    };
    let (channel, name) = (harmless(&object.channel), harmless(&object.event));
    format!("{} {channel} {name} {place} {data}", time_of_day(object.time))
}

/// Text of others must not steer a terminal: control characters are escaped as in JSON.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => shown.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => shown.push(character),
        }
    }
    shown
}

fn time_of_day(time_ms: u64) -> String {
    let seconds = time_ms / 1000;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", seconds % 60, time_ms % 1000)
}
