//! The JSON of a publish: fields by name, the data kept as it was written, and errors that say what to write instead.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tidegate_vocab::{ErrorKind, Problem};

use crate::publish::{Data, PublishRequest, Target};

const FIELDS: [&str; 11] = [
    "channel",
    "channels",
    "user",
    "users",
    "everyone",
    "event",
    "data",
    "data_b64",
    "idempotency_key",
    "ttl",
    "ephemeral",
];
/// Field names in error texts are cut to this.
const NAME_CHARS: usize = 64;

/// A request, and whether it named one target in the singular way, so that the answer is one object.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) request: PublishRequest,
    pub(super) single: bool,
}

/// Parses the body of `POST /v1/publish`. `header_key` is what the `Idempotency-Key` header said.
pub(super) fn publish(body: &[u8], header_key: Option<&str>) -> Result<Parsed, Problem> {
    let object: Object = serde_json::from_slice(body).map_err(|error| bad_body(&error))?;
    parse(object, header_key)
}

/// Parses the body of `POST /v1/publish/batch`: one result per item.
pub(super) fn batch(body: &[u8]) -> Result<Vec<Result<Parsed, Problem>>, Problem> {
    let items: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| bad_body(&error))?;
    Ok(items.into_iter().map(|item| publish(item.get().as_bytes(), None)).collect())
}

fn parse(object: Object, header_key: Option<&str>) -> Result<Parsed, Problem> {
    let mut targets = Vec::new();
    let (mut event, mut data, mut key, mut ttl_ms) = (None, None, None, None);
    let (mut ephemeral, mut single) = (false, false);
    for (name, raw) in &object.0 {
        let twice = || Err(bad(format!("field {name:?} comes twice")));
        match name.as_str() {
            "channel" => targets.push(Target::Channel(value(name, raw, "a string")?)),
            "channels" => targets.extend(names(name, raw)?.into_iter().map(Target::Channel)),
            "user" => targets.push(Target::User(value(name, raw, "a string")?)),
            "users" => targets.extend(names(name, raw)?.into_iter().map(Target::User)),
            "everyone" if value(name, raw, "true or false")? => targets.push(Target::Everyone),
            "everyone" => {}
            "event" => event = Some(value(name, raw, "a string")?),
            "data" | "data_b64" if data.is_some() => {
                return Err(bad("give data or data_b64, once".into()));
            }
            "data" => data = Some(Data::Json(Bytes::copy_from_slice(raw.get().as_bytes()))),
            "data_b64" => data = Some(Data::Binary(base64(&value::<String>(name, raw, "a string")?)?)),
            "idempotency_key" => key = Some(value::<String>(name, raw, "a string")?),
            "ttl" => ttl_ms = Some(ttl(raw)?),
            "ephemeral" => ephemeral = value(name, raw, "true or false")?,
            _ => return Err(unknown_field(name)),
        }
        single |= matches!(name.as_str(), "channel" | "user" | "everyone");
        if object.0.iter().filter(|(other, _)| other == name).count() > 1 {
            return twice();
        }
    }
    if let (Some(one), Some(other)) = (&key, header_key)
        && one != other
    {
        return Err(bad("idempotency_key and the Idempotency-Key header differ".into()));
    }
    let data = data.ok_or_else(|| bad("data is missing: give data (any JSON) or data_b64".into()))?;
    let idempotency_key = key.or_else(|| header_key.map(str::to_owned));
    let single = single && targets.len() == 1;
    Ok(Parsed {
        request: PublishRequest { targets, event, data, idempotency_key, ttl_ms, ephemeral, trace: None },
        single,
    })
}

fn bad(detail: String) -> Problem {
    Problem::new(ErrorKind::BadRequest, detail)
}

fn bad_body(error: &serde_json::Error) -> Problem {
    if error.is_data() {
        return bad(format!("body is JSON of another form: {error}"));
    }
    Problem::new(ErrorKind::BadJson, format!("body is not valid JSON: {error}"))
}

fn value<'a, T: Deserialize<'a>>(name: &str, raw: &'a RawValue, form: &str) -> Result<T, Problem> {
    serde_json::from_str(raw.get()).map_err(|_| bad(format!("field {name:?} must be {form}")))
}

fn names(name: &str, raw: &RawValue) -> Result<Vec<String>, Problem> {
    value(name, raw, "an array of strings")
}

/// Standard or URL-safe, with or without padding.
fn base64(text: &str) -> Result<Bytes, Problem> {
    let engines = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
    let decoded = engines.into_iter().find_map(|engine| engine.decode(text).ok());
    decoded.map(Bytes::from).ok_or_else(|| bad("field \"data_b64\" is not base64".into()))
}

/// Milliseconds as a number, or a number with `ms`, `s`, `m`, `h` or `d`.
fn ttl(raw: &RawValue) -> Result<u64, Problem> {
    let wrong = || bad("field \"ttl\" must be milliseconds or a text like \"90s\", \"15m\", \"1h\"".into());
    if let Ok(ms) = serde_json::from_str::<u64>(raw.get()) {
        return Ok(ms);
    }
    let text: String = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit_ms).ok_or_else(wrong)
}

fn unknown_field(name: &str) -> Problem {
    let shown: String = name.chars().take(NAME_CHARS).collect();
    let nearest = FIELDS
        .into_iter()
        .map(|field| (strsim::damerau_levenshtein(&shown, field), field))
        .min()
        .filter(|(distance, field)| *distance <= field.len().div_ceil(2));
    let hint = nearest.map_or_else(
        || format!("known are {}", FIELDS.join(", ")),
        |(_, field)| format!("did you mean {field:?}?"),
    );
    bad(format!("unknown field {shown:?}; {hint}"))
}

/// The members of a JSON object as they were written, in order, repeats included.
struct Object(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object like {\"channel\": …, \"data\": …}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    // One more than there are fields is enough to be refused.
                    if members.len() <= FIELDS.len() {
                        members.push(member);
                    }
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests;
