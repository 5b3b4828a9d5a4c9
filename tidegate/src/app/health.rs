//! Whether the process can take traffic: what the roles said when last looked at, or that it is being drained.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::admin::{Heartbeat, Readiness};

/// A start that takes longer than this is worth a word.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// See the module. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Health {
    state: Arc<watch::Sender<State>>,
    started: Instant,
    /// It has been ready once, or it was said why it is not.
    start_is_told: Arc<AtomicBool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Every reason why not; none when it can.
    Running(Vec<String>),
    /// It was asked to end: nothing makes it ready again.
    Draining,
}

impl Health {
    /// Of a process that has just begun.
    pub(super) fn new() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State::Running(vec!["starting".into()]))),
            started: Instant::now(),
            start_is_told: Arc::default(),
        }
    }

    /// Notes why the process cannot take traffic; an empty list means that it can.
    pub(super) fn set(&self, reasons: Vec<String>) {
        let is_due = reasons.is_empty() || self.started.elapsed() > START_PATIENCE;
        if is_due && !self.start_is_told.swap(true, Ordering::Relaxed) && !reasons.is_empty() {
            tracing::warn!(reasons = reasons.join("; "), "not ready yet");
        }
        self.state.send_if_modified(|state| {
            let next = State::Running(reasons);
            if *state == State::Draining || *state == next {
                return false;
            }
            let was_ready = *state == State::Running(Vec::new());
            match &next {
                State::Running(reasons) if reasons.is_empty() => tracing::info!("ready"),
                State::Running(reasons) if was_ready => {
                    tracing::warn!(reasons = reasons.join("; "), "not ready any more");
                }
                State::Running(reasons) => tracing::debug!(reasons = reasons.join("; "), "not ready yet"),
                State::Draining => {} // Only `drain` says so.
            }
            *state = next;
            true
        });
    }

    /// From now on the process is not ready.
    pub(super) fn drain(&self) {
        self.state.send_replace(State::Draining);
        tracing::info!("not ready from now on: shutting down");
    }

    /// Whether it can take traffic, as far as was noted.
    pub(super) fn is_ready(&self) -> bool {
        matches!(&*self.state.borrow(), State::Running(reasons) if reasons.is_empty())
    }

    /// Completes when the process is ready.
    pub(super) fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut states = self.state.subscribe();
        async move {
            let is_ready = |state: &State| matches!(state, State::Running(reasons) if reasons.is_empty());
            if states.wait_for(is_ready).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What `/readyz` asks. A stuck event loop cannot note anything here, so its heartbeat counts too.
    pub(super) fn readiness(&self, heartbeat: Heartbeat) -> Readiness {
        let states = self.state.subscribe();
        Arc::new(move || {
            heartbeat.check().map_err(|reason| vec![reason])?;
            match &*states.borrow() {
                State::Running(reasons) if reasons.is_empty() => Ok(()),
                State::Running(reasons) => Err(reasons.clone()),
                State::Draining => Err(vec!["draining".into()]),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_draining_process_is_never_ready_again() {
        let health = Health::new();
        let readiness = health.readiness(Heartbeat::new());
        assert_eq!(readiness(), Err(vec!["starting".into()]));
        health.set(vec!["log is full".into()]);
        assert_eq!(readiness(), Err(vec!["log is full".into()]));
        health.set(Vec::new());
        health.ready().await;
        assert_eq!(readiness(), Ok(()));
        health.drain();
        health.set(Vec::new());
        assert_eq!(readiness(), Err(vec!["draining".into()]));
    }
}
