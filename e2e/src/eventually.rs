//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// How long anything may take before a test fails: far more than it takes, for machines are slow sometimes.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a connection is watched when nothing must come.
pub const QUIET: Duration = Duration::from_millis(60);
/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// Looks at `condition` until it gives something.
///
/// # Panics
/// With `what`, when it does not within [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let mut tries = Tries::new();
    loop {
        tries.next(what).await;
        if let Some(found) = condition().await {
            return found;
        }
    }
}

/// The tries of [`eventually`], for tasks that cannot hand over a closure.
pub(crate) struct Tries {
    begun: Instant,
    patience: Duration,
    looks: tokio::time::Interval,
}

impl Tries {
    pub(crate) fn new() -> Self {
        Self::within(PATIENCE)
    }

    pub(crate) fn within(patience: Duration) -> Self {
        let mut looks = tokio::time::interval(INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { begun: Instant::now(), patience, looks }
    }

    /// Waits for the next try.
    ///
    /// # Panics
    /// With `what`, once the patience is over.
    pub(crate) async fn next(&mut self, what: &str) {
        assert!(self.begun.elapsed() < self.patience, "not within {:?}: {what}", self.patience);
        self.looks.tick().await;
    }
}
