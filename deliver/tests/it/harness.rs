//! A served fake router, a wire that can be cut or stalled, and waits with deadlines.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus::Registry;
use tidegate_deliver::{Dialer, Key, Metrics, server};
use tidegate_link::{
    BoxFuture, ControlAnswer, ControlAsk, ControlStanding, DeliverSender, DeliverStream, NodeHello, NodeSays,
    ReachSender, ReachStream, Routed, RouterLink, Settled, UpstreamMessage, deliver_queue, reach_queue,
};
use tidegate_tenure::{ToNode, ToRouter};
use tidegate_vocab::{
    Channel, ConnectionId, ErrorKind, Event, EventName, Incarnation, LogEpoch, Offset, PartitionId, Payload,
    Position, Problem, Revocation, RevocationScope, Term, Topic, UserId,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};

/// Longest wait for anything that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const PARTITION: PartitionId = PartitionId { topic: Topic::Events, number: 3 };
/// Room of a stream's queue in the fake router.
pub(crate) const QUEUE_BYTES: usize = 2 * 1024 * 1024;

/// The router's side of one attached node.
pub(crate) struct Node {
    pub(crate) incarnation: Incarnation,
    pub(crate) sender: DeliverSender,
    pub(crate) frames: mpsc::Receiver<ToRouter>,
}

/// A router that does as the test says.
pub(crate) struct FakeRouter {
    attached: mpsc::UnboundedSender<Node>,
    pub(crate) said: Mutex<Vec<UpstreamMessage>>,
    pub(crate) answers: watch::Sender<bool>,
    pub(crate) reached: Mutex<Vec<Reaching>>,
}

/// The router's side of one Reach stream.
pub(crate) type Reaching = (NodeHello, ReachSender, mpsc::Receiver<NodeSays>);

impl RouterLink for FakeRouter {
    fn attach(&self, incarnation: Incarnation) -> BoxFuture<'_, Result<DeliverStream, Problem>> {
        Box::pin(async move {
            if incarnation == Incarnation(0) {
                return Err(Problem::new(ErrorKind::Draining, "the router shuts down").retry_after_ms(1_000));
            }
            let (sender, from_router) = deliver_queue(QUEUE_BYTES);
            let (to_router, frames) = mpsc::channel(64);
            drop(self.attached.send(Node { incarnation, sender, frames }));
            Ok(DeliverStream { to_router, from_router })
        })
    }

    /// Accepts in order; answers once told to. Refuses what is said in `refused`.
    fn upstream(&self, message: UpstreamMessage) -> BoxFuture<'static, Result<Position, Problem>> {
        let (seq, is_refused) = (message.seq, message.channel.as_str() == "refused");
        self.said.lock().expect("no panic").push(message);
        let mut answers = self.answers.subscribe();
        Box::pin(async move {
            answers.wait_for(|answers| *answers).await.expect("the router lives");
            if is_refused {
                return Err(Problem::new(ErrorKind::StorageFull, "full").retry_after_ms(7));
            }
            Ok(Position { epoch: LogEpoch(9), partition: 2, offset: Offset(seq) })
        })
    }

    fn resolve(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> BoxFuture<'static, Result<Settled, Problem>> {
        assert_eq!(partition, PARTITION);
        Box::pin(async move {
            match offset.0 {
                0 => Ok(Settled::Fresh),
                1 => Ok(Settled::DuplicateOf(Offset(0))),
                2 => Ok(Settled::Conflict),
                3 => Ok(Settled::Unreadable),
                _ => Err(Problem::new(ErrorKind::LogUnavailable, "not mine")),
            }
        })
    }

    /// One record behind where the node has read.
    fn control(&self, ask: ControlAsk) -> BoxFuture<'static, Result<ControlAnswer, Problem>> {
        let user = UserId::parse("alice").expect("valid");
        let revocation = Revocation { user, scope: RevocationScope::IssuedBefore(1_800_000_000) };
        Box::pin(async move {
            Ok(ControlAnswer {
                epoch: ask.epoch,
                start: Offset(0),
                records: vec![(ask.next, revocation)],
                next: ask.next.next(),
                standing: ControlStanding::Fresh { age_ms: 42 },
            })
        })
    }

    fn reach(&self, node: NodeHello) -> BoxFuture<'_, Result<ReachStream, Problem>> {
        let (sender, from_router) = reach_queue();
        let (to_router, says) = mpsc::channel(16);
        self.reached.lock().expect("sound").push((node, sender, says));
        Box::pin(async move { Ok(ReachStream { to_router, from_router }) })
    }

    fn ephemeral(&self, event: Arc<Event>) -> BoxFuture<'static, Result<Routed, Problem>> {
        let nodes = event.payload.bytes().len() as u32;
        Box::pin(async move { Ok(if nodes == 0 { Routed::NotOwner } else { Routed::Nodes(nodes) }) })
    }
}

