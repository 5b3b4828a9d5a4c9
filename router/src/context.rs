//! What every task of a router shares.

use std::sync::Arc;

use tidegate_eventlog::EventLog;
use tidegate_history::HistoryStore;

use crate::clock::Clock;
use crate::config::RouterConfig;
use crate::dead_letters::DeadLetters;
use crate::metrics::Metrics;

/// See the module.
pub(crate) struct Context {
    pub(crate) config: RouterConfig,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) store: Arc<HistoryStore>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) dead_letters: DeadLetters,
}
