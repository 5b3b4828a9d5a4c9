//! This node, as routers can ask it now: a Reach stream to each of them, questions to the shards and their answers back.
//!
//! Owns the streams and what the attached routers' rings are. A question goes to every shard at once and is answered when all
//! have; a shard whose queue is full makes it a refusal, never a wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tidegate_link::{
    BoxFuture, NodeAnswer, NodeAsk, NodeHello, NodeSays, NodeStatus, NodeWord, OccupantsPage, ReachStream,
    Reached, RouterSays, Routers,
};
use tidegate_registry::Current;
use tidegate_registry::client::AnnounceHandle;
use tidegate_vocab::{ErrorKind, LogEpoch, PartitionId, Problem, Topic, limits};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::shard::asked::{ShardAsk, disconnected};
use crate::shard::item::SharedEvent;
use crate::shared::Shared;

/// Before a router is dialled again.
const REDIAL_PAUSE: Duration = Duration::from_millis(300);
/// Between two words on how the node is.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Between two words, where nothing changes.
const WORD_RENEWAL: Duration = Duration::from_millis(limits::WORD_RENEW_MS);

/// See the module.
pub(crate) struct Reach {
    shared: Arc<Shared>,
    hello: NodeHello,
    shards: Vec<mpsc::Sender<ShardAsk>>,
    announcer: Option<AnnounceHandle>,
    /// The rings of the attached routers, by address. Held while the announcer is told.
    spoken: Mutex<BTreeMap<String, u64>>,
    drain: watch::Sender<bool>,
}

impl Reach {
    pub(crate) fn new(
        shared: Arc<Shared>,
        shards: Vec<mpsc::Sender<ShardAsk>>,
        announcer: Option<AnnounceHandle>,
        drain: watch::Sender<bool>,
    ) -> Arc<Self> {
        let hello = NodeHello {
            incarnation: shared.incarnation,
            name: shared.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Arc::new(Self { shared, hello, shards, announcer, spoken: Mutex::default(), drain })
    }

    /// Stays reachable for every router that discovery names; what is open to one that is gone stays until it ends.
    pub(crate) async fn run(self: Arc<Self>, mut routers: Routers) {
        let mut tasks = JoinSet::new();
        let mut running: HashMap<String, AbortHandle> = HashMap::new();
        let mut looks = tokio::time::interval(STATUS_INTERVAL);
        let mut is_watched = true;
        loop {
            while tasks.try_join_next().is_some() {}
            running.retain(|_, task| !task.is_finished());
            let named: Vec<String> = routers.borrow_and_update().keys().cloned().collect();
            for address in named {
                running.entry(address.clone()).or_insert_with(|| {
                    tasks.spawn(Arc::clone(&self).stay_reachable(address, routers.clone()))
                });
            }
            tokio::select! {
                changed = routers.changed(), if is_watched => is_watched = changed.is_ok(),
                _ = looks.tick() => self.shared.metrics.subjects.set(self.shared.presences.len() as i64),
            }
        }
    }

    async fn stay_reachable(self: Arc<Self>, address: String, routers: Routers) {
        loop {
            let Some(router) = routers.borrow().get(&address).cloned() else { return };
            match router.reach(self.hello.clone()).await {
                Ok(stream) => {
                    self.shared.metrics.reach_streams.inc();
                    self.serve(&address, stream).await;
                    self.shared.metrics.reach_streams.dec();
                    self.speaks(&address, None).await;
                }
                Err(problem) => tracing::debug!(%problem, "router refused the reach stream"),
            }
            tokio::time::sleep(REDIAL_PAUSE).await;
        }
    }

    /// Until either side ends the stream.
    async fn serve(&self, address: &str, stream: ReachStream) {
        let ReachStream { to_router, mut from_router } = stream;
        let mut answers: FuturesUnordered<BoxFuture<'_, NodeSays>> = FuturesUnordered::new();
        let mut words = Words::new(self.announcer.as_ref().map(AnnounceHandle::current));
        let mut statuses = tokio::time::interval(STATUS_INTERVAL);
        statuses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let says = tokio::select! {
                // What leaves first is the word: an answer must not be believed on the strength of one that is withdrawn.
                biased;
                word = words.next() => match word {
                    Some(word) => NodeSays::Word(word),
                    None => return, // Nobody announces any more: what was said last must not stand.
                },
                _ = statuses.tick() => NodeSays::Status(self.status()),
                Some(answer) = answers.next() => answer,
                asked = from_router.next(limits::REACH_BATCH_LIMIT), if answers.len() < limits::REACH_IN_FLIGHT_LIMIT => {
                    if asked.is_empty() {
                        return;
                    }
                    for said in asked {
                        match said {
                            RouterSays::Ring(digest) => self.speaks(address, Some(digest)).await,
                            RouterSays::Ask { number, ask } => answers.push(self.answer(number, ask)),
                        }
                    }
                    continue;
                }
            };
            if to_router.send(says).await.is_err() {
                return;
            }
        }
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            connections: self.shared.sockets() as u64,
            connections_limit: self.shared.sockets_limit as u64,
            is_draining: self.shared.is_draining(),
        }
    }

    /// An attached router's ring, or that it is no longer attached.
    async fn speaks(&self, address: &str, digest: Option<u64>) {
        let Some(announcer) = &self.announcer else { return };
        let mut spoken = self.spoken.lock().await;
        match digest {
            Some(digest) => drop(spoken.insert(address.to_owned(), digest)),
            None => drop(spoken.remove(address)),
        }
        announcer.routers_speak(spoken.values().copied().collect()).await;
    }

    /// Puts the question to the shards now; the future gathers what they say.
    fn answer(&self, number: u64, ask: NodeAsk) -> BoxFuture<'static, NodeSays> {
        self.shared.metrics.asked.with_label_values(&[kind(&ask)]).inc();
        let answer = self.put(ask);
        Box::pin(async move { NodeSays::Answer { number, answer: answer.await } })
    }

    fn put(&self, ask: NodeAsk) -> BoxFuture<'static, Result<NodeAnswer, Problem>> {
        match ask {
            NodeAsk::Direct(event) => {
                // Neither is looked at in an event without an offset.
                let partition = PartitionId { topic: Topic::Inbox, number: 0 };
                let event = Arc::new(SharedEvent::new(event, partition, LogEpoch(0)));
                let reached = self.ask_all(|done| ShardAsk::Direct(Arc::clone(&event), done));
                Box::pin(async move { direct(reached?.await?) })
            }
            NodeAsk::Disconnect { user, reason } => {
                let problem = Arc::new(disconnected(reason));
                let closed =
                    self.ask_all(|done| ShardAsk::Disconnect(user.clone(), Arc::clone(&problem), done));
                Box::pin(async move { Ok(NodeAnswer::Disconnected(closed?.await?.into_iter().sum())) })
            }
            NodeAsk::Holding(subject) => {
                let held = self.shared.presences.held(&subject);
                Box::pin(std::future::ready(Ok(NodeAnswer::Holding(held))))
            }
            NodeAsk::Occupants { channel, after, limit } => {
                let pages =
                    self.ask_all(|done| ShardAsk::Occupants(channel.clone(), after.clone(), limit, done));
                Box::pin(
                    async move { Ok(NodeAnswer::Occupants(OccupantsPage::merged(pages?.await?, limit))) },
                )
            }
            NodeAsk::Drain => {
                tracing::info!("a router asks this node to drain");
                self.drain.send_replace(true);
                Box::pin(std::future::ready(Ok(NodeAnswer::Draining)))
            }
        }
    }

    /// Asks every shard at once. The future has what all said.
    fn ask_all<T: Send + 'static>(
        &self,
        ask: impl Fn(oneshot::Sender<T>) -> ShardAsk,
    ) -> Result<BoxFuture<'static, Result<Vec<T>, Problem>>, Problem> {
        let mut waiting = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let (done, answer) = oneshot::channel();
            shard.try_send(ask(done)).map_err(|_| {
                Problem::new(ErrorKind::Overloaded, "too many questions wait for a shard").retry_after_ms(500)
            })?;
            waiting.push(answer);
        }
        Ok(Box::pin(async move {
            let answers: Result<Vec<T>, _> = join_all(waiting).await.into_iter().collect();
            answers.map_err(|_| Problem::new(ErrorKind::Draining, "the node ends"))
        }))
    }
}

