//! What must hold of a configuration beyond the type of each value.

mod cluster;
mod origins;
mod registry;
mod tls;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_eventlog::embedded::RetentionMs;
use tidegate_gateway::{
    AdmissionConfig, AuthConfig, DrainConfig, GatewayConfig, MemorySource, PresenceConfig, Secret, SlowConfig,
};
use tidegate_history::Retention;
use tidegate_vocab::{Channel, PartitionCounts, limits};
use tracing_subscriber::EnvFilter;

use crate::config::keys::{self, Raw};
use crate::config::source::Sources;
use crate::config::value::{Size, show_duration};
use crate::config::{Config, ConfigError, HistoryConfig, LogConfig, LoggingConfig, Profile, millis};

/// Bytes of an HMAC key: what HS256 puts out, as RFC 7518 section 3.2 asks.
const HMAC_SECRET_BYTES_MIN: usize = 32;
/// Characters of an API key.
const API_KEY_CHARACTERS: RangeInclusive<usize> = 16..=256;
/// The namespace of the users' own channels.
const USER_NAMESPACE: &str = "user";
/// Shortest time after which a quiet connection is sent its cursor.
const CURSOR_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Checks everything and builds the typed form.
///
/// # Errors
/// All violations at once.
pub(crate) fn validate(
    raw: &Raw,
    sources: &Sources,
    source_of: impl Fn(&str) -> String,
) -> Result<Config, Vec<ConfigError>> {
    let mut check = Check { errors: Vec::new() };
    check.ranges(raw);
    check.addresses(raw, sources);
    let hmac_secret = check.hmac_secret(&raw.auth);
    if matches!(sources.profile, Profile::Dev | Profile::Gateway) {
        check.entrance(&raw.auth);
    }
    check.origins(&raw.cors.allowed_origins);
    check.api_keys(raw);
    let history = check.history(raw);
    check.logging(&raw.logging.level);
    let data_dir = check.data_dir(&raw.store.data_dir, sources);
    let (kafka, cluster) = (check.kafka(raw, sources.profile), check.cluster(raw, sources));
    let registry = check.registry(raw, sources);
    let tls = check.tls(raw, sources.profile);
    let (name, presence) = (check.name(raw, sources), check.presence(raw));
    if !check.errors.is_empty() {
        let said = |error: ConfigError| {
            let source = source_of(&error.at);
            error.said_by(&source)
        };
        return Err(check.errors.into_iter().map(said).collect());
    }
    Ok(Config {
        role: sources.profile,
        gateway: GatewayConfig { name, presence, tls, ..gateway(raw, hmac_secret, &history) },
        api: raw.server.api,
        api_keys: raw.api.keys.iter().map(|key| Secret::new(key.expose())).collect(),
        admin: raw.server.admin,
        data_dir,
        cache_bytes: raw.store.cache_size.0,
        log: LogConfig {
            counts: PartitionCounts::same(raw.log.partitions),
            retention: RetentionMs {
                events: millis(raw.log.retention_events),
                inbox: millis(raw.log.retention_inbox),
                upstream: millis(raw.log.retention_upstream),
                control: millis(raw.log.retention_control),
                dead: millis(raw.log.retention_dead),
                presence: millis(raw.log.retention_presence),
            },
            epoch_salt: raw.log.epoch_salt.clone(),
            disk_reserve_bytes: raw.log.disk_reserve.0,
        },
        kafka,
        cluster,
        registry,
        otlp_endpoint: Some(raw.telemetry.otlp_endpoint.clone()).filter(|endpoint| !endpoint.is_empty()),
        history,
        logging: LoggingConfig { level: raw.logging.level.clone(), format: raw.logging.format },
    })
}

fn gateway(raw: &Raw, hmac_secret: Option<Secret>, history: &HistoryConfig) -> GatewayConfig {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let none_if_empty = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    GatewayConfig {
        public: raw.server.public,
        tls: None,
        shards: if raw.server.shards == 0 { cores } else { raw.server.shards as usize },
        ping_interval: raw.limits.ping_interval,
        sse_retry: raw.limits.sse_retry,
        connections_limit: raw.limits.connections as usize,
        channels_limit: raw.limits.channels as usize,
        outbox_bytes_limit: as_usize(raw.limits.outbox_size),
        outbox_age_limit: raw.limits.outbox_age,
        message_bytes_limit: as_usize(raw.limits.message_size),
        slow_consumers: slow_consumers(raw),
        admission: AdmissionConfig {
            accept_rate: raw.limits.accept_rate,
            address_limit: raw.limits.connections_per_address,
            user_limit: raw.limits.connections_per_user,
            memory: match raw.limits.memory.0 {
                0 => MemorySource::ControlGroup,
                bytes => MemorySource::Process(bytes),
            },
        },
        head_timeout: raw.limits.head_timeout,
        cursor_interval: cursor_interval(history),
        auth: AuthConfig {
            hmac_secret,
            issuer: none_if_empty(&raw.auth.issuer),
            audience: none_if_empty(&raw.auth.audience),
            anonymous: raw.auth.anonymous,
            insecure: raw.auth.insecure,
        },
        allowed_origins: raw.cors.allowed_origins.clone(),
        drain: DrainConfig {
            wait: raw.drain.wait,
            window: raw.drain.window,
            retry_window: raw.drain.retry_window,
        },
        demo_page: raw.server.demo_page,
        registry: None,
        name: String::new(),
        presence: PresenceConfig::default(),
    }
}

