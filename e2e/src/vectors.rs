//! Runs `proto/vectors/` against a server: see the README there, which says what a case means.

mod deliver;
mod refuse;

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

pub use deliver::{run_bad_cursors, run_deliveries};
pub use refuse::{run_messages, run_publish_refusals, run_refusals};

use crate::follow::Transport;

/// A file of vectors.
///
/// # Panics
/// When it is not there or no JSON.
#[must_use]
pub fn load(name: &str) -> Value {
    let path = format!("{}/../proto/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn cases(file: &Value) -> &Vec<Value> {
    file["cases"].as_array().expect("cases")
}

fn name_of(case: &Value) -> &str {
    case["name"].as_str().expect("a name")
}

/// The transports of a case.
fn transports(case: &Value) -> Vec<Transport> {
    let is_named = |transport: &Transport| match case["only"].as_array() {
        Some(only) => only.iter().any(|name| name == transport.name()),
        None => true,
    };
    Transport::ALL.into_iter().filter(is_named).collect()
}

/// `$x40` is forty times x; so for `A`, `[` and `]`.
fn expand_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let letter = after.chars().next().filter(|letter| "xA[]".contains(*letter));
        let digits: String = after.chars().skip(1).take_while(char::is_ascii_digit).collect();
        match (letter, digits.parse::<usize>()) {
            (Some(letter), Ok(count)) => {
                out.extend(std::iter::repeat_n(letter, count));
                rest = &after[1 + digits.len()..];
            }
            _ => {
                out.push('$');
                rest = after;
            }
        }
    }
    out + rest
}

/// Every text expanded.
fn expand(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(expand_text(text)),
        Value::Array(items) => items.iter().map(expand).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), expand(value))).collect(),
        other => other.clone(),
    }
}

/// `{"repeat": n, …}` as n values, in which `"$n"` is a number.
fn repeated(list: &Value) -> Vec<Value> {
    let mut out = Vec::new();
    for item in list.as_array().into_iter().flatten() {
        let Some(count) = item["repeat"].as_u64() else {
            out.push(expand(item));
            continue;
        };
        for n in 0..count {
            let mut members = item.as_object().expect("an object").clone();
            members.remove("repeat");
            for value in members.values_mut().filter(|value| *value == "$n") {
                *value = n.into();
            }
            out.push(Value::Object(members));
        }
    }
    out
}

/// A channel's name, unique to a case.
fn unique(channel: &str, prefix: &str) -> String {
    match channel.strip_prefix("user:") {
        Some(user) => format!("user:{prefix}.{user}"),
        None if channel == "everyone" => channel.to_owned(),
        None => format!("{prefix}.{channel}"),
    }
}

/// The text of a publish's body, with unique names and `data_text` as it is.
fn publish_body(body: &Value, prefix: &str) -> String {
    let mut members: Map<String, Value> = body.as_object().expect("an object").clone();
    for (name, value) in &mut members {
        match (name.as_str(), &mut *value) {
            ("channel", Value::String(channel)) => *channel = unique(channel, prefix),
            ("user" | "idempotency_key", Value::String(text)) => *text = format!("{prefix}.{text}"),
            ("channels", Value::Array(channels)) => {
                for channel in channels {
                    *channel = unique(channel.as_str().expect("a name"), prefix).into();
                }
            }
            _ => {}
        }
    }
    if members.get("ephemeral") != Some(&Value::Bool(true)) && !members.contains_key("idempotency_key") {
        // Acked is then dealt with: without a key it may still be on its way from the log when a case goes on.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let key = format!("{prefix}-own-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        members.insert("idempotency_key".to_owned(), key.into());
    }
    let data = members.remove("data_text");
    let mut text = Value::Object(members).to_string();
    if let Some(data) = data {
        text.pop();
        text.push_str(&format!(",\"data\":{}}}", data.as_str().expect("a text")));
    }
    text
}