/// The node's word, whenever it changes and twice a second.
struct Words {
    /// None without a registry.
    current: Option<watch::Receiver<Vec<Current>>>,
    renewals: Interval,
    /// When one was due last.
    last: Instant,
}

impl Words {
    fn new(mut current: Option<watch::Receiver<Vec<Current>>>) -> Self {
        if let Some(current) = &mut current {
            current.mark_changed();
        }
        let mut renewals = tokio::time::interval(WORD_RENEWAL);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { current, renewals, last: Instant::now() }
    }

    /// Nothing once nobody announces any more. Cancel-safe.
    async fn next(&mut self) -> Option<NodeWord> {
        let Self { current, renewals, last } = self;
        let Some(current) = current else { return std::future::pending().await };
        let word = |current: &[Current]| current.iter().map(|it| (it.member, it.digest)).collect();
        tokio::select! {
            changed = current.changed() => changed.ok().map(|()| word(&current.borrow_and_update())),
            _ = renewals.tick() => {
                // A process that stood still does not know yet whether its members have forgotten it.
                let stood_still = last.elapsed() > 2 * WORD_RENEWAL;
                *last = Instant::now();
                Some(if stood_still { Vec::new() } else { word(&current.borrow()) })
            }
        }
    }
}

fn kind(ask: &NodeAsk) -> &'static str {
    match ask {
        NodeAsk::Direct(_) => "direct",
        NodeAsk::Disconnect { .. } => "disconnect",
        NodeAsk::Holding(_) => "holding",
        NodeAsk::Occupants { .. } => "occupants",
        NodeAsk::Drain => "drain",
    }
}

fn direct(all: Vec<Option<Reached>>) -> Result<NodeAnswer, Problem> {
    let mut reached = Reached::default();
    for one in all {
        let Some(one) = one else {
            let detail = "the node has no fresh word on what is revoked, and delivers nothing";
            return Err(Problem::new(ErrorKind::Overloaded, detail).retry_after_ms(1_000));
        };
        reached.accepted += one.accepted;
        reached.written += one.written;
    }
    Ok(NodeAnswer::Direct(reached))
}
