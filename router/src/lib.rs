//! The role that appends, owns partitions and serves backends.
//!
//! Owns: one task per partition that the log assigned to this process, one reader per attached node, and the API port.
//! Everything about a partition happens in its task; this file only knows which there are. Invariants: a stream and a
//! partition learn of each other exactly once, whichever comes first (both are entered under one lock); a durable
//! publish is answered OK only after the log has it. Does not know Kafka, sockets of clients, or what an event means.

pub mod api;
mod clock;
mod config;
mod context;
mod control;
mod dead_letters;
mod metrics;
mod nodes;
mod partition;
mod peers;
pub mod presence;
pub mod publish;
mod record;
mod streams;
pub mod upstream;
pub mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use prometheus::Registry;
use tidegate_eventlog::{Assignment, EventLog};
use tidegate_history::HistoryStore;
use tidegate_link::Routers;
use tidegate_registry::LocateMetrics;
use tidegate_registry::client::{LocateHandle, LocateTask};
use tidegate_vocab::{ErrorKind, Incarnation, PartitionId, Problem};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use clock::Clock;
pub use config::RouterConfig;
use context::Context;
use control::ControlTopic;
use dead_letters::DeadLetters;
pub use metrics::Api;
use metrics::Metrics;
pub use nodes::ListedNode;
use nodes::Nodes;
use partition::{PartitionHandle, Phase};
use peers::Peers;
use presence::PresenceTopic;
use streams::Attached;

/// How long each phase of a shutdown may take.
const PHASE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long other routers may take to take over before a shutdown goes on without them, and how often that is looked at.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(4);
const HAND_OVER_LOOK: Duration = Duration::from_millis(10);
/// Between two looks at all partitions, for gauges.
const GAUGES_INTERVAL: Duration = Duration::from_secs(1);
/// A partition task not seen alive for this long is stuck, and the router not ready.
const STALL_MS: u64 = 10_000;
/// One not seen alive for this long never will be: the process ends, and another takes its partitions.
const FAILED_MS: u64 = 60_000;
/// Channels of the history looked at in one sweep, once a second.
const SWEEP_CHANNELS: usize = 256;

/// See the module.
pub struct Router {
    context: Arc<Context>,
    state: Mutex<State>,
    closing: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    peers: Arc<Peers>,
    control: ControlTopic,
    presence: PresenceTopic,
    nodes: Nodes,
    /// Where users are; none without a registry.
    locate: Option<LocateHandle>,
    /// Its task, which never ends.
    locating: Option<JoinHandle<()>>,
    occupants_cache: users::OccupantsCache,
    this: Weak<Self>,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<PartitionId, PartitionHandle>,
    streams: BTreeMap<Incarnation, Attached>,
    last_stream: u64,
    was_assigned: bool,
    closing: bool,
}

impl Router {
    /// Starts the router on a log and a history store; serves what the log assigns until [`Router::shutdown`].
    ///
    /// # Errors
    /// When a metric of the same name is registered already.
    pub fn start(
        config: RouterConfig,
        log: Arc<dyn EventLog>,
        store: Arc<HistoryStore>,
        registry: &Registry,
    ) -> prometheus::Result<Arc<Self>> {
        let metrics = Metrics::register(registry)?;
        let assignments = log.assignments();
        let dead_letters = DeadLetters::new(Arc::clone(&log), metrics.dead_letters_unkept.clone());
        let clock = Clock::default();
        let (locate, locating) = locate(&config, registry)?.unzip();
        let context = Arc::new(Context { config, log, store, metrics, clock, dead_letters });
        let router = Arc::new_cyclic(|this| Self {
            context,
            state: Mutex::default(),
            closing: watch::Sender::new(false),
            tasks: Mutex::default(),
            peers: Arc::default(),
            control: ControlTopic::default(),
            presence: PresenceTopic::default(),
            nodes: Nodes::default(),
            locate,
            locating,
            occupants_cache: users::OccupantsCache::default(),
            this: this.clone(),
        });
        router.own(tokio::spawn(Arc::clone(&router).follow_assignments(assignments)));
        router.own(tokio::spawn(Arc::clone(&router).keep_gauges()));
        router.own(tokio::spawn(Arc::clone(&router).follow_control()));
        if let Some(members) = router.context.config.registry.clone() {
            router.own(tokio::spawn(Arc::clone(&router).hold_presence(members)));
        }
        Ok(router)
    }

