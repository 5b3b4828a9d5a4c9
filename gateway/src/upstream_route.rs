//! Which router a client's message goes to (TENURES, rule 16).
//!
//! One router at a time per upstream partition, chosen by rendezvous hashing, so that gateways spread their partitions
//! and a router that comes or goes moves only its own. Messages of a partition are handed over in the order in which
//! they came. When a router goes while some wait for its answer, nothing more is handed over until every one of them is
//! answered or given up; then the unacknowledged tail goes, in order, to the next router: at least once, and a backend
//! dedupes by (connection, seq). What no router took within [`PATIENCE`] is refused, to be tried again by the client.
//!
//! A single router in the gateway's own process is called directly, without the task.

mod lane;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use prometheus::IntCounter;
use tidegate_link::{BoxFuture, RouterLink, Routers, UpstreamMessage};
use tidegate_vocab::{ErrorKind, Position, Problem, limits};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use lane::Lane;

/// Time in which a message is given to one router after the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for which a router that failed is the last choice.
const AVOIDED_FOR: Duration = Duration::from_secs(5);
/// Pause before the same router is tried again when there is no other.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often lanes that wait are looked at.
const TICK: Duration = Duration::from_millis(50);

type Answer = Result<Position, Problem>;

/// See the module. Shared by all shards.
pub(crate) struct UpstreamRoute {
    /// The router of this process, as long as it is the only one.
    local: Option<Arc<dyn RouterLink>>,
    is_only: Arc<AtomicBool>,
    /// One reference per direct call that waits for its answer, and two more.
    direct: Arc<()>,
    partitions: u32,
    to_task: mpsc::Sender<Said>,
}

struct Said {
    partition: u32,
    message: UpstreamMessage,
    done: oneshot::Sender<Answer>,
}

impl UpstreamRoute {
    /// Follows these routers. Must be called within a tokio runtime.
    pub(crate) fn start(routers: Routers, partitions: u32, moves: IntCounter) -> Self {
        let (to_task, said) = mpsc::channel(limits::UPSTREAM_ROUTE_LIMIT);
        let local = {
            let named = routers.borrow();
            let only = if named.len() == 1 { named.values().next() } else { None };
            only.filter(|link| link.is_local()).cloned()
        };
        let is_only = Arc::new(AtomicBool::new(local.is_some()));
        let direct = Arc::new(());
        let task = RouteTask {
            routers,
            is_only: Arc::clone(&is_only),
            direct: Arc::clone(&direct),
            links: BTreeMap::new(),
            failed: BTreeMap::new(),
            lanes: BTreeMap::new(),
            answers: FuturesUnordered::new(),
            moves,
        };
        tokio::spawn(task.run(said));
        Self { local, is_only, direct, partitions, to_task }
    }

    /// Hands a message on; completes once the log has it. Messages keep the order of the calls.
    pub(crate) fn send(&self, message: UpstreamMessage) -> BoxFuture<'static, Answer> {
        if let Some(local) = self.local.as_ref().filter(|_| self.is_only.load(Ordering::Acquire)) {
            let in_flight = Arc::clone(&self.direct);
            let appended = local.upstream(message);
            return Box::pin(async move {
                let answer = appended.await;
                drop(in_flight);
                answer
            });
        }
        let (done, answer) = oneshot::channel();
        let said = Said { partition: message.partition(self.partitions), message, done };
        let queued = self.to_task.try_send(said);
        Box::pin(async move {
            match queued {
                Ok(()) => answer.await.unwrap_or_else(|_| Err(gone())),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    let detail = "too many messages wait for a router";
                    Err(Problem::new(ErrorKind::Overloaded, detail).retry_after_ms(500))
                }
                Err(mpsc::error::TrySendError::Closed(_)) => Err(gone()),
            }
        })
    }
}

fn gone() -> Problem {
    Problem::new(ErrorKind::Draining, "the node is being drained").retry_after_ms(1_000)
}

struct RouteTask {
    routers: Routers,
    is_only: Arc<AtomicBool>,
    direct: Arc<()>,
    links: BTreeMap<String, Arc<dyn RouterLink>>,
    /// When routers last broke off.
    failed: BTreeMap<String, Instant>,
    lanes: BTreeMap<u32, Lane>,
    answers: FuturesUnordered<BoxFuture<'static, (u32, u64, Answer)>>,
    moves: IntCounter,
}

