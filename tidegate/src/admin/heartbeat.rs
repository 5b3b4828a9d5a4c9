//! The event loop's pulse: a task beats, another thread looks when it last did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the loop beats.
const INTERVAL: Duration = Duration::from_millis(500);
/// Silence after which the loop counts as stuck: far above any pause that a busy machine explains.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// See the module. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    started: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Heartbeat {
    /// A pulse that has just been felt.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now(), last_ms: Arc::default() }
    }

    /// Beats until dropped.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            self.beat_at(self.started.elapsed());
        }
    }

    /// `Err` says for how long the loop has been silent.
    ///
    /// # Errors
    /// When that is too long.
    pub fn check(&self) -> Result<(), String> {
        self.check_at(self.started.elapsed())
    }

    fn beat_at(&self, now: Duration) {
        self.last_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn check_at(&self, now: Duration) -> Result<(), String> {
        let silent = now.saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)));
        if silent <= SILENCE_LIMIT {
            return Ok(());
        }
        Err(format!("event loop has been silent for {} s", silent.as_secs()))
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_loop_is_noticed() {
        let heartbeat = Heartbeat::new();
        assert_eq!(heartbeat.check_at(SILENCE_LIMIT), Ok(()));
        let later = SILENCE_LIMIT + Duration::from_secs(1);
        assert_eq!(heartbeat.check_at(later), Err("event loop has been silent for 11 s".into()));
        heartbeat.beat_at(later);
        assert_eq!(heartbeat.check_at(later + SILENCE_LIMIT), Ok(()));
    }
}