/// Namespaces are checked with their history.
fn slow_consumers(raw: &Raw) -> SlowConfig {
    let named =
        |(name, namespace): &(String, keys::Namespace)| Some((name.clone(), namespace.slow_consumers?));
    SlowConfig {
        default: raw.limits.slow_consumers,
        namespaces: raw.namespaces.iter().filter_map(named).collect(),
    }
}

/// A quarter of the shortest time that anything is kept.
fn cursor_interval(history: &HistoryConfig) -> Duration {
    let all = history.namespaces.values().chain([&history.default]);
    let kept = all.filter(|retention| retention.rows > 0 && retention.age_ms > 0);
    let shortest_ms = kept.map(|retention| retention.age_ms).min().unwrap_or(u64::MAX);
    let day = Duration::from_secs(24 * 60 * 60);
    Duration::from_millis(shortest_ms / 4).clamp(CURSOR_INTERVAL_MIN, day)
}

fn as_usize(size: Size) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

/// Collects what is wrong.
struct Check {
    errors: Vec<ConfigError>,
}

impl Check {
    fn refuse(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.errors.push(ConfigError::new(key, text.into()));
    }

    fn range<T: PartialOrd>(
        &mut self,
        key: &str,
        value: &T,
        allowed: RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) {
        if !allowed.contains(value) {
            let (least, most) = (show(allowed.start()), show(allowed.end()));
            self.refuse(key, format!("{} is out of range: set it from {least} to {most}", show(value)));
        }
    }

    fn ranges(&mut self, raw: &Raw) {
        fn plain<T: Display>(value: &T) -> String {
            value.to_string()
        }
        let seconds = |from: u64, to: u64| Duration::from_secs(from)..=Duration::from_secs(to);
        let time = |duration: &Duration| show_duration(*duration);
        let size = |from: usize, to: usize| Size(from as u64)..=Size(to as u64);
        let hour = 60 * 60;
        let mib = 1024 * 1024;
        self.range("server.shards", &raw.server.shards, 0..=256, plain);
        self.range("limits.connections", &raw.limits.connections, 1..=100_000_000, plain);
        let channels_most = limits::CHANNELS_PER_CONNECTION_LIMIT as u32;
        self.range("limits.channels", &raw.limits.channels, 1..=channels_most, plain);
        let message = size(1, limits::EVENT_BYTES_LIMIT);
        self.range("limits.message_size", &raw.limits.message_size, message, plain);
        let outbox = size(2 * limits::EVENT_BYTES_LIMIT, 1024 * mib);
        self.range("limits.outbox_size", &raw.limits.outbox_size, outbox, plain);
        self.range("limits.outbox_age", &raw.limits.outbox_age, seconds(1, hour), time);
        if raw.limits.memory.0 != 0 {
            self.range("limits.memory", &raw.limits.memory, size(64 * mib, 1024 * 1024 * mib), plain);
        }
        self.range("limits.ping_interval", &raw.limits.ping_interval, seconds(1, 55), time);
        self.range(
            "limits.sse_retry",
            &raw.limits.sse_retry,
            Duration::from_millis(100)..=seconds(1, 60).end().to_owned(),
            time,
        );
        self.range("limits.head_timeout", &raw.limits.head_timeout, seconds(1, 60), time);
        self.range("history.rows", &raw.history.rows, 0..=100_000, plain);
        self.range("inbox.rows", &raw.inbox.rows, 0..=100_000, plain);
        self.range("log.partitions", &raw.log.partitions, 1..=1024, plain);
        let year = seconds(60, 366 * 24 * hour);
        self.range("log.retention_events", &raw.log.retention_events, year.clone(), time);
        self.range("log.retention_inbox", &raw.log.retention_inbox, year.clone(), time);
        self.range("log.retention_upstream", &raw.log.retention_upstream, year.clone(), time);
        self.range("log.retention_control", &raw.log.retention_control, year.clone(), time);
        self.range("log.retention_dead", &raw.log.retention_dead, year.clone(), time);
        self.range("log.retention_presence", &raw.log.retention_presence, year, time);
        let reserve = Size(limits::DISK_RESERVE_BYTES)..=Size(1 << 50);
        self.range("log.disk_reserve", &raw.log.disk_reserve, reserve, plain);
        self.range("store.cache_size", &raw.store.cache_size, size(mib, 1024 * 1024 * mib), plain);
        self.range("drain.wait", &raw.drain.wait, seconds(0, hour), time);
        self.range("drain.window", &raw.drain.window, seconds(0, hour), time);
        self.range("drain.retry_window", &raw.drain.retry_window, seconds(0, hour), time);
    }

