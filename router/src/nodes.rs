//! Nodes that can be asked something now: one Reach stream each, and the questions that are open on it.
//!
//! Owns the table of nodes and tells the locator, in order, what each says of the registry's members. A question is put at
//! most once; what its node does not answer in time is an error, and never put again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidegate_link::{
    NoRoom, NodeAnswer, NodeAsk, NodeHello, NodeSays, NodeStatus, NodeWord, ReachSender, ReachStream,
    RouterSays, reach_queue,
};
use tidegate_registry::{Current, client::LocateHandle};
use tidegate_vocab::{ErrorKind, Incarnation, Problem, limits};
use tokio::sync::{mpsc, oneshot};

use crate::Router;

/// After a start, gateways may be about to attach for so long.
const SETTLE: Duration = Duration::from_millis(limits::REACH_SETTLE_MS);
/// A node that has not renewed its word for so long is asked itself.
const WORD_TRUST: Duration = Duration::from_millis(limits::WORD_TRUST_MS);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(limits::REACH_TIMEOUT_MS);
/// When asking again may help, in milliseconds.
const RETRY_MS: u64 = 500;

type Answer = oneshot::Sender<Result<NodeAnswer, Problem>>;

/// See the module.
pub(crate) struct Nodes {
    started: Instant,
    table: Mutex<Table>,
    /// Held while the locator is told something: an older stream's word must not come behind a newer stream's.
    telling: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Table {
    nodes: BTreeMap<Incarnation, Node>,
    last_stream: u64,
    is_closed: bool,
}

struct Node {
    stream: u64,
    hello: NodeHello,
    since_s: u64,
    status: NodeStatus,
    /// Members of the registry that are current about it, as it said last.
    current: usize,
    sender: ReachSender,
    questions: Arc<Mutex<Questions>>,
    /// Dropped with the entry: ends the stream.
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Questions {
    last: u64,
    open: HashMap<u64, Answer>,
    is_ended: bool,
}

/// A node, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedNode {
    /// Its process start, name and version.
    pub hello: NodeHello,
    /// Since when this router reaches it, in seconds since the Unix epoch.
    pub since_s: u64,
    /// How it was a second ago at most.
    pub status: NodeStatus,
    /// How many members of the registry are current about it.
    pub current_members: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is one insertion, removal or assignment: a panic elsewhere leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Nodes {
    fn default() -> Self {
        Self { started: Instant::now(), table: Mutex::default(), telling: tokio::sync::Mutex::default() }
    }
}

impl Nodes {
    /// 1 while this router has just started: gateways that it does not know yet may have anybody. To be counted with
    /// those that did not answer.
    pub(crate) fn may_be_missing(&self) -> u32 {
        u32::from(self.started.elapsed() < SETTLE)
    }

    /// All nodes that can be asked.
    pub(crate) fn all(&self) -> Vec<Incarnation> {
        lock(&self.table).nodes.keys().copied().collect()
    }

    pub(crate) fn list(&self) -> Vec<ListedNode> {
        let table = lock(&self.table);
        let listed = table.nodes.values().map(|node| ListedNode {
            hello: node.hello.clone(),
            since_s: node.since_s,
            status: node.status,
            current_members: node.current,
        });
        listed.collect()
    }

    /// What operators call it.
    pub(crate) fn name(&self, node: Incarnation) -> Option<String> {
        lock(&self.table).nodes.get(&node).map(|node| node.hello.name.clone())
    }

    /// Puts a question to a node, now. The future waits for the answer.
    pub(crate) fn ask(
        &self,
        node: Incarnation,
        ask: NodeAsk,
    ) -> impl Future<Output = Result<NodeAnswer, Problem>> + Send + use<> {
        let put = self.put(node, ask);
        async move {
            let (mut open, answer) = put?;
            let answered = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
            open.is_answered = matches!(answered, Ok(Ok(_)));
            match answered {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(gone()),
                Err(_) => Err(Problem::new(ErrorKind::RequestTimeout, "the node did not answer in time")),
            }
        }
    }

