//! How each kind of setting is written: durations, sizes, addresses, counts, lists and secrets.
//!
//! A value comes from TOML with a type of its own, or from the environment and the command line as text: text is
//! read by the same rules, so `TIDEGATE__LOG__PARTITIONS=8` and `partitions = 8` are alike.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use figment::value::{Num, Value};
use tidegate_gateway::SlowPolicy;

/// A type that a setting can have.
pub(crate) trait Setting: Sized {
    /// What a value looks like, for the documentation and for errors.
    const FORM: &'static str;
    /// True when the value is shown to nobody.
    const SECRET: bool = false;

    /// Reads a value; the error says only what is wrong with it.
    fn read(value: &Value) -> Result<Self, String>;
}

/// Bytes, written with a binary unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

/// Text that must never be shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretText(String);

impl SecretText {
    #[cfg(test)]
    pub(crate) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, to be made into a key.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Which of several numbered processes one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordinal {
    /// The host's name says so.
    Auto,
    /// This one.
    Number(u32),
}

impl Setting for Ordinal {
    const FORM: &'static str = "`auto`, or a whole number";

    fn read(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("auto") => Ok(Self::Auto),
            _ => u32::read(value).map(Self::Number).map_err(|_| expected::<Self>(&found(value))),
        }
    }
}

impl Setting for SocketAddr {
    const FORM: &'static str = "address and port, such as `127.0.0.1:8000` or `[::]:8000`";

    fn read(value: &Value) -> Result<Self, String> {
        let text = text_of::<Self>(value)?;
        text.parse().map_err(|_| expected::<Self>(&format!("`{text}`")))
    }
}

impl Setting for bool {
    const FORM: &'static str = "`true` or `false`";

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(_, flag) => Ok(*flag),
            Value::String(_, text) => text.parse().map_err(|_| expected::<Self>(&format!("`{text}`"))),
            other => Err(expected::<Self>(&found(other))),
        }
    }
}

impl Setting for u32 {
    const FORM: &'static str = "whole number";

    fn read(value: &Value) -> Result<Self, String> {
        let number = match value {
            Value::Num(_, number) => whole(*number).and_then(|number| Self::try_from(number).ok()),
            Value::String(_, text) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| expected::<Self>(&found(value)))
    }
}

impl Setting for Duration {
    const FORM: &'static str =
        "duration: a whole number with `ms`, `s`, `m`, `h` or `d`, such as `250ms` or `90s`";

    fn read(value: &Value) -> Result<Self, String> {
        let text = text_of::<Self>(value)?;
        parse_duration(text).ok_or_else(|| expected::<Self>(&format!("`{text}`")))
    }
}

impl Setting for Size {
    const FORM: &'static str = "size: a whole number with `B`, `KiB`, `MiB` or `GiB`, such as `64KiB`";

    fn read(value: &Value) -> Result<Self, String> {
        let text = text_of::<Self>(value)?;
        parse_size(text).ok_or_else(|| expected::<Self>(&format!("`{text}`")))
    }
}

impl Setting for String {
    const FORM: &'static str = "text";

    fn read(value: &Value) -> Result<Self, String> {
        text_of::<Self>(value).map(str::to_owned)
    }
}

impl Setting for SecretText {
    const FORM: &'static str = "text, never shown";
    const SECRET: bool = true;

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(_, text) => Ok(Self(text.clone())),
            // What was found is not named: it may be the secret without its quotes.
            _ => Err("is not text: put it in quotes".into()),
        }
    }
}

impl<T: Setting + ListItem> Setting for Vec<T> {
    const FORM: &'static str = T::LIST_FORM;
    const SECRET: bool = T::SECRET;

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Array(_, items) => items.iter().map(T::read).collect(),
            Value::String(_, text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(|item| T::read(&Value::from(item))).collect()
            }
            other if T::SECRET => Err(format!("is {}, not a list: write [\"…\"]", kind(other))),
            other => Err(expected::<Self>(&found(other))),
        }
    }
}

/// A setting that may stand in a list.
pub(crate) trait ListItem {
    /// What the list looks like.
    const LIST_FORM: &'static str;
}

impl ListItem for String {
    const LIST_FORM: &'static str = "list of texts (in the environment: separated by commas)";
}

impl ListItem for SecretText {
    const LIST_FORM: &'static str = "list of texts, never shown (in the environment: separated by commas)";
}

impl Setting for SlowPolicy {
    const FORM: &'static str = "`disconnect`, `conflate` or `drop_oldest`";

