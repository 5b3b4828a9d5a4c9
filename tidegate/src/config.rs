//! The configuration: layers of raw values, then one validated form that the rest of the program uses.
//!
//! Owns every default and its documentation: the table in `keys.rs`. All errors of a configuration are reported at
//! once, each with who said the value. Secrets are never part of an error, of `Debug` or of what is printed.

mod document;
mod keys;
pub(crate) mod members;
mod nearest;
mod source;
#[cfg(test)]
mod tests;
mod validate;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_eventlog::embedded::RetentionMs;
use tidegate_gateway::{DrainConfig, GatewayConfig, Secret};
use tidegate_history::Retention;
use tidegate_vocab::PartitionCounts;

pub use document::{defaults_toml, reference};
pub use members::RegistryConfig;
pub use source::{Flag, Sources};
pub use value::LogFormat;
pub(crate) use value::parse_duration;

/// Whose defaults count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// `tidegate dev`: one process on a laptop.
    Dev,
    /// The separate roles, whichever.
    Cluster,
    /// `tidegate gateway`: holds connections.
    Gateway,
    /// `tidegate router`: owns partitions and serves backends.
    Router,
    /// `tidegate registry`: knows where users are.
    Registry,
}

impl Profile {
    /// Whether clients connect to it.
    #[must_use]
    pub fn has_gateway(self) -> bool {
        matches!(self, Self::Dev | Self::Gateway)
    }

    /// Whether backends publish to it.
    #[must_use]
    pub fn has_router(self) -> bool {
        matches!(self, Self::Dev | Self::Router)
    }
}

/// What the process was told: validated values only.
#[derive(Debug, Clone)]
pub struct Config {
    /// What this process is.
    pub role: Profile,
    /// The gateway's settings.
    pub gateway: GatewayConfig,
    /// Where backends publish.
    pub api: SocketAddr,
    /// Keys of which backends show one; none lets everybody in.
    pub api_keys: Vec<Secret>,
    /// Health and metrics.
    pub admin: SocketAddr,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Memory for blocks read from disk.
    pub cache_bytes: u64,
    /// The event log.
    pub log: LogConfig,
    /// Kafka, for those who speak it.
    pub kafka: KafkaConfig,
    /// The other processes of the cluster.
    pub cluster: ClusterConfig,
    /// The registry.
    pub registry: RegistryConfig,
    /// What is kept for those who come back.
    pub history: HistoryConfig,
    /// A collector's OTLP endpoint, if spans are exported.
    pub otlp_endpoint: Option<String>,
    /// What goes to standard error.
    pub logging: LoggingConfig,
}

impl Config {
    /// How a drain is paced.
    #[must_use]
    pub fn drain(&self) -> &DrainConfig {
        &self.gateway.drain
    }
}

/// The event log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Partitions of each topic.
    pub counts: PartitionCounts,
    /// How long each topic keeps its records.
    pub retention: RetentionMs,
    /// The operator's part of the log epoch.
    pub epoch_salt: String,
    /// Free bytes below which publishes are refused.
    pub disk_reserve_bytes: u64,
}

/// Kafka as the event log.
#[derive(Debug, Clone, Default)]
pub struct KafkaConfig {
    /// Brokers to begin with, `host:port`.
    pub bootstrap: Vec<String>,
    /// What the names of the topics begin with.
    pub topic_prefix: String,
    /// The routers' consumer group.
    pub group: String,
    /// Copies of each partition.
    pub replication: u32,
    /// Copies without which nothing is acked.
    pub min_insync: u32,
    /// Further properties of librdkafka.
    pub properties: BTreeMap<String, String>,
}

/// The other processes of the cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Where routers are reached by gateways and by each other, `host:port`.
    pub routers: Vec<String>,
    /// Where this router serves them.
    pub listen: SocketAddr,
    /// What it tells others to be reached at.
    pub advertise: String,
    /// What they show each other, if anything.
    pub key: Option<Secret>,
}

/// What is kept for those who come back.
#[derive(Debug, Clone)]
pub struct HistoryConfig {
    /// Of namespaces that are not named.
    pub default: Retention,
    /// Of the namespaces that are, the users' own channels among them.
    pub namespaces: BTreeMap<String, Retention>,
}

impl HistoryConfig {
    /// The retention of one namespace.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Retention {
        self.namespaces.get(namespace).copied().unwrap_or(self.default)
    }
}

/// What goes to standard error.
#[derive(Debug, Clone)]
pub struct LoggingConfig {
    /// Directives of `tracing-subscriber`'s filter, known to be well-formed.
    pub level: String,
    /// How lines are written.
    pub format: LogFormat,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, the environment variable, the flag or the file.
    pub at: String,
    /// What is wrong and what to do.
    pub text: String,
    /// Who said it, if that is not `at` itself.
    pub source: Option<String>,
}

impl ConfigError {
    fn new(at: impl Into<String>, text: String) -> Self {
        Self { at: at.into(), text, source: None }
    }

    fn said_by(mut self, source: &str) -> Self {
        self.source = Some(source.into()).filter(|source: &String| !source.is_empty());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{} (from {source}): {}", self.at, self.text),
            None => write!(f, "{}: {}", self.at, self.text),
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "configuration: {one}"),
            all => {
                write!(f, "configuration has {} errors:", all.len())?;
                all.iter().try_for_each(|error| write!(f, "\n  {error}"))
            }
        }
    }
}

/// A configuration that holds, and how to show it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The validated form.
    pub config: Config,
    /// What is in effect as TOML, with who said it and without secrets.
    pub effective: String,
}

/// Reads all layers and validates what they say together.
///
/// # Errors
/// Reports everything that is wrong at once.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let layered = source::layer(sources);
    let mut reader = source::Reader::new(&layered, sources.profile);
    let raw = keys::Raw::read(&mut reader);
    let effective = document::effective(&reader);
    let validated = validate::validate(&raw, sources, |key| reader.source_of(key));
    let mut errors = layered.errors.clone();
    errors.extend(reader.into_errors());
    match validated {
        Ok(config) if errors.is_empty() => Ok(Loaded { config, effective }),
        Ok(_) => Err(ConfigErrors(errors)),
        Err(more) => {
            // A value that could not be read has its default meanwhile: say one thing about a key.
            errors.extend(
                more.into_iter()
                    .filter(|error| !errors.iter().any(|known| known.at == error.at))
                    .collect::<Vec<_>>(),
            );
            Err(ConfigErrors(errors))
        }
    }
}

/// Milliseconds as the log and the history count them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
