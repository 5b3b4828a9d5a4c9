//! What a gateway is told: validated values only. The raw form, its defaults and their documentation live with the
//! `tidegate` command.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tidegate_registry::Members;

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