    /// Joins the other routers of the cluster, for verdicts and ephemeral events of partitions that they own.
    pub fn join(&self, routers: Routers) {
        let peers = Arc::clone(&self.peers).run(routers, self.context.config.incarnation);
        let closed = self.closed();
        self.own(tokio::spawn(async move {
            tokio::select! {
                () = closed => {}
                () = peers => {}
            }
        }));
    }

    /// Whether this router does all that it should: every assigned partition serves and the log takes appends.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn ready(&self) -> Result<(), String> {
        if let Err(error) = self.context.log.health() {
            return Err(error.to_string());
        }
        self.control.ready()?;
        let now_ms = self.context.clock.now_ms();
        let state = self.state();
        if state.closing {
            return Err("shutting down".into());
        }
        if !state.was_assigned {
            return Err("no partition has been assigned yet".into());
        }
        let mut owns_some = false;
        for (id, partition) in state.partitions.iter().filter(|(_, partition)| !partition.is_released()) {
            owns_some = true;
            let phase = partition.status.phase();
            if phase != Phase::Serving {
                return Err(format!("partition {id} {}", phase.as_str()));
            }
            if partition.status.stall_ms(now_ms) > STALL_MS {
                return Err(format!("partition {id} is stuck"));
            }
        }
        // With more routers than partitions one may own nothing; with none left, as after an outage, nobody serves.
        if !owns_some && !self.peers.has_others(|_| false) {
            return Err("no partition is assigned to this router, and none is known to be owned".into());
        }
        Ok(())
    }

    /// True once something has ended that must not: the process should end too, and be started anew.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        let now_ms = self.context.clock.now_ms();
        let state = self.state();
        let has_failed = |partition: &PartitionHandle| {
            partition.status.phase() == Phase::Dead || partition.status.stall_ms(now_ms) > FAILED_MS
        };
        let has_lost_task = || {
            let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.iter().chain(&self.locating).any(JoinHandle::is_finished)
        };
        !state.closing && (state.partitions.values().any(has_failed) || has_lost_task())
    }

    /// Stops: first what others can take over is handed to them, then API, then partitions (nodes hear `Ended`), then
    /// streams. Each phase takes at most 5 s.
    pub async fn shutdown(&self) {
        phase("hand over", self.hand_over_partitions()).await;
        self.state().closing = true;
        self.closing.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        phase("tasks", async {
            for task in tasks {
                // invariant: a task that panicked has been reported by the runtime
                let _ = task.await;
            }
        })
        .await;
        let ended: Vec<_> = {
            let mut state = self.state();
            std::mem::take(&mut state.partitions).into_values().map(|partition| partition.revoke()).collect()
        };
        phase("partitions", futures::future::join_all(ended)).await;
        self.nodes.close();
        for attached in std::mem::take(&mut self.state().streams).into_values() {
            attached.close();
        }
    }

    async fn follow_control(self: Arc<Self>) {
        let closed = self.closed();
        tokio::select! {
            () = closed => {}
            () = self.control.follow(&self.context) => {}
        }
    }

    /// Completes when a shutdown has begun.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closing = self.closing.subscribe();
        async move {
            // invariant: an error means that the router is gone, which is as good as closed
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }

    fn own(&self, task: JoinHandle<()>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one insertion or removal: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arc(&self) -> Result<Arc<Self>, Problem> {
        self.this.upgrade().ok_or_else(|| Problem::new(ErrorKind::Draining, "the router is gone"))
    }

    async fn follow_assignments(self: Arc<Self>, mut assignments: mpsc::Receiver<Assignment>) {
        loop {
            let assignment = tokio::select! {
                () = self.closed() => return,
                assignment = assignments.recv() => assignment,
            };
            match assignment {
                Some(Assignment::Assigned(id)) => self.assigned(id).await,
                Some(Assignment::Revoked(id)) => self.revoked(id).await,
                None => return self.closed().await,
            }
        }
    }

    async fn assigned(&self, id: PartitionId) {
        let earlier = self.state().partitions.remove(&id).map(|partition| partition.revoke());
        if let Some(ended) = earlier {
            ended.await;
        }
        let mut state = self.state();
        if state.closing {
            return;
        }
        tracing::debug!(partition = %id, "partition assigned");
        let streams = state.streams.values().map(|stream| (stream.id, stream.sender.clone())).collect();
        let partition = PartitionHandle::spawn(Arc::clone(&self.context), id, streams);
        state.partitions.insert(id, partition);
        state.was_assigned = true;
        self.context.metrics.rebalances.inc();
    }

    async fn revoked(&self, id: PartitionId) {
        let Ok(router) = self.arc() else { return };
        let released = self.state().partitions.get(&id).and_then(|partition| {
            let status = Arc::clone(&partition.status);
            partition.release().map(|ended| (status, ended))
        });
        if let Some((status, ended)) = released {
            tracing::info!(partition = %id, "partition revoked");
            self.context.metrics.rebalances.inc();
            tokio::spawn(async move {
                ended.await;
                let mut state = router.state();
                // It may have come back meanwhile, and even be on its way again: that is another task.
                if state.partitions.get(&id).is_some_and(|now| Arc::ptr_eq(&now.status, &status)) {
                    state.partitions.remove(&id);
                }
            });
        }
    }

    /// Leaves what is owned to the other routers and serves until they have taken over: nobody waits for a session to end.
    async fn hand_over_partitions(&self) {
        let ours: BTreeSet<PartitionId> = self.state().partitions.keys().copied().collect();
        if !self.peers.has_others(|partition| ours.contains(partition)) {
            return;
        }
        self.context.log.leave();
        let deadline = Instant::now() + HAND_OVER_TIMEOUT;
        while !self.state().partitions.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(HAND_OVER_LOOK).await;
        }
    }

    /// Keeps the gauges over all partitions, and sweeps the history.
    async fn keep_gauges(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(GAUGES_INTERVAL);
        loop {
            tokio::select! {
                () = self.closed() => return,
                _ = ticks.tick() => self.set_gauges(),
            }
            let store = Arc::clone(&self.context.store);
            match tokio::task::spawn_blocking(move || store.sweep(SWEEP_CHANNELS)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    self.context.metrics.store_errors.inc();
                    tracing::warn!(%error, "history could not be swept");
                }
                Err(error) => tracing::error!(%error, "sweep did not run"),
            }
        }
    }

    fn set_gauges(&self) {
        let metrics = &self.context.metrics;
        let now_ms = self.context.clock.now_ms();
        let state = self.state();
        let all = || state.partitions.values().map(|partition| &partition.status);
        let serving = all().filter(|status| status.phase() == Phase::Serving).count();
        metrics.partitions_assigned.set(gauge(state.partitions.len() as u64));
        metrics.partitions_serving.set(gauge(serving as u64));
        metrics.lag_sum.set(gauge(all().map(|status| status.lag()).sum()));
        metrics.lag_max.set(gauge(all().map(|status| status.lag()).max().unwrap_or(0)));
        let lag_ms = all().map(|status| status.lag_ms()).max().unwrap_or(0);
        metrics.lag_seconds.set(lag_ms as f64 / 1_000.0);
        metrics.tenures_behind.set(gauge(all().map(|status| status.behind()).sum()));
        let stall_max_ms = all().map(|status| status.stall_ms(now_ms)).max().unwrap_or(0);
        metrics.partition_stall_max_seconds.set(stall_max_ms as f64 / 1_000.0);
    }
}

/// The task that asks the registry, and the one that hands it newer member lists.
fn locate(
    config: &RouterConfig,
    registry: &Registry,
) -> prometheus::Result<Option<(LocateHandle, JoinHandle<()>)>> {
    let Some(members) = config.registry.clone() else { return Ok(None) };
    let mut lists = members.lists;
    let list = lists.borrow_and_update().clone();
    Ok(match LocateTask::spawn(list, members.key, LocateMetrics::register(registry)?) {
        Ok((handle, task)) => {
            let following = handle.clone();
            tokio::spawn(tidegate_registry::follow(lists, move |list| {
                let handle = following.clone();
                async move { handle.set_members(list).await }
            }));
            Some((handle, task))
        }
        Err(error) => {
            tracing::error!(%error, "member list makes no ring: all nodes are asked for every user");
            None
        }
    })
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

async fn phase<T>(name: &'static str, work: impl Future<Output = T>) {
    let begun = std::time::Instant::now();
    match tokio::time::timeout(PHASE_TIMEOUT, work).await {
        Ok(_) => tracing::info!(phase = name, elapsed = ?begun.elapsed(), "shutdown phase done"),
        Err(_) => tracing::warn!(phase = name, "shutdown phase did not end in time"),
    }
}