impl RouteTask {
    async fn run(mut self, mut said: mpsc::Receiver<Said>) {
        self.routers_changed(); // They may have since the start.
        let mut is_watched = true;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                next = said.recv() => match next {
                    Some(said) => self.accept(said),
                    None => return,
                },
                Some((partition, id, answer)) = self.answers.next() => self.answered(partition, id, answer),
                changed = self.routers.changed(), if is_watched => {
                    is_watched = changed.is_ok();
                    self.routers_changed();
                }
                _ = ticks.tick(), if self.lanes.values().any(Lane::waits) => self.tick(),
            }
        }
    }

    fn accept(&mut self, said: Said) {
        let Said { partition, message, done } = said;
        self.lanes.entry(partition).or_default().push(message, done, Instant::now() + PATIENCE);
        self.dispatch(partition);
    }

    fn answered(&mut self, partition: u32, id: u64, answer: Answer) {
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        match answer {
            Err(problem) if problem.kind == ErrorKind::Draining => {
                if let Some(address) =
                    lane.router.as_ref().filter(|address| self.links.contains_key(*address))
                {
                    self.failed.insert(address.clone(), Instant::now());
                }
                lane.failed(id);
            }
            answer => lane.complete(id, answer),
        }
        self.dispatch(partition);
    }

    /// A partition whose router is gone, or no longer the first choice, moves once what is under way is answered.
    fn routers_changed(&mut self) {
        let named = self.routers.borrow_and_update().clone();
        let is_same_one = named.len() == 1 && named.values().next().is_some_and(|link| link.is_local());
        if !is_same_one {
            self.is_only.store(false, Ordering::Release);
        }
        self.failed.retain(|address, _| named.contains_key(address));
        self.links = named;
        let partitions: Vec<u32> = self.lanes.keys().copied().collect();
        for partition in partitions {
            let first = self.choose(partition);
            if let Some(lane) = self.lanes.get_mut(&partition)
                && lane.router != first
            {
                lane.is_moving = true;
            }
            self.dispatch(partition);
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let waiting: Vec<u32> =
            self.lanes.iter().filter(|(_, lane)| lane.waits()).map(|(partition, _)| *partition).collect();
        for partition in waiting {
            if let Some(lane) = self.lanes.get_mut(&partition) {
                lane.expire(now);
            }
            self.dispatch(partition);
        }
    }

    /// Hands on what a lane may hand on now, in order.
    fn dispatch(&mut self, partition: u32) {
        // A direct call that is under way came first.
        if Arc::strong_count(&self.direct) > 2 {
            return;
        }
        let chosen = self.choose(partition);
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        if !lane.has_in_flight() {
            lane.expire(Instant::now());
            if lane.has_failed() && chosen.is_some() {
                self.moves.inc();
            }
            lane.is_moving = false;
            lane.router = chosen;
        }
        if lane.is_moving {
            return;
        }
        let Some(link) = lane.router.as_ref().and_then(|address| self.links.get(address)) else { return };
        for (id, message) in lane.take_ready() {
            let appended = link.upstream(message);
            self.answers.push(Box::pin(async move { (partition, id, appended.await) }));
        }
    }

    /// The highest rank among those that have not failed lately, else the one whose failure is oldest, after a pause.
    fn choose(&self, partition: u32) -> Option<String> {
        let failed_lately =
            |address: &str| self.failed.get(address).filter(|failed| failed.elapsed() < AVOIDED_FOR);
        let well = self.links.keys().filter(|address| failed_lately(address).is_none());
        if let Some(first) = well.max_by_key(|address| rank(address, partition)) {
            return Some(first.clone());
        }
        let (address, failed) = self.failed.iter().min_by_key(|(_, failed)| **failed)?;
        (failed.elapsed() >= RETRY_PAUSE).then(|| address.clone())
    }
}

/// Rendezvous hashing: each partition ranks the addresses in an order of its own.
fn rank(address: &str, partition: u32) -> u64 {
    xxh3_64_with_seed(address.as_bytes(), u64::from(partition))
}

#[cfg(test)]
mod tests;
