//! What a gateway is told: validated values only. The raw form, its defaults and their documentation live with the
//! `tidegate` command.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_registry::Members;
use tidegate_vocab::Channel;

use crate::tls::TlsFiles;

/// Settings of one gateway.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Where clients connect. Port 0 takes a free one.
    pub public: SocketAddr,
    /// Certificate and key, if clients connect by TLS; there is no plain port beside it then.
    pub tls: Option<TlsFiles>,
    /// How many shards: each is a thread with a listener of its own. At least 1.
    pub shards: usize,
    /// Quiet time after which a connection is pinged.
    pub ping_interval: Duration,
    /// The `retry:` with which every SSE stream starts.
    pub sse_retry: Duration,
    /// Connections beyond which new ones are refused; the file limit lowers it further.
    pub connections_limit: usize,
    /// Channels that one connection may name.
    pub channels_limit: usize,
    /// Bytes that may wait for one slow socket.
    pub outbox_bytes_limit: usize,
    /// Time that the oldest byte may wait for a slow socket.
    pub outbox_age_limit: Duration,
    /// What a client loses that reads too slowly.
    pub slow_consumers: SlowConfig,
    /// How many may come, and what all together may use.
    pub admission: AdmissionConfig,
    /// Bytes of one client message.
    pub message_bytes_limit: usize,
    /// Time in which a request's head must have arrived, and before it a TLS handshake be over.
    pub head_timeout: Duration,
    /// A quiet connection is sent its cursor at least this often: a quarter of the shortest retention.
    pub cursor_interval: Duration,
    /// Who may connect.
    pub auth: AuthConfig,
    /// Origins of web pages that may connect, `scheme://host[:port]`; `:*` allows any port.
    pub allowed_origins: Vec<String>,
    /// How a drain is paced.
    pub drain: DrainConfig,
    /// Serve the demonstration page at `/` (the client library is served always).
    pub demo_page: bool,
    /// The registry to announce users to, if there is one.
    pub registry: Option<Members>,
    /// What operators call this node: mostly the name of its pod or host.
    pub name: String,
    /// Of which channels it is announced how many connections follow them.
    pub presence: PresenceConfig,
}

/// Of which channels it is known who is there. Users always are.
#[derive(Debug, Clone, Default)]
pub struct PresenceConfig {
    /// Of all namespaces that are not named.
    pub default: bool,
    /// By namespace.
    pub namespaces: BTreeMap<String, bool>,
}

/// What becomes of a channel's events for a client that reads too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlowPolicy {
    /// The client is disconnected and comes back with its cursor: nothing is lost.
    #[default]
    Disconnect,
    /// Only the latest waits; a `gap` tells of the others.
    Conflate,
    /// The oldest go; a `gap` tells of them.
    DropOldest,
}

impl SlowPolicy {
    /// The name in settings and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Conflate => "conflate",
            Self::DropOldest => "drop_oldest",
        }
    }
}

/// Slow consumers, by namespace.
#[derive(Debug, Clone, Default)]
pub struct SlowConfig {
    /// Of all namespaces that are not named.
    pub default: SlowPolicy,
    /// By namespace.
    pub namespaces: BTreeMap<String, SlowPolicy>,
}

impl SlowConfig {
    /// The policy of a channel. What is for one user, or for all, is never left out.
    pub(crate) fn of(&self, channel: &Channel) -> SlowPolicy {
        if channel.is_reserved() || channel.is_user() {
            return SlowPolicy::Disconnect;
        }
        self.namespaces.get(channel.namespace()).copied().unwrap_or(self.default)
    }

    /// True when no channel may lose anything.
    pub(crate) fn all_disconnect(&self) -> bool {
        self.default == SlowPolicy::Disconnect
            && self.namespaces.values().all(|policy| *policy == SlowPolicy::Disconnect)
    }
}

/// How many may come, and what all together may use.
#[derive(Debug, Clone, Default)]
pub struct AdmissionConfig {
    /// Sockets accepted a second by each shard; more wait in the listen queue. 0 for no limit.
    pub accept_rate: u32,
    /// Open sockets of one address (of an IPv6 /64). 0 for no limit.
    pub address_limit: u32,
    /// Open connections of one user on this node. 0 for no limit.
    pub user_limit: u32,
    /// The memory that the overload ladder is measured against.
    pub memory: MemorySource,
}

/// The memory that the overload ladder is measured against.
#[derive(Clone, Default)]
pub enum MemorySource {
    /// The limit of the process's control group, if it has one.
    #[default]
    ControlGroup,
    /// The process's own anonymous memory against so many bytes.
    Process(u64),
    /// Used bytes and the limit, as a test says.
    Told(Arc<dyn Fn() -> (u64, u64) + Send + Sync>),
}

impl std::fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ControlGroup => f.write_str("ControlGroup"),
            Self::Process(bytes) => f.debug_tuple("Process").field(bytes).finish(),
            Self::Told(_) => f.write_str("Told"),
        }
    }
}

/// Who may connect.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// Key of HS256 tokens, at least 32 bytes; without one no token is valid.
    pub hmac_secret: Option<Secret>,
    /// Required `iss`, if any.
    pub issuer: Option<String>,
    /// Required `aud`, if any.
    pub audience: Option<String>,
    /// Connections without a token are let in, without a user.
    pub anonymous: bool,
    /// `?user=` names the user without any proof.
    pub insecure: bool,
}

/// How a drain is paced.
#[derive(Debug, Clone)]
pub struct DrainConfig {
    /// Time between not being ready and closing the first connection: load balancers stop sending.
    pub wait: Duration,
    /// Time over which all connections are closed, in even slices.
    pub window: Duration,
    /// Each client is told to come back within this time, at random.
    pub retry_window: Duration,
}

/// A secret that no log and no error shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for cryptography only.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}