    fn put(
        &self,
        node: Incarnation,
        ask: NodeAsk,
    ) -> Result<(Open, oneshot::Receiver<Result<NodeAnswer, Problem>>), Problem> {
        let (questions, sender) = {
            let table = lock(&self.table);
            let node = table.nodes.get(&node).ok_or_else(gone)?;
            (Arc::clone(&node.questions), node.sender.clone())
        };
        let (done, answer) = oneshot::channel();
        let number = {
            let mut open = lock(&questions);
            if open.is_ended {
                return Err(gone());
            }
            if open.open.len() >= limits::REACH_IN_FLIGHT_LIMIT {
                return Err(full());
            }
            open.last += 1;
            let number = open.last;
            open.open.insert(number, done);
            number
        };
        let guard = Open { questions, number, is_answered: false };
        sender.put(RouterSays::Ask { number, ask }).map_err(|error| match error {
            NoRoom::Full => full(),
            NoRoom::Ended => gone(),
        })?;
        Ok((guard, answer))
    }

    /// Every stream ends, and none is opened any more.
    pub(crate) fn close(&self) {
        let mut table = lock(&self.table);
        table.is_closed = true;
        table.nodes.clear();
    }

    fn enter(&self, hello: NodeHello, sender: ReachSender) -> Result<Entered, Problem> {
        let mut table = lock(&self.table);
        if table.is_closed {
            return Err(Problem::new(ErrorKind::Draining, "the router shuts down").retry_after_ms(1_000));
        }
        table.last_stream += 1;
        let (stream, questions) = (table.last_stream, Arc::<Mutex<Questions>>::default());
        let (stop, stopped) = oneshot::channel();
        let since_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let node = Node {
            stream,
            since_s,
            status: NodeStatus::default(),
            current: 0,
            sender,
            questions: Arc::clone(&questions),
            _stop: stop,
            hello,
        };
        // An older stream of the same process ends with its entry.
        table.nodes.insert(node.hello.incarnation, node);
        Ok(Entered { stream, questions, stopped })
    }

    /// True while this stream is the node's newest.
    fn with<R>(&self, node: Incarnation, stream: u64, f: impl FnOnce(&mut Node) -> R) -> Option<R> {
        let mut table = lock(&self.table);
        table.nodes.get_mut(&node).filter(|node| node.stream == stream).map(f)
    }

