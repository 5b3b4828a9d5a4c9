//! The layers of the configuration: defaults < TOML file < environment < flags, and which of them said what.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Provider};
use tidegate_gateway::SlowPolicy;

use crate::config::keys::{NAMESPACE, Namespace, SECTIONS};
use crate::config::value::Setting;
use crate::config::{ConfigError, Profile, document, nearest};

/// Environment variables of this prefix are settings; sections and keys follow, with `__` between them.
pub(crate) const ENV_PREFIX: &str = "TIDEGATE__";

/// Where the configuration of this process comes from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Whose defaults count.
    pub profile: Profile,
    /// The TOML file, if one was named.
    pub file: Option<PathBuf>,
    /// The process environment; only variables that begin with `TIDEGATE__`, `XDG_DATA_HOME` and `HOME` are read.
    pub environment: Vec<(OsString, OsString)>,
    /// What flags say; each wins over everything before it.
    pub flags: Vec<Flag>,
    /// `--i-know`: allow what is refused because it is dangerous.
    pub i_know: bool,
    /// The host's name.
    pub host: String,
}

impl Sources {
    /// Defaults and this process's environment only.
    #[must_use]
    pub fn of_process(profile: Profile) -> Self {
        let environment = std::env::vars_os().collect();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { profile, file: None, environment, flags: Vec::new(), i_know: false, host }
    }

    /// The value of a variable that is not a setting.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// A flag that sets one key.
#[derive(Debug, Clone)]
pub struct Flag {
    /// What the user typed, for instance `--public`.
    pub name: String,
    /// The key, for instance `server.public`.
    pub key: String,
    /// The value as text.
    pub value: String,
}

/// All layers merged, with what was wrong with each of them.
pub(crate) struct Layered {
    figment: Figment,
    pub(crate) errors: Vec<ConfigError>,
}

/// Merges the layers; unknown keys and files that do not read are noted and skipped.
pub(crate) fn layer(sources: &Sources) -> Layered {
    let defaults = document::default_values(sources.profile);
    let mut layered =
        Layered { figment: Figment::from(Layer::new("the default", defaults)), errors: Vec::new() };
    if let Some(file) = &sources.file {
        layered.merge_file(file);
    }
    for (name, value) in &sources.environment {
        if let Some(name) = name.to_str().filter(|name| name.starts_with(ENV_PREFIX)) {
            layered.merge_variable(name, value);
        }
    }
    for flag in &sources.flags {
        layered.merge_flag(flag);
    }
    layered
}

impl Layered {
    fn merge_file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self.errors.push(ConfigError::new(name, format!("cannot be read: {error}")));
            }
        };
        match Toml::from_str::<Dict>(&text) {
            Ok(values) => {
                self.errors.extend(unknown_keys(&values, &name));
                self.merge(Layer::new(&name, values));
            }
            Err(error) => {
                // Its own text shows the line, which may hold a secret.
                let start = error.span().map_or(0, |span| span.start);
                let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
                let text = format!("is not TOML, at line {line}: {}", error.message());
                self.errors.push(ConfigError::new(name, text));
            }
        }
    }

    fn merge_variable(&mut self, name: &str, value: &OsString) {
        let path: Vec<String> = name
            .strip_prefix(ENV_PREFIX)
            .unwrap_or_default()
            .split("__")
            .map(str::to_ascii_lowercase)
            .collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        if !is_key(&path) {
            let nearest = variable_of(&nearest::key(&path));
            let text = format!("unknown configuration key; the nearest known one is {nearest}");
            return self.errors.push(ConfigError::new(name, text));
        }
        match value.to_str() {
            Some(text) => self.merge(Layer::new(name, nested(&path, text))),
            None => self.errors.push(ConfigError::new(name, "value is not UTF-8".into())),
        }
    }

    fn merge_flag(&mut self, flag: &Flag) {
        let path: Vec<&str> = flag.key.split('.').collect();
        if is_key(&path) {
            return self.merge(Layer::new(&flag.name, nested(&path, &flag.value)));
        }
        let nearest = nearest::key(&path);
        let text = format!("unknown configuration key `{}`; the nearest known one is `{nearest}`", flag.key);
        self.errors.push(ConfigError::new(&flag.name, text));
    }

    fn merge(&mut self, layer: Layer) {
        let figment = std::mem::take(&mut self.figment);
        self.figment = figment.merge(layer);
    }
}

/// True for `section.key` and `namespaces.NAME.key` of the table.
fn is_key(path: &[&str]) -> bool {
    let has = |section: &crate::config::keys::Section, key: &str| section.keys.iter().any(|k| k.name == key);
    match path {
        [section, key] => SECTIONS.iter().any(|known| known.name == *section && has(known, key)),
        ["namespaces", _, key] => has(&NAMESPACE, key),
        _ => false,
    }
}