    fn hmac_secret(&mut self, auth: &keys::Auth) -> Option<Secret> {
        let (inline, file) = (auth.hmac_secret.expose(), &auth.hmac_secret_file);
        let (key, bytes) = match (inline.is_empty(), file.is_empty()) {
            (true, true) => return None,
            (false, false) => {
                self.refuse(
                    "auth.hmac_secret",
                    "is set together with auth.hmac_secret_file: keep one of them",
                );
                return None;
            }
            (false, true) => ("auth.hmac_secret", inline.as_bytes().to_vec()),
            (true, false) => match std::fs::read(file) {
                Ok(bytes) => ("auth.hmac_secret_file", without_line_break(bytes)),
                Err(error) => {
                    self.refuse("auth.hmac_secret_file", format!("{file} cannot be read: {error}"));
                    return None;
                }
            },
        };
        if bytes.len() < HMAC_SECRET_BYTES_MIN {
            let text = format!(
                "has {} bytes and needs at least {HMAC_SECRET_BYTES_MIN}: make one with `openssl rand -base64 48`",
                bytes.len()
            );
            self.refuse(key, text);
            return None;
        }
        Some(Secret::new(bytes))
    }

    fn entrance(&mut self, auth: &keys::Auth) {
        let has_secret = !auth.hmac_secret.expose().is_empty() || !auth.hmac_secret_file.is_empty();
        if !has_secret && !auth.anonymous && !auth.insecure {
            self.refuse(
                "auth",
                "nobody could connect: set auth.hmac_secret_file, auth.anonymous = true or auth.insecure = true",
            );
        }
    }

    fn api_keys(&mut self, raw: &Raw) {
        for (index, key) in raw.api.keys.iter().enumerate() {
            let key = key.expose();
            let number = index + 1;
            if !API_KEY_CHARACTERS.contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                let (least, most) = (API_KEY_CHARACTERS.start(), API_KEY_CHARACTERS.end());
                let text = format!(
                    "key number {number} is not {least} to {most} visible ASCII characters: make one with `openssl \
                     rand -hex 24`"
                );
                self.refuse("api.keys", text);
            }
        }
    }

    fn history(&mut self, raw: &Raw) -> HistoryConfig {
        let events = ("log.retention_events", raw.log.retention_events);
        self.within("history.age", raw.history.age, events);
        self.within("inbox.age", raw.inbox.age, ("log.retention_inbox", raw.log.retention_inbox));
        let default = Retention { rows: raw.history.rows, age_ms: millis(raw.history.age) };
        let inbox = Retention { rows: raw.inbox.rows, age_ms: millis(raw.inbox.age) };
        let mut namespaces = BTreeMap::from([(USER_NAMESPACE.to_owned(), inbox)]);
        for (name, namespace) in &raw.namespaces {
            let at = format!("namespaces.{name}");
            if name == USER_NAMESPACE {
                self.refuse(at, "is the users' own channels: set inbox.rows and inbox.age instead");
                continue;
            }
            if Channel::parse(&format!("{name}:x")).is_err() || name.is_empty() || name.contains(':') {
                self.refuse(
                    at,
                    "is not a namespace: it is the part of a channel's name before the first `:`",
                );
                continue;
            }
            let age = namespace.history_age.unwrap_or(raw.history.age);
            let rows = namespace.history_rows.unwrap_or(raw.history.rows);
            if namespace.history_age.is_some() {
                self.within(&format!("{at}.history_age"), age, events);
            }
            self.range(&format!("{at}.history_rows"), &rows, 0..=100_000, u32::to_string);
            namespaces.insert(name.clone(), Retention { rows, age_ms: millis(age) });
        }
        HistoryConfig { default, namespaces }
    }

    /// A history longer than the log could not be loaded again.
    fn within(&mut self, key: &str, age: Duration, (retention_key, retention): (&str, Duration)) {
        if age > retention {
            let text = format!(
                "{} is longer than {retention_key} = {}: raise {retention_key}, or lower {key}",
                show_duration(age),
                show_duration(retention)
            );
            self.refuse(key, text);
        }
    }

    fn logging(&mut self, level: &str) {
        if let Err(error) = EnvFilter::builder().parse(level) {
            self.refuse("logging.level", format!("`{level}` is no filter ({error}): try info, or debug"));
        }
    }

    fn data_dir(&mut self, configured: &str, sources: &Sources) -> PathBuf {
        if !configured.is_empty() {
            return configured.into();
        }
        let absolute =
            |name: &str| sources.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base =
            absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        base.map(|base| base.join("tidegate/dev")).unwrap_or_else(|| {
            self.refuse("store.data_dir", "there is neither XDG_DATA_HOME nor HOME: pass --data-dir");
            PathBuf::new()
        })
    }
}

/// A file's last line ends with a line break that is no part of the secret.
fn without_line_break(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last().is_some_and(|byte| *byte == b'\n' || *byte == b'\r') {
        bytes.pop();
    }
    bytes
}