    fn leave(&self, node: Incarnation, stream: u64) -> bool {
        let mut table = lock(&self.table);
        let is_newest = table.nodes.get(&node).is_some_and(|node| node.stream == stream);
        if is_newest {
            table.nodes.remove(&node);
        }
        is_newest
    }
}

/// What a stream has of its entry.
struct Entered {
    stream: u64,
    questions: Arc<Mutex<Questions>>,
    stopped: oneshot::Receiver<()>,
}

/// A question that is open. What is given up is forgotten: a late answer goes nowhere.
struct Open {
    questions: Arc<Mutex<Questions>>,
    number: u64,
    is_answered: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_answered {
            lock(&self.questions).open.remove(&self.number);
        }
    }
}

/// What belongs to one stream while it is open.
struct Reading {
    router: Arc<Router>,
    node: Incarnation,
    entered: Entered,
    sender: ReachSender,
    /// The word as the locator has it.
    said: NodeWord,
}

impl Router {
    /// Enters a node that opens its Reach stream.
    pub(crate) fn enter_node(self: Arc<Self>, hello: NodeHello) -> Result<ReachStream, Problem> {
        let (sender, from_router) = reach_queue();
        let (to_router, says) = mpsc::channel(limits::REACH_QUEUE_LIMIT);
        let node = hello.incarnation;
        let entered = self.nodes.enter(hello, sender.clone())?;
        self.context.metrics.nodes_reached.inc();
        // Nothing is awaited before this: a dial that is given up leaves nothing behind.
        let reading = Reading { router: self, node, entered, sender, said: Vec::new() };
        tokio::spawn(reading.run(says));
        Ok(ReachStream { to_router, from_router })
    }
}

impl Reading {
    /// Until the node drops its side, or a newer stream takes this one's place.
    async fn run(mut self, mut says: mpsc::Receiver<NodeSays>) {
        let mut digests = self.router.locate.as_ref().map(LocateHandle::digest);
        if let Some(digests) = &mut digests {
            let digest = *digests.borrow_and_update();
            // invariant: an empty queue has room
            let _ = self.sender.put(RouterSays::Ring(digest));
        }
        // Attached, and current about nobody until it says so on this stream.
        let mut goes_on = self.tell(Vec::new(), true).await;
        let mut renewed = tokio::time::Instant::now();
        while goes_on {
            tokio::select! {
                () = tokio::time::sleep_until(renewed + WORD_TRUST), if !self.said.is_empty() => {
                    tracing::debug!(node = %self.node, "node does not renew its word, and is asked itself");
                    goes_on = self.tell(Vec::new(), false).await;
                }
                said = says.recv() => match said {
                    Some(said) => {
                        if let NodeSays::Word(_) = said {
                            renewed = tokio::time::Instant::now();
                        }
                        goes_on = self.heard(said).await;
                    }
                    None => break,
                },
                digest = changed(&mut digests) => {
                    // One that has no room for a word of eight bytes is stuck: it comes back, and hears it first.
                    if self.sender.put(RouterSays::Ring(digest)).is_err() {
                        break;
                    }
                }
                () = self.sender.closed() => break,
                _ = &mut self.entered.stopped => break,
            }
        }
        {
            let mut questions = lock(&self.entered.questions);
            questions.is_ended = true;
            questions.open.clear();
        }
        let _telling = self.router.nodes.telling.lock().await;
        let was_newest = self.router.nodes.leave(self.node, self.entered.stream);
        if let (true, Some(locate)) = (was_newest, &self.router.locate) {
            locate.detached(self.node).await;
        }
        self.router.context.metrics.nodes_reached.dec();
    }

    /// Tells the locator a word that differs from the last, or is the first; false once this stream is no longer the node's.
    async fn tell(&mut self, word: NodeWord, is_first: bool) -> bool {
        let nodes = &self.router.nodes;
        let _telling = nodes.telling.lock().await;
        if nodes.with(self.node, self.entered.stream, |node| node.current = word.len()).is_none() {
            return false;
        }
        if let Some(locate) = self.router.locate.as_ref().filter(|_| is_first || word != self.said) {
            let current = word.iter().map(|(member, digest)| Current { member: *member, digest: *digest });
            locate.node_says(self.node, current.collect()).await;
        }
        self.said = word;
        true
    }

    /// False once this stream is no longer the node's.
    async fn heard(&mut self, said: NodeSays) -> bool {
        let nodes = &self.router.nodes;
        match said {
            NodeSays::Answer { number, answer } => {
                if let Some(waiting) = lock(&self.entered.questions).open.remove(&number) {
                    // An error means that the asker has just given up.
                    drop(waiting.send(answer));
                }
                true
            }
            NodeSays::Status(status) => {
                nodes.with(self.node, self.entered.stream, |node| node.status = status).is_some()
            }
            NodeSays::Word(word) => self.tell(word, false).await,
        }
    }
}

/// The next digest of the ring; never where there is no registry.
async fn changed(digests: &mut Option<tokio::sync::watch::Receiver<u64>>) -> u64 {
    if let Some(digests) = digests
        && digests.changed().await.is_ok()
    {
        return *digests.borrow_and_update();
    }
    std::future::pending().await
}

fn gone() -> Problem {
    Problem::new(ErrorKind::Draining, "the node is not attached").retry_after_ms(RETRY_MS)
}

fn full() -> Problem {
    Problem::new(ErrorKind::Overloaded, "too many questions wait for the node").retry_after_ms(RETRY_MS)
}
