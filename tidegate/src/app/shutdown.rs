//! The phases in which a process ends: each has a name, a timeout, a log line and a metric.

use std::time::{Duration, Instant};

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use tidegate_gateway::DrainConfig;

use crate::config::millis;

/// What a drain may take beyond its own pace before it counts as stuck.
const DRAIN_SLACK: Duration = Duration::from_secs(6);

/// See the module.
pub(super) struct Shutdown {
    drain_timeout: Duration,
    running: IntGaugeVec,
    seconds: GaugeVec,
    overdue_total: IntCounterVec,
    overdue: Option<&'static str>,
}

impl Shutdown {
    /// Registers the metrics.
    pub(super) fn new(drain: &DrainConfig, registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = |name: &str, help: &str| Opts::new(format!("tidegate_shutdown_{name}"), help);
        let shutdown = Self {
            drain_timeout: drain.wait + drain.window + DRAIN_SLACK,
            running: IntGaugeVec::new(
                options("phase", "1 while this phase of a shutdown runs."),
                &["phase"],
            )?,
            seconds: GaugeVec::new(
                options("phase_duration_seconds", "How long this phase of the shutdown took."),
                &["phase"],
            )?,
            overdue_total: IntCounterVec::new(
                options("phases_overdue_total", "Phases of the shutdown that did not end in time."),
                &["phase"],
            )?,
            overdue: None,
        };
        registry.register(Box::new(shutdown.running.clone()))?;
        registry.register(Box::new(shutdown.seconds.clone()))?;
        registry.register(Box::new(shutdown.overdue_total.clone()))?;
        Ok(shutdown)
    }

    /// How long the drain may take.
    pub(super) fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }

    /// Runs one phase; a phase that does not end in time is given up, and the next one begins.
    pub(super) async fn phase<T>(
        &mut self,
        name: &'static str,
        timeout: Duration,
        work: impl Future<Output = T>,
    ) {
        tracing::info!(phase = name, timeout_ms = millis(timeout), "shutdown phase begins");
        self.running.with_label_values(&[name]).set(1);
        let begun = Instant::now();
        let ended = tokio::time::timeout(timeout, work).await.is_ok();
        let elapsed = begun.elapsed();
        self.running.with_label_values(&[name]).set(0);
        self.seconds.with_label_values(&[name]).set(elapsed.as_secs_f64());
        if ended {
            tracing::info!(phase = name, elapsed_ms = millis(elapsed), "shutdown phase ended");
            return;
        }
        self.overdue_total.with_label_values(&[name]).inc();
        self.overdue = self.overdue.or(Some(name));
        tracing::error!(phase = name, elapsed_ms = millis(elapsed), "shutdown phase given up");
    }

    /// The first phase that did not end in time, if any.
    pub(super) fn overdue(&self) -> Option<&'static str> {
        self.overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stuck_phase_is_given_up_and_named() {
        let pace = DrainConfig { wait: Duration::ZERO, window: Duration::ZERO, retry_window: Duration::ZERO };
        let registry = Registry::new();
        let mut shutdown = Shutdown::new(&pace, &registry).expect("registered once");
        shutdown.phase("drain", Duration::from_secs(1), async {}).await;
        assert_eq!(shutdown.overdue(), None);
        shutdown.phase("router", Duration::from_secs(1), std::future::pending::<()>()).await;
        shutdown.phase("log", Duration::from_secs(1), std::future::pending::<()>()).await;
        assert_eq!(shutdown.overdue(), Some("router"));
        assert_eq!(registry.gather().len(), 3);
    }
}
