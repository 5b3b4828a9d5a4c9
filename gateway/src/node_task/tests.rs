use std::sync::Mutex;

use tidegate_link::{
    BoxFuture, ControlAnswer, ControlAsk, DeliverSender, DeliverStream, NodeHello, ReachStream, Routed,
    RouterLink, Settled, UpstreamMessage, deliver_queue,
};
use tidegate_tenure::{Outcome, ToNode, WantFrom, WantId};
use tidegate_vocab::{Channel, ErrorKind, Event, LogEpoch, Offset, Position, Problem, Term};
use tokio::sync::watch;

use super::*;

/// Longest wait for anything that has to happen; time is paused.
const PATIENCE: Duration = Duration::from_secs(60);

/// The router's side of one stream.
struct Attached {
    sender: DeliverSender,
    frames: mpsc::Receiver<ToRouter>,
}

/// A router that hands its streams to the test, or refuses.
struct FakeRouter {
    attached: mpsc::UnboundedSender<Attached>,
    is_refusing: AtomicBool,
    dialled: Mutex<Vec<Instant>>,
}

impl FakeRouter {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Attached>) {
        let (attached, streams) = mpsc::unbounded_channel();
        let dialled = Mutex::default();
        (Arc::new(Self { attached, is_refusing: AtomicBool::new(false), dialled }), streams)
    }

    fn dialled(&self) -> Vec<Instant> {
        self.dialled.lock().expect("no panic").clone()
    }
}

impl RouterLink for FakeRouter {
    fn attach(&self, _: Incarnation) -> BoxFuture<'_, Result<DeliverStream, Problem>> {
        self.dialled.lock().expect("no panic").push(Instant::now());
        let (sender, from_router) = deliver_queue(1024 * 1024);
        let (to_router, frames) = mpsc::channel(1);
        let is_refusing = self.is_refusing.load(Ordering::Relaxed);
        Box::pin(async move {
            if is_refusing {
                return Err(Problem::new(ErrorKind::Draining, "refuses"));
            }
            drop(self.attached.send(Attached { sender, frames }));
            Ok(DeliverStream { to_router, from_router })
        })
    }

    fn upstream(&self, _: UpstreamMessage) -> BoxFuture<'static, Result<Position, Problem>> {
        Box::pin(std::future::pending())
    }

    fn resolve(&self, _: PartitionId, _: Offset) -> BoxFuture<'static, Result<Settled, Problem>> {
        Box::pin(std::future::pending())
    }

    fn control(&self, _: ControlAsk) -> BoxFuture<'static, Result<ControlAnswer, Problem>> {
        Box::pin(std::future::pending())
    }

    fn reach(&self, _: NodeHello) -> BoxFuture<'_, Result<ReachStream, Problem>> {
        Box::pin(std::future::pending())
    }

    fn ephemeral(&self, _: Arc<Event>) -> BoxFuture<'static, Result<Routed, Problem>> {
        Box::pin(std::future::pending())
    }
}

/// A node task of one partition a topic, with one shard that reads everything.
struct Running {
    commands: mpsc::Sender<Vec<NodeCommand>>,
    routers: watch::Sender<BTreeMap<String, Arc<dyn RouterLink>>>,
    metrics: Metrics,
    owners_heard: Arc<AtomicBool>,
    counts: PartitionCounts,
}

impl Running {
    fn start(routers: &[(&str, &Arc<FakeRouter>)]) -> Self {
        let counts = PartitionCounts::same(1);
        let metrics = Metrics::register(&prometheus::Registry::new()).expect("registers");
        let (shard, mut items) = mpsc::channel(8);
        tokio::spawn(async move { while items.recv().await.is_some() {} });
        let owners_heard = Arc::new(AtomicBool::new(false));
        let task =
            NodeTask::new(counts, vec![shard], Clock::start(), metrics.clone(), Arc::clone(&owners_heard));
        let (sender, watching) = watch::channel(named(routers));
        let (commands, inbox) = mpsc::channel(64);
        tokio::spawn(task.run(watching, Incarnation(1), inbox));
        Self { commands, routers: sender, metrics, owners_heard, counts }
    }

