//! A router on a directory, a node that follows channels, and waiting with a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus::Registry;
use tidegate_eventlog::embedded::{EmbeddedLog, EmbeddedOptions};
use tidegate_eventlog::{EventLog, store};
use tidegate_history::{HistoryOptions, HistoryStore, Retention};
use tidegate_link::{DeliverStream, RouterLink as _};
use tidegate_router::publish::{Accepted, Data, PublishError, PublishRequest, Published, Target};
use tidegate_router::{Api, Router, RouterConfig};
use tidegate_tenure::{Node, NodeOut, Outcome, StreamId, WantFrom, WantId};
use tidegate_vocab::{Channel, Event, Incarnation, LogEpoch, Offset, PartitionCounts, PartitionId};
use tokio::sync::{mpsc, watch};

use crate::faulty_log::{Faults, FaultyLog};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` gives something.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) struct TestRouter {
    pub(crate) router: Arc<Router>,
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) registry: Registry,
    history: Arc<HistoryStore>,
    database: fjall::Database,
}

impl TestRouter {
    pub(crate) async fn open(directory: &Path) -> Self {
        Self::open_with(directory, |_| {}).await
    }

    pub(crate) async fn open_with(directory: &Path, configure: impl FnOnce(&mut RouterConfig)) -> Self {
        Self::open_on(directory, configure, |log| log).await
    }

    /// With a log that fails when told to.
    pub(crate) async fn open_faulty(directory: &Path) -> (Self, Arc<Faults>) {
        Self::open_faulty_with(directory, |_| {}).await
    }

    /// As above, and a publish is given up after 300 ms.
    pub(crate) async fn open_impatient(directory: &Path) -> (Self, Arc<Faults>) {
        Self::open_faulty_with(directory, |config| config.publish_timeout_ms = 300).await
    }

    pub(crate) async fn open_faulty_with(
        directory: &Path,
        configure: impl FnOnce(&mut RouterConfig),
    ) -> (Self, Arc<Faults>) {
        Self::open_faulty_from_the_start(directory, configure, Arc::default()).await
    }

    /// With faults that are there before the router is.
    pub(crate) async fn open_faulty_from_the_start(
        directory: &Path,
        configure: impl FnOnce(&mut RouterConfig),
        faults: Arc<Faults>,
    ) -> (Self, Arc<Faults>) {
        let of_log = Arc::clone(&faults);
        let wrap = |log| Arc::new(FaultyLog { log, faults: of_log }) as _;
        (Self::open_on(directory, configure, wrap).await, faults)
    }

    async fn open_on(
        directory: &Path,
        configure: impl FnOnce(&mut RouterConfig),
        wrap: impl FnOnce(Arc<EmbeddedLog>) -> Arc<dyn EventLog>,
    ) -> Self {
        let database = store::open_database(directory, 8 << 20).expect("store opens");
        let options = EmbeddedOptions::new(PartitionCounts::same(2));
        let log = EmbeddedLog::open(database.clone(), options).expect("log opens");
        let retention = Retention { rows: 50_000, age_ms: 3_600_000 };
        let history = HistoryStore::open(database.clone(), HistoryOptions::same(retention));
        let history = Arc::new(history.expect("history opens"));
        let registry = Registry::new();
        let mut config = RouterConfig::new(Incarnation::random());
        configure(&mut config);
        let router =
            Router::start(config, wrap(Arc::clone(&log)), Arc::clone(&history), &registry).expect("starts");
        eventually("router is ready", || router.ready().ok()).await;
        Self { router, log, registry, history, database }
    }

    /// As [`TestRouter::close`], and the history is of no use afterwards.
    pub(crate) async fn close_and_forget_history(self) {
        self.router.shutdown().await;
        for partition in PartitionCounts::same(2).followed() {
            self.history.reset(partition, LogEpoch(1), Offset(0)).expect("reset");
        }
        self.close().await;
    }

    /// Stops everything, so that the directory may be opened again.
    pub(crate) async fn close(self) {
        self.router.shutdown().await;
        self.log.close();
        let Self { router, log, history, database, .. } = self;
        eventually("router is dropped", || (Arc::strong_count(&router) == 1).then_some(())).await;
        drop(router);
        eventually("log is dropped", || (Arc::strong_count(&log) == 1).then_some(())).await;
        eventually("history is dropped", || (Arc::strong_count(&history) == 1).then_some(())).await;
        drop((log, history, database));
    }

    pub(crate) async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has an address");
        self.router.serve_api(listener);
        address
    }

    pub(crate) async fn publish(&self, channel: &str, json: &str) -> String {
        pos(Ok(self.must_publish(event(channel, json)).await))
    }

    /// Publishes as a backend should: asks again under the key that the answer names. A disk that others keep busy
    /// may take longer to sync than a publish may take.
    pub(crate) async fn must_publish(&self, mut request: PublishRequest) -> Published {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_publish(request.clone()).await {
                Ok(published) => return published,
                Err(error) => {
                    assert!(error.problem.kind.is_retryable() && Instant::now() < deadline, "{error}");
                    request.idempotency_key = error.idempotency_key;
                }
            }
        }
    }

    pub(crate) async fn try_publish(&self, request: PublishRequest) -> Result<Published, PublishError> {
        self.router.publish(Api::Local, request).await
    }

    /// The value of a metric without labels, or the sum over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
        metrics.iter().map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
    }
}

pub(crate) fn event(channel: &str, json: &str) -> PublishRequest {
    PublishRequest {
        targets: vec![Target::Channel(channel.into())],
        event: None,
        data: Data::Json(Bytes::copy_from_slice(json.as_bytes())),
        idempotency_key: None,
        ttl_ms: None,
        ephemeral: false,
        trace: None,
    }
}

/// The position of a publish with one target.
pub(crate) fn pos(published: Result<Published, PublishError>) -> String {
    match published.expect("accepted").results.remove(0).outcome.expect("accepted") {
        Accepted::Durable { pos, .. } => pos,
        Accepted::Ephemeral { .. } => panic!("not durable"),
    }
}

/// What a node has heard, per channel in order.
#[derive(Default)]
pub(crate) struct Heard {
    events: BTreeMap<String, Vec<Arc<Event>>>,
    established: BTreeMap<String, Outcome>,
    lost: BTreeSet<String>,
    terms: u64,
}

/// A node with one stream that follows channels with the real protocol.
pub(crate) struct TestNode {
    pub(crate) heard: Arc<Mutex<Heard>>,
    subscribe: mpsc::Sender<(Channel, WantFrom)>,
    reading: watch::Sender<bool>,
}

impl TestNode {
    pub(crate) async fn attach(router: &TestRouter) -> Self {
        let stream = router.router.attach(Incarnation::random()).await.expect("attaches");
        Self::on(stream)
    }

    pub(crate) fn on(stream: DeliverStream) -> Self {
        let heard = Arc::<Mutex<Heard>>::default();
        let (subscribe, subscriptions) = mpsc::channel(64);
        let (reading, is_reading) = watch::channel(true);
        let task = NodeTask {
            stream,
            nodes: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            last_want: 0,
            heard: Arc::clone(&heard),
        };
        tokio::spawn(task.run(subscriptions, is_reading));
        Self { heard, subscribe, reading }
    }

    pub(crate) async fn follow(&self, channel: &str, from: WantFrom) -> Outcome {
        let name = Channel::parse(channel).expect("valid");
        self.subscribe.send((name, from)).await.expect("node runs");
        let established = || self.heard.lock().expect("lock").established.get(channel).copied();
        eventually("subscription is established", established).await
    }

    /// Stops or resumes reading from the router.
    pub(crate) fn read(&self, on: bool) {
        self.reading.send_replace(on);
    }

    pub(crate) fn data(&self, channel: &str) -> Vec<String> {
        let heard = self.heard.lock().expect("lock");
        let events = heard.events.get(channel).map(Vec::as_slice).unwrap_or_default();
        events.iter().map(|event| String::from_utf8_lossy(event.payload.bytes()).into_owned()).collect()
    }

    pub(crate) fn events(&self, channel: &str) -> Vec<Arc<Event>> {
        self.heard.lock().expect("lock").events.get(channel).cloned().unwrap_or_default()
    }

    pub(crate) fn is_lost(&self, channel: &str) -> bool {
        self.heard.lock().expect("lock").lost.contains(channel)
    }

    pub(crate) async fn hears(&self, channel: &str, expected: &[&str]) {
        eventually(&format!("{channel} hears {expected:?}"), || {
            (self.data(channel) == expected).then_some(())
        })
        .await;
    }
}

struct Subscription {
    channel: Channel,
    live_from: Option<Offset>,
}

struct NodeTask {
    stream: DeliverStream,
    nodes: BTreeMap<PartitionId, Node>,
    subscriptions: BTreeMap<WantId, Subscription>,
    last_want: u64,
    heard: Arc<Mutex<Heard>>,
}

const STREAM: StreamId = StreamId(1);

impl NodeTask {
    async fn run(
        mut self,
        mut subscriptions: mpsc::Receiver<(Channel, WantFrom)>,
        mut reading: watch::Receiver<bool>,
    ) {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            let mut out = Vec::new();
            let is_reading = *reading.borrow_and_update();
            tokio::select! {
                changed = reading.changed() => if changed.is_err() { return },
                subscription = subscriptions.recv() => match subscription {
                    Some((channel, from)) => self.subscribe(channel, from, &mut out),
                    None => return,
                },
                frames = self.stream.from_router.next(64), if is_reading => {
                    let Some(frames) = frames else { return };
                    for frame in frames {
                        if let tidegate_tenure::ToNode::Owned { .. } = frame {
                            self.heard.lock().expect("lock").terms += 1;
                        }
                        self.node(frame.partition()).on_frame(STREAM, frame, 0, &mut out);
                    }
                }
                _ = ticks.tick() => self.nodes.values_mut().for_each(|node| node.tick(0, &mut out)),
            }
            for done in out {
                if !self.deliver(done).await {
                    return;
                }
            }
        }
    }

    fn node(&mut self, partition: PartitionId) -> &mut Node {
        self.nodes.entry(partition).or_insert_with(|| Node::new(partition))
    }

    fn subscribe(&mut self, channel: Channel, from: WantFrom, out: &mut Vec<NodeOut>) {
        self.last_want += 1;
        let want = WantId(self.last_want);
        self.subscriptions.insert(want, Subscription { channel: channel.clone(), live_from: None });
        let partition = PartitionCounts::same(2).partition_of(&channel);
        self.node(partition).subscribe(want, channel, from, 0, out);
    }

    /// False when the router is gone.
    async fn deliver(&mut self, out: NodeOut) -> bool {
        match out {
            NodeOut::Send(_, frame) => return self.stream.to_router.send(frame).await.is_ok(),
            NodeOut::Event(event) => {
                let live = |subscription: &&Subscription| {
                    subscription.channel == event.channel
                        && subscription.live_from.is_some_and(|from| event.offset.is_none_or(|at| at >= from))
                };
                if self.subscriptions.values().any(|subscription| live(&subscription)) {
                    self.keep(event);
                }
            }
            NodeOut::History { want, rows, .. } if self.subscriptions.contains_key(&want) => {
                rows.into_iter().for_each(|row| self.keep(row));
            }
            NodeOut::Established { want, outcome, upto, .. } => {
                if let Some(subscription) = self.subscriptions.get_mut(&want) {
                    subscription.live_from = Some(upto);
                    let channel = subscription.channel.to_string();
                    self.heard.lock().expect("lock").established.insert(channel, outcome);
                }
            }
            NodeOut::Lost { channel, .. } => {
                let name = channel.map_or_else(|| "*".into(), |channel| channel.to_string());
                self.heard.lock().expect("lock").lost.insert(name);
            }
            NodeOut::History { .. } | NodeOut::Mark(_) | NodeOut::EpochChanged(_) => {}
        }
        true
    }

    /// A subscription's positions strictly rise, whatever the router does.
    fn keep(&self, event: Arc<Event>) {
        let mut heard = self.heard.lock().expect("lock");
        let events = heard.events.entry(event.channel.to_string()).or_default();
        let last = events.iter().rev().find_map(|before| before.offset);
        assert!(event.offset.is_none() || event.offset > last, "{:?} after {last:?}", event.offset);
        events.push(event);
    }
}
