//! What a router needs to know.

use tidegate_registry::Members;
use tidegate_vocab::{Incarnation, Topic};

/// See the fields; [`RouterConfig::new`] has the defaults.
#[derive(Clone)]
pub struct RouterConfig {
    /// This process start.
    pub incarnation: Incarnation,
    /// Where other routers and nodes reach this one; stands in takeover records. Empty in a single process.
    pub address: String,
    /// Keys of which one has to come as `Authorization: Bearer <key>` on the API port; none: no key is asked for.
    pub api_keys: Vec<String>,
    /// Serve gRPC reflection on the API port.
    pub reflection: bool,
    /// Milliseconds before now at which a new owner without a history of its own begins.
    pub tail_ms: u64,
    /// Milliseconds that the longest-lived channel of the events and of the inbox keeps its history: what is older is not
    /// loaded.
    pub history_ages_ms: [u64; 2],
    /// Milliseconds after which a publish that is not settled is answered as indeterminate.
    pub publish_timeout_ms: u64,
    /// Milliseconds in which a request to the API port must have been answered; streams excepted.
    pub request_timeout_ms: u64,
    /// The registry; without one every attached node is asked for a user, and nobody says who comes and goes.
    pub registry: Option<Members>,
}

impl RouterConfig {
    /// How long a topic's history is of use.
    #[must_use]
    pub fn history_age_ms(&self, topic: Topic) -> u64 {
        self.history_ages_ms[usize::from(topic == Topic::Inbox)]
    }

    /// The defaults: no API keys, reflection, 5 s for a publish, 15 s for a request.
    #[must_use]
    pub fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            address: String::new(),
            api_keys: Vec::new(),
            reflection: true,
            tail_ms: 120_000,
            history_ages_ms: [u64::MAX; 2],
            publish_timeout_ms: 5_000,
            request_timeout_ms: 15_000,
            registry: None,
        }
    }
}

impl std::fmt::Debug for RouterConfig {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouterConfig")
            .field("incarnation", &self.incarnation)
            .field("address", &self.address)
            .field("api_keys", &self.api_keys.len())
            .field("reflection", &self.reflection)
            .field("publish_timeout_ms", &self.publish_timeout_ms)
            .field("request_timeout_ms", &self.request_timeout_ms)
            .finish()
    }
}