    async fn subscribe(&self, wants: std::ops::Range<u64>) {
        let channel = Channel::parse("a").expect("valid");
        let partition = self.counts.partition_of(&channel);
        let subscribe = |want| NodeCommand::Subscribe {
            want: WantId(want),
            partition,
            channel: channel.clone(),
            from: WantFrom::Now,
        };
        self.commands.send(wants.map(subscribe).collect()).await.expect("runs");
    }
}

fn named(routers: &[(&str, &Arc<FakeRouter>)]) -> BTreeMap<String, Arc<dyn RouterLink>> {
    let link = |router: &Arc<FakeRouter>| Arc::clone(router) as Arc<dyn RouterLink>;
    routers.iter().map(|(address, router)| ((*address).to_owned(), link(router))).collect()
}

fn owned(partition: PartitionId, term: u64) -> ToNode {
    ToNode::Owned { partition, term: Term(term), epoch: LogEpoch(1), floor: Offset(0) }
}

async fn next(streams: &mut mpsc::UnboundedReceiver<Attached>) -> Attached {
    tokio::time::timeout(PATIENCE, streams.recv()).await.expect("dialled in time").expect("the router lives")
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn attachments_follow_what_discovery_names() {
    let (one, mut to_one) = FakeRouter::new();
    let (other, mut to_other) = FakeRouter::new();
    let running = Running::start(&[]);
    assert!(!running.owners_heard.load(Ordering::Relaxed));
    running.routers.send_replace(named(&[("one", &one)]));
    let first = next(&mut to_one).await;
    running.routers.send_replace(named(&[("one", &one), ("other", &other)]));
    let second = next(&mut to_other).await;
    eventually("two streams", || running.metrics.streams.get() == 2).await;
    // Ready means that every partition has been named by some owner, once.
    let partitions: Vec<PartitionId> = running.counts.followed().collect();
    first.sender.push(partitions[..1].iter().map(|partition| owned(*partition, 1)));
    eventually("the frame is read", || first.sender.room() == 1024 * 1024).await;
    assert!(!running.owners_heard.load(Ordering::Relaxed));
    second.sender.push(partitions[1..].iter().map(|partition| owned(*partition, 1)));
    eventually("all owners are heard", || running.owners_heard.load(Ordering::Relaxed)).await;
    // One that is no longer named keeps its stream and is not dialled once that has ended.
    running.routers.send_replace(named(&[("other", &other)]));
    assert!(tokio::time::timeout(Duration::from_secs(5), to_one.recv()).await.is_err());
    assert!(!first.sender.is_closed());
    first.sender.close();
    eventually("one stream", || running.metrics.streams.get() == 1).await;
    assert!(tokio::time::timeout(Duration::from_secs(5), to_one.recv()).await.is_err());
    // And dialled again when it is named again.
    running.routers.send_replace(named(&[("one", &one), ("other", &other)]));
    next(&mut to_one).await;
    assert!(running.owners_heard.load(Ordering::Relaxed), "later losses do not count");
}

/// Two streams of one term: the newer is the owner, whichever router's it is and however often the other was dialled.
#[tokio::test(start_paused = true)]
async fn the_newer_stream_has_the_higher_id() {
    let (one, mut to_one) = FakeRouter::new();
    let (other, mut to_other) = FakeRouter::new();
    let running = Running::start(&[("z", &one)]);
    for _ in 0..5 {
        next(&mut to_one).await.sender.close();
    }
    let mut older = next(&mut to_one).await;
    let partition = running.counts.partition_of(&Channel::parse("a").expect("valid"));
    older.sender.push([owned(partition, 7)]);
    running.subscribe(0..1).await;
    assert!(matches!(older.frames.recv().await, Some(ToRouter::Resume { n: 1, .. })));
    assert!(matches!(older.frames.recv().await, Some(ToRouter::Want { .. })));
    running.routers.send_replace(named(&[("z", &one), ("a", &other)]));
    let mut newer = next(&mut to_other).await;
    newer.sender.push([owned(partition, 7)]);
    assert!(matches!(newer.frames.recv().await, Some(ToRouter::Resume { n: 2, .. })));
    assert!(matches!(newer.frames.recv().await, Some(ToRouter::Want { .. })));
}

/// The second subscriber of a channel costs its owner nothing.
#[tokio::test(start_paused = true)]
async fn a_held_channel_is_joined_without_the_owner() {
    let (router, mut streams) = FakeRouter::new();
    let running = Running::start(&[("one", &router)]);
    let mut attached = next(&mut streams).await;
    let partition = running.counts.partition_of(&Channel::parse("a").expect("valid"));
    let (term, n, upto) = (Term(1), 1, Offset(5));
    attached.sender.push([owned(partition, 1)]);
    running.subscribe(0..1).await;
    assert!(matches!(attached.frames.recv().await, Some(ToRouter::Resume { .. })));
    assert!(matches!(attached.frames.recv().await, Some(ToRouter::Want { number: 1, .. })));
    let (want, outcome) = (WantId(0), Outcome::Fresh);
    attached.sender.push([
        ToNode::HistoryEnd { partition, term, n, want, outcome, upto },
        ToNode::Mark { partition, term, n, next: upto, age_ms: 0 },
    ]);
    eventually("the marks are read", || attached.sender.room() == 1024 * 1024).await;
    running.subscribe(1..3).await;
    eventually("own answers", || running.metrics.own_answers.get() == 2).await;
    loop {
        match attached.frames.recv().await {
            Some(ToRouter::Ack { number: 1, held: 1, next, .. }) if next == upto => return,
            Some(ToRouter::Ack { number: 1, held: 1, .. }) => {} // From before the Mark.
            other => panic!("{other:?} although all was answered here"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_an_owner_has_every_router_dialled_each_second() {
    let (router, mut streams) = FakeRouter::new();
    router.is_refusing.store(true, Ordering::Relaxed);
    let running = Running::start(&[("one", &router)]);
    running.subscribe(0..1).await;
    eventually("an alarm", || running.metrics.partitions_unserved.get() == 1).await;
    eventually("rounds of dialling", || running.metrics.redials.get() >= 5).await;
    let dialled = router.dialled();
    let gaps = dialled.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.max().is_some_and(|longest| longest <= Duration::from_millis(1_100)), "{dialled:?}");
    assert!(dialled[1] - dialled[0] <= Duration::from_millis(150), "the first retry is quick");
    router.is_refusing.store(false, Ordering::Relaxed);
    let attached = next(&mut streams).await;
    let partition = running.counts.partition_of(&Channel::parse("a").expect("valid"));
    attached.sender.push([owned(partition, 1)]);
    eventually("no alarm", || running.metrics.partitions_unserved.get() == 0).await;
}

/// A router that takes no frame while very many wait loses its stream; all of them are asked for on the next.
#[tokio::test(start_paused = true)]
async fn a_stuck_router_loses_its_stream() {
    let (router, mut streams) = FakeRouter::new();
    let running = Running::start(&[("one", &router)]);
    let stuck = next(&mut streams).await;
    let partition = running.counts.partition_of(&Channel::parse("a").expect("valid"));
    stuck.sender.push([owned(partition, 1)]);
    let count = limits::STREAM_WAITING_FRAMES_LIMIT as u64 + 100;
    running.subscribe(0..count).await;
    let mut resumed = next(&mut streams).await;
    assert!(stuck.sender.is_closed());
    assert_eq!(running.metrics.streams_stuck.get(), 1);
    resumed.sender.push([owned(partition, 1)]);
    assert!(matches!(resumed.frames.recv().await, Some(ToRouter::Resume { n: 2, .. })));
    for number in 1..=count {
        match resumed.frames.recv().await {
            Some(ToRouter::Want { number: heard, .. }) => assert_eq!(heard, number),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(running.metrics.streams_stuck.get(), 1, "a router that reads keeps its stream");
}
