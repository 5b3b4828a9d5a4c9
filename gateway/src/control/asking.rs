//! Asks every router that discovery names for control records, once a second, and again at once while there are more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate_link::{ControlAnswer, ControlStanding, RouterLink, Routers};
use tidegate_vocab::{Problem, limits};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Control;
use super::freshness::Freshness;
use crate::clock::Clock;
use crate::metrics::Metrics;

const ASK_INTERVAL: Duration = Duration::from_millis(limits::CONTROL_ASK_INTERVAL_MS);
/// A router that does not answer in this time is asked anew at the next turn.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Before a router that is still reading is asked again.
const LOADING_PAUSE: Duration = Duration::from_millis(50);

/// See the module.
pub(crate) struct Asking {
    control: Arc<Control>,
    routers: Routers,
    clock: Clock,
    metrics: Metrics,
    freshness: Freshness,
    asked: JoinSet<Heard>,
    /// Routers with a question on its way.
    waiting: BTreeSet<String>,
}

/// A router, when it was asked, and what it said.
type Heard = (String, u64, Result<ControlAnswer, Problem>);

impl Asking {
    pub(crate) fn new(control: Arc<Control>, routers: Routers, clock: Clock, metrics: Metrics) -> Self {
        let (freshness, asked, waiting) = Default::default();
        Self { control, routers, clock, metrics, freshness, asked, waiting }
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut ticks = tokio::time::interval(ASK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_watched = true;
        loop {
            tokio::select! {
                _ = ticks.tick() => self.ask_all(),
                changed = self.routers.changed(), if is_watched => {
                    is_watched = changed.is_ok();
                    self.ask_all();
                }
                Some(heard) = self.asked.join_next() => {
                    if let Ok(heard) = heard {
                        self.hear(heard);
                    }
                }
            }
            let until_ms = self.freshness.until_ms(self.routers.borrow().keys());
            self.control.vouch(until_ms);
            let now_ms = self.clock.now_ms();
            self.metrics.control_fresh.set(i64::from(now_ms < until_ms));
        }
    }

    fn ask_all(&mut self) {
        let routers: Vec<_> =
            self.routers.borrow().iter().map(|(name, router)| (name.clone(), Arc::clone(router))).collect();
        for (name, router) in routers {
            self.ask(name, &router, Duration::ZERO);
        }
    }

    fn ask(&mut self, name: String, router: &Arc<dyn RouterLink>, pause: Duration) {
        if !self.waiting.insert(name.clone()) {
            return;
        }
        let (router, control, clock) = (Arc::clone(router), Arc::clone(&self.control), self.clock);
        self.asked.spawn(async move {
            tokio::time::sleep(pause).await;
            // Of before the question: what happens while it is on its way may be missing in the answer.
            let asked_ms = clock.now_ms();
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, router.control(control.ask())).await;
            let late = || Problem::new(tidegate_vocab::ErrorKind::RequestTimeout, "no answer in time");
            (name, asked_ms, answer.unwrap_or_else(|_| Err(late())))
        });
    }

    fn hear(&mut self, (name, asked_ms, answer): Heard) {
        self.waiting.remove(&name);
        let answer = match answer {
            Ok(answer) => answer,
            Err(problem) => {
                tracing::debug!(router = name, %problem, "router does not tell what stands on the control topic");
                return;
            }
        };
        let standing = answer.standing;
        let taken = self.control.take(answer);
        self.metrics.revocations.inc_by(taken);
        self.freshness.heard(&name, asked_ms, standing);
        let pause = match standing {
            ControlStanding::More => Duration::ZERO,
            ControlStanding::Loading if !self.control.is_complete() => LOADING_PAUSE,
            _ => return,
        };
        let router = self.routers.borrow().get(&name).cloned();
        if let Some(router) = router {
            self.ask(name, &router, pause);
        }
    }
}
