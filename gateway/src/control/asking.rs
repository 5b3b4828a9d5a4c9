//! Asks every router that discovery names for control records, once a second, and again at once while there are more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_link::{ControlAnswer, ControlAsk, ControlStanding, RouterLink, Routers};
use tidegate_vocab::{LogEpoch, Problem, limits};
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
    /// The log that each router named last.
    named: BTreeMap<String, LogEpoch>,
}

/// A router, when it was asked, from where, and what it said.
type Heard = (String, u64, ControlAsk, Result<ControlAnswer, Problem>);

impl Asking {
    pub(crate) fn new(control: Arc<Control>, routers: Routers, clock: Clock, metrics: Metrics) -> Self {
        let (freshness, asked, waiting, named) = Default::default();
        Self { control, routers, clock, metrics, freshness, asked, waiting, named }
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
        self.named.retain(|name, _| routers.iter().any(|(listed, _)| listed == name));
        for (name, router) in routers {
            self.ask(name, &router, Duration::ZERO);
        }
    }

    fn ask(&mut self, name: String, router: &Arc<dyn RouterLink>, pause: Duration) {
        if !self.waiting.insert(name.clone()) {
            return;
        }
        let (router, control, clock) = (Arc::clone(router), Arc::clone(&self.control), self.clock);
        let named = self.named.get(&name).copied().unwrap_or_default();
        self.asked.spawn(async move {
            tokio::time::sleep(pause).await;
            // Of before the question: what happens while it is on its way may be missing in the answer.
            let asked_ms = clock.now_ms();
            let ask = control.ask(named);
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, router.control(ask)).await;
            let late = || Problem::new(tidegate_vocab::ErrorKind::RequestTimeout, "no answer in time");
            (name, asked_ms, ask, answer.unwrap_or_else(|_| Err(late())))
        });
    }

    fn hear(&mut self, (name, asked_ms, ask, answer): Heard) {
        self.waiting.remove(&name);
        let answer = match answer {
            Ok(answer) => answer,
            Err(problem) => {
                tracing::debug!(router = name, %problem, "router does not tell what stands on the control topic");
                return;
            }
        };
        self.named.insert(name.clone(), answer.epoch);
        if !self.control.continues(ask, answer.epoch) {
            return; // Others have named so many logs meanwhile that this one was let go: asked anew at the next turn.
        }
        let standing = answer.standing;
        let taken = self.control.take(answer);
        self.metrics.revocations.inc_by(taken);
        self.freshness.heard(&name, asked_ms, standing);
        let pause = match standing {
            // A piece that held nothing new is no reason to hurry.
            ControlStanding::More if taken > 0 => Duration::ZERO,
            ControlStanding::More => LOADING_PAUSE,
            ControlStanding::Loading if !self.control.is_complete() => LOADING_PAUSE,
            _ => return,
        };
        let router = self.routers.borrow().get(&name).cloned();
        if let Some(router) = router {
            self.ask(name, &router, pause);
        }
    }
}
