//! The configuration in words: all defaults as TOML, the reference page, and what is in effect.

use std::fmt::Write as _;

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Value};

use crate::config::Profile;
use crate::config::keys::{Key, NAMESPACE, SECTIONS, Section};
use crate::config::source::{Reader, variable_of};
use crate::config::value::whole;

/// Columns of the comments in a generated TOML file.
const COMMENT_COLUMNS: usize = 100;

impl Key {
    /// The default of this profile as TOML.
    fn default_of(&self, profile: Profile) -> &'static str {
        match profile {
            Profile::Dev => self.dev_default.unwrap_or(self.default),
            Profile::Cluster | Profile::Gateway | Profile::Router | Profile::Registry => self.default,
        }
    }
}

/// All defaults, as the lowest layer.
pub(crate) fn default_values(profile: Profile) -> Dict {
    let mut text = String::new();
    for section in SECTIONS {
        let _ = writeln!(text, "[{}]", section.name);
        for key in section.keys {
            let _ = writeln!(text, "{} = {}", key.name, key.default_of(profile));
        }
    }
    Toml::from_str(&text).expect("invariant: the table of defaults is TOML, as a test checks")
}

/// A TOML file that says nothing but the defaults, with what each key means.
#[must_use]
pub fn defaults_toml(profile: Profile) -> String {
    let mut text = format!(
        "# All settings of Tidegate with their defaults ({}).\n# Keep only what you change. The environment and \
         flags win over this file:\n# {} sets server.public.\n",
        match profile {
            Profile::Dev => "those of `tidegate dev`",
            Profile::Cluster | Profile::Gateway | Profile::Router | Profile::Registry =>
                "those of the separate roles",
        },
        variable_of("server.public"),
    );
    for section in SECTIONS {
        comment(&mut text, "\n# ", section.doc);
        let _ = writeln!(text, "[{}]", section.name);
        for key in section.keys {
            comment(&mut text, "# ", key.doc);
            comment(&mut text, "# ", &format!("Value: {}.", key.form));
            let _ = writeln!(text, "{} = {}", key.name, key.default_of(profile));
        }
    }
    comment(&mut text, "\n# ", NAMESPACE.doc);
    text.push_str("# [namespaces.score]\n# history_rows = 1000\n# history_age = \"15m\"\n");
    text
}

/// Appends words as comment lines of at most [`COMMENT_COLUMNS`].
fn comment(text: &mut String, first: &str, words: &str) {
    text.push_str(first);
    let mut column = 2;
    for word in words.split_whitespace() {
        if column + word.len() + 1 > COMMENT_COLUMNS {
            text.push_str("\n# ");
            column = 2;
        } else if column > 2 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}

/// The reference page `docs/configuration.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(INTRODUCTION);
    for section in SECTIONS.iter().chain([&NAMESPACE]) {
        push_section(&mut text, section);
    }
    text
}

const INTRODUCTION: &str = "# Configuration

Generated from `tidegate/src/config/keys.rs`; a test keeps it so.

A setting is taken from the last of these that names it:

1. the default: `tidegate check-config --defaults` prints all of them as a TOML file,
2. the TOML file given with `--config FILE`,
3. the environment: `TIDEGATE__SECTION__KEY`, for instance `TIDEGATE__SERVER__PUBLIC=0.0.0.0:8000`,
4. flags: `--public`, `--api`, `--admin`, `--data-dir`, and `--set SECTION.KEY=VALUE` for any other.

A key that is not listed here is an error that names the nearest one. All errors of a configuration are reported at
once. `tidegate check-config` shows what is in effect and who said it, without secrets; exit code 0 means that
`tidegate dev` accepts it, 2 that it does not.

Durations are whole numbers with `ms`, `s`, `m`, `h` or `d`; sizes with `B`, `KiB`, `MiB` or `GiB`. Lists are TOML
arrays in the file and separated by commas elsewhere. The name of a namespace is written in lower case in the
environment's keys: `TIDEGATE__NAMESPACES__SCORE__HISTORY_ROWS` is for channels `score:…`.
";

fn push_section(text: &mut String, section: &Section) {
    let _ = write!(
        text,
        "\n## `[{}]`\n\n{}\n\n| key | default | in `dev` | meaning | value |\n|---|---|---|---|---|\n",
        section.name,
        section.doc.trim()
    );
    for key in section.keys {
        let shown = |toml: &str| match toml {
            "\"\"" => "none".to_owned(),
            other => format!("`{other}`"),
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            key.name,
            shown(key.default),
            key.dev_default.map_or_else(String::new, shown),
            key.doc.trim().replace('|', "\\|"),
            key.form
        );
    }
}

/// What is in effect, with who said it. Secrets are left out.
pub(crate) fn effective(reader: &Reader<'_>) -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let _ = writeln!(text, "[{}]", section.name);
        for key in section.keys {
            if let Some(value) = reader.value(section.name, key.name) {
                push_effective(&mut text, key, value, &reader.source(value));
            }
        }
        text.push('\n');
    }
    for (name, value) in reader.namespace_values().into_iter().flatten() {
        let _ = writeln!(text, "[namespaces.{}]", toml_text(&Value::from(name.as_str())));
        for key in NAMESPACE.keys {
            if let Some(value) = value.as_dict().and_then(|keys| keys.get(key.name)) {
                push_effective(&mut text, key, value, &reader.source(value));
            }
        }
        text.push('\n');
    }
    text
}

fn push_effective(text: &mut String, key: &Key, value: &Value, source: &str) {
    let shown = if key.is_secret { redacted(value) } else { toml_text(value) };
    let _ = match source {
        "the default" => writeln!(text, "{} = {shown}", key.name),
        source => writeln!(text, "{} = {shown}  # {source}", key.name),
    };
}

/// Only whether there is a secret.
fn redacted(value: &Value) -> String {
    let is_empty = match value {
        Value::String(_, text) => text.is_empty(),
        Value::Array(_, items) => items.is_empty(),
        _ => false,
    };
    if is_empty { toml_text(value) } else { "\"(redacted)\"".into() }
}

fn toml_text(value: &Value) -> String {
    match value {
        // TOML's basic strings escape as JSON's do.
        Value::String(_, text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, number) => whole(*number).map_or_else(|| "?".into(), |whole| whole.to_string()),
        Value::Array(_, items) => {
            format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", "))
        }
        _ => "?".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_reference_is_generated() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, reference()).expect("docs are writable");
        }
        let written =
            std::fs::read_to_string(path).expect("docs/configuration.md exists: run once with UPDATE_DOCS=1");
        assert_eq!(written, reference(), "run the test once with UPDATE_DOCS=1");
    }

    #[test]
    fn the_printed_defaults_are_toml_and_say_the_defaults() {
        for profile in [Profile::Dev, Profile::Cluster] {
            let text = defaults_toml(profile);
            let read: Dict = Toml::from_str(&text).expect("TOML");
            assert_eq!(read, default_values(profile));
            assert!(text.lines().all(|line| line.chars().count() <= COMMENT_COLUMNS + 10), "{text}");
            for section in SECTIONS {
                for key in section.keys {
                    assert!(!key.doc.trim().is_empty() && key.doc.trim().ends_with('.'), "{}", key.name);
                }
            }
        }
    }
}