/// The environment variable of a key.
pub(crate) fn variable_of(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

fn unknown_keys(values: &Dict, file: &str) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let mut unknown = |path: &[&str]| {
        let nearest = nearest::key(path);
        let text = format!("unknown configuration key; the nearest known one is `{nearest}`");
        errors.push(ConfigError::new(path.join("."), text).said_by(file));
    };
    for (section, value) in values {
        let Some(keys) = value.as_dict() else {
            unknown(&[section]);
            continue;
        };
        if keys.is_empty() && section != "namespaces" && !SECTIONS.iter().any(|known| known.name == section) {
            unknown(&[section]);
        }
        for (key, value) in keys {
            match value.as_dict().filter(|_| section == "namespaces") {
                Some(namespace) => namespace
                    .keys()
                    .map(|inner| ["namespaces", key, inner])
                    .filter(|path| !is_key(path))
                    .for_each(|path| unknown(&path)),
                None if is_key(&[section, key]) => {}
                None => unknown(&[section, key]),
            }
        }
    }
    errors
}

fn nested(path: &[&str], text: &str) -> Dict {
    let value = path
        .iter()
        .rev()
        .fold(Value::from(text), |inner, key| Value::from(BTreeMap::from([((*key).to_owned(), inner)])));
    value.into_dict().unwrap_or_default()
}

/// One layer and its name.
struct Layer {
    name: String,
    values: Dict,
}

impl Layer {
    fn new(name: &str, values: Dict) -> Self {
        Self { name: name.into(), values }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<figment::Profile, Dict>, figment::Error> {
        Ok(Map::from([(figment::Profile::Default, self.values.clone())]))
    }
}

/// Takes typed values out of the merged layers and notes which of them said it.
pub(crate) struct Reader<'a> {
    figment: &'a Figment,
    values: Dict,
    defaults: Dict,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    /// Begins to read.
    pub(crate) fn new(layered: &'a Layered, profile: Profile) -> Self {
        let values = layered.figment.data().ok().and_then(|mut all| all.remove(&figment::Profile::Default));
        Self {
            figment: &layered.figment,
            values: values.unwrap_or_default(),
            defaults: document::default_values(profile),
            errors: Vec::new(),
        }
    }

    /// Reads one key of the table; the default stands in for a value that cannot be read.
    pub(crate) fn get<T: Setting>(&mut self, section: &str, key: &str) -> T {
        let found = self.value(section, key).map(|value| (T::read(value), self.source(value)));
        match found {
            Some((Ok(value), _)) => return value,
            Some((Err(text), source)) => {
                self.errors.push(ConfigError::new(format!("{section}.{key}"), text).said_by(&source));
            }
            None => {} // The section is not a table: noted as an unknown key.
        }
        let default = self.defaults.get(section).and_then(Value::as_dict).and_then(|keys| keys.get(key));
        T::read(default.expect("invariant: every key of the table has a default"))
            .expect("invariant: every default can be read, as a test checks")
    }

    /// Reads `[namespaces.*]`, by name.
    pub(crate) fn namespaces(&mut self) -> Vec<(String, Namespace)> {
        let all = self.values.get("namespaces").and_then(Value::as_dict).cloned().unwrap_or_default();
        let mut namespaces = Vec::new();
        for (name, value) in all {
            let Some(keys) = value.as_dict() else { continue };
            namespaces.push((
                name.clone(),
                Namespace {
                    history_rows: self.optional::<u32>(&name, "history_rows", keys),
                    history_age: self.optional::<Duration>(&name, "history_age", keys),
                    presence: self.optional::<bool>(&name, "presence", keys),
                    slow_consumers: self.optional::<SlowPolicy>(&name, "slow_consumers", keys),
                },
            ));
        }
        namespaces
    }

    fn optional<T: Setting>(&mut self, namespace: &str, key: &str, keys: &Dict) -> Option<T> {
        let value = keys.get(key)?;
        let read = T::read(value);
        if let Err(text) = &read {
            let at = format!("namespaces.{namespace}.{key}");
            let error = ConfigError::new(at, text.clone()).said_by(&self.source(value));
            self.errors.push(error);
        }
        read.ok()
    }

    /// The merged value of a key, whoever said it.
    pub(crate) fn value(&self, section: &str, key: &str) -> Option<&Value> {
        self.values.get(section).and_then(Value::as_dict).and_then(|keys| keys.get(key))
    }

    /// The merged `[namespaces]` table.
    pub(crate) fn namespace_values(&self) -> Option<&Dict> {
        self.values.get("namespaces").and_then(Value::as_dict)
    }

    /// Which layer said it.
    pub(crate) fn source(&self, value: &Value) -> String {
        self.figment.get_metadata(value.tag()).map_or_else(String::new, |metadata| metadata.name.to_string())
    }

    /// Which layer said what a dotted key has.
    pub(crate) fn source_of(&self, key: &str) -> String {
        let (first, rest) = key.split_once('.').unwrap_or((key, ""));
        let value = match rest.rsplit_once('.') {
            Some((namespace, key)) if first == "namespaces" => self
                .namespace_values()
                .and_then(|all| all.get(namespace))
                .and_then(Value::as_dict)
                .and_then(|keys| keys.get(key)),
            _ => self.value(first, rest),
        };
        value.map_or_else(String::new, |value| self.source(value))
    }

    /// Ends reading.
    pub(crate) fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }
}