    fn read(value: &Value) -> Result<Self, String> {
        let text = text_of::<Self>(value)?;
        [Self::Disconnect, Self::Conflate, Self::DropOldest]
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| expected::<Self>(&format!("`{text}`")))
    }
}

impl Setting for LogFormat {
    const FORM: &'static str = "`auto`, `json` or `text`";

    fn read(value: &Value) -> Result<Self, String> {
        match text_of::<Self>(value)? {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(expected::<Self>(&format!("`{other}`"))),
        }
    }
}

/// Reads `250ms`, `90s`, `5m`, `24h` or `7d`; 0 needs no unit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == 0 => 1,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

/// Reads `64KiB`, `1MiB`, `2GiB` or `512B`; 0 needs no unit.
fn parse_size(text: &str) -> Option<Size> {
    let (number, unit) = split_unit(text)?;
    let unit_bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" if number == 0 => 1,
        _ => return None,
    };
    number.checked_mul(unit_bytes).map(Size)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

/// The largest unit that gives a whole number: 90 s is `90s`, 7 days are `7d`.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let whole = units.iter().find(|(unit_ms, _)| ms > 0 && ms.is_multiple_of(*unit_ms));
    whole.map_or_else(|| "0s".into(), |(unit_ms, unit)| format!("{}{unit}", ms / unit_ms))
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.iter().find(|(bytes, _)| self.0 > 0 && self.0.is_multiple_of(*bytes)) {
            Some((bytes, unit)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A number without a fraction; figment keeps signed and unsigned ones apart.
pub(crate) fn whole(number: Num) -> Option<i128> {
    number.to_i128().or_else(|| i128::try_from(number.to_u128()?).ok())
}

fn text_of<T: Setting>(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| expected::<T>(&found(value)))
}

fn expected<T: Setting>(found: &str) -> String {
    format!("{found} is not what is expected: {}", T::FORM)
}

fn found(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("`{text}`"),
        Value::Bool(_, flag) => format!("`{flag}`"),
        Value::Num(_, number) => whole(*number).map_or_else(
            || number.to_f64().map_or_else(|| "a number".into(), |float| format!("`{float}`")),
            |whole| format!("`{whole}`"),
        ),
        other => kind(other).into(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(..) => "text",
        Value::Char(..) => "a character",
        Value::Bool(..) => "a boolean",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a section",
        Value::Array(..) => "a list",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_and_written() {
        for (text, ms) in [("250ms", 250), ("90s", 90_000), ("5m", 300_000), ("24h", 86_400_000), ("0", 0)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "90", "s", "1.5s", "-1s", "1 s", "1S", "99999999999999999999d", "213503982335d"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(parse_size(text), Some(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string(), text);
        }
        for bad in ["", "64", "64KB", "64k", "KiB", "99999999999GiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        for text in ["250ms", "90s", "5m", "1h", "7d", "0s"] {
            assert_eq!(parse_duration(text).map(show_duration).as_deref(), Some(text));
        }
    }

    #[test]
    fn wrong_types_are_named() {
        let number = Value::from(8_u32);
        assert_eq!(u32::read(&Value::from("8")), Ok(8));
        assert_eq!(u32::read(&number), Ok(8));
        assert!(u32::read(&Value::from(-1)).is_err_and(|text| text.contains("`-1`")));
        assert!(
            Duration::read(&number).is_err_and(|text| text.contains("`8` is not") && text.contains("90s"))
        );
        assert!(bool::read(&Value::from("yes")).is_err_and(|text| text.contains("`yes`")));
        assert!(SocketAddr::read(&Value::from("localhost")).is_err_and(|text| text.contains("`localhost`")));
        assert_eq!(Vec::<String>::read(&Value::from("a, b,")), Ok(vec!["a".into(), "b".into()]));
        for value in [Value::from(3_u32), Value::from("3")] {
            assert_eq!(Ordinal::read(&value), Ok(Ordinal::Number(3)));
        }
        assert!(Ordinal::read(&Value::from("last")).is_err_and(|text| text.contains("`auto`, or")));
        assert!(LogFormat::read(&Value::from("xml")).is_err_and(|text| text.contains("`xml`")));
    }

    #[test]
    fn a_secret_of_the_wrong_type_is_not_shown() {
        let number = Value::from(424_242_u32);
        for error in [SecretText::read(&number).map(|_| ()), Vec::<SecretText>::read(&number).map(|_| ())] {
            assert!(error.is_err_and(|text| !text.contains("424242")));
        }
        assert!(!format!("{:?}", SecretText::new("canary")).contains("canary"));
    }
}