/// A fake router behind a real server, behind a wire.
pub(crate) struct Served {
    pub(crate) router: Arc<FakeRouter>,
    pub(crate) nodes: mpsc::UnboundedReceiver<Node>,
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
    pub(crate) wire: Wire,
    pub(crate) server: tokio::task::JoinHandle<()>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
}

impl Served {
    pub(crate) async fn start(key: Option<Key>) -> Self {
        let (attached, nodes) = mpsc::unbounded_channel();
        let answers = watch::Sender::new(true);
        let router =
            Arc::new(FakeRouter { attached, said: Mutex::default(), answers, reached: Mutex::default() });
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).expect("registers");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let wire = Wire::to(listener.local_addr().expect("bound")).await;
        let link = Arc::clone(&router) as Arc<dyn RouterLink>;
        let serving = server(link, Incarnation(77), key, metrics.clone());
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            serving.serve(listener, async { drop(stopped.await) }).await.expect("serves");
        });
        Self { router, nodes, registry, metrics, wire, server, stop: Some(stop) }
    }

    pub(crate) fn dial(&self) -> Arc<tidegate_deliver::Remote> {
        Dialer { key: None, metrics: self.metrics.clone() }.remote(self.wire.address)
    }

    /// Attaches a node, again where the connection has just broken, and waits for the router's side of it.
    pub(crate) async fn attach(&mut self, link: &dyn RouterLink) -> (DeliverStream, Node) {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match link.attach(Incarnation::random()).await {
                Ok(stream) => break stream,
                Err(problem) => {
                    assert!(problem.kind.is_retryable() && Instant::now() < deadline, "{problem}")
                }
            }
        };
        let node = within("the router's side", self.nodes.recv()).await.expect("the router lives");
        (stream, node)
    }

    /// The value of a counter or gauge with these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families: BTreeMap<String, _> =
            self.registry.gather().into_iter().map(|family| (family.name().to_owned(), family)).collect();
        let metrics = families.get(name).unwrap_or_else(|| panic!("{name} is there")).get_metric();
        let has = |metric: &prometheus::proto::Metric| {
            labels.iter().all(|(name, value)| {
                metric.get_label().iter().any(|label| label.name() == *name && label.value() == *value)
            })
        };
        metrics
            .iter()
            .filter(|metric| has(metric))
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}

/// A wire between client and server that can be cut, or go silent without a word.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    is_silent: watch::Sender<bool>,
    cuts: watch::Sender<u64>,
}

impl Wire {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (is_silent, cuts) = (watch::Sender::new(false), watch::Sender::new(0));
        let (silences, cutting) = (is_silent.clone(), cuts.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let there = carry(from_client, to_server, silences.subscribe());
                let back = carry(from_server, to_client, silences.subscribe());
                let mut cut = cutting.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = cut.changed() => {}
                        () = there => {}
                        () = back => {}
                    }
                });
            }
        });
        Self { address, is_silent, cuts }
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Carries nothing, and ends nothing either.
    pub(crate) fn silence(&self, is_silent: bool) {
        self.is_silent.send_replace(is_silent);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut is_silent: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 || is_silent.wait_for(|is_silent| !is_silent).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

pub(crate) async fn within<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn event(offset: Option<u64>, payload: &Bytes) -> Arc<Event> {
    Arc::new(Event {
        channel: Channel::parse("score:42").expect("valid"),
        name: EventName::MESSAGE,
        payload: Payload::Binary(payload.clone()),
        time_ms: 1,
        offset: offset.map(Offset),
        expires_ms: None,
        trace: None,
    })
}

pub(crate) fn live(offset: u64, payload: &Bytes) -> ToNode {
    ToNode::Event { partition: PARTITION, term: Term(5), n: 1, event: event(Some(offset), payload) }
}

pub(crate) fn ack(next: u64) -> ToRouter {
    ToRouter::Ack {
        partition: PARTITION,
        term: Term(5),
        n: 1,
        next: Offset(next),
        number: 0,
        held: 0,
        held_xor: 0,
    }
}

pub(crate) fn message(channel: &str, seq: u64) -> UpstreamMessage {
    UpstreamMessage {
        connection: ConnectionId(1, 2),
        user: None,
        channel: Channel::parse(channel).expect("valid"),
        payload: Payload::Json(Bytes::from(seq.to_string())),
        seq,
        trace_parent: None,
    }
}
