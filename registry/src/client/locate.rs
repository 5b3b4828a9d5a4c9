//! The task that owns a router's [`Locator`] and puts its questions.

mod calls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_proto::registry::v1 as wire;
use tidegate_vocab::{Channel, ErrorKind, Incarnation, Problem, limits};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::{RegistryClientWithKey, connect};
use crate::convert::{MessageError, incarnation_from_wire, location_from_wire};
use crate::frame::{Current, Location};
use crate::locator::{AskId, Done, Found, Locator, LookupId};
use crate::members::MemberList;
use crate::metrics::LocateMetrics;
use crate::ring::{MemberId, RingError};
use calls::{Call, Calls};
use tidegate_proto::key::Key;

/// Pause between two looks at deadlines while a lookup waits.
const TICK: Duration = Duration::from_millis(5);
/// Commands taken before questions are put: those that wait already share calls.
const COMMANDS_AT_ONCE: usize = 256;

type Answer = oneshot::Sender<Result<Vec<Found>, Problem>>;

/// Who waits for a lookup, and since when.
#[derive(Debug)]
struct Waiting {
    answer: Answer,
    since: Instant,
}

#[derive(Debug)]
enum Command {
    Locate(Vec<Channel>, Waiting),
    NodeSays(Incarnation, Vec<Current>),
    Detached(Incarnation),
    Members(MemberList),
}

#[derive(Debug)]
struct Answered {
    member: MemberId,
    asks: Vec<(AskId, usize)>,
    answer: Option<(Incarnation, Vec<Location>)>,
}

/// Speaks to the task.
#[derive(Debug, Clone)]
pub struct LocateHandle {
    commands: mpsc::Sender<Command>,
    digest: watch::Receiver<u64>,
}

impl LocateHandle {
    /// Where these subjects are, in their order: what a member said, and the nodes to be asked besides. Takes two deadlines (100 ms)
    /// at most.
    ///
    /// # Errors
    /// When there are more than 4,096 keys, or too many lookups wait.
    pub async fn locate(&self, subjects: Vec<Channel>) -> Result<Vec<Found>, Problem> {
        let (done, answered) = oneshot::channel();
        let waiting = Waiting { answer: done, since: Instant::now() };
        let ended = || Problem::new(ErrorKind::Draining, "the router shuts down");
        self.commands.send(Command::Locate(subjects, waiting)).await.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }

    /// A node attached, or changed its word on who is current about it. In the order in which the node spoke.
    pub async fn node_says(&self, node: Incarnation, current: Vec<Current>) {
        // An error means that the task is gone: the process is ending.
        drop(self.commands.send(Command::NodeSays(node, current)).await);
    }

    /// A node is no longer attached.
    pub async fn detached(&self, node: Incarnation) {
        drop(self.commands.send(Command::Detached(node)).await);
    }

    /// A newer member list. One that is not newer is ignored.
    ///
    /// # Errors
    /// When it makes no ring; then the old one stays.
    pub async fn set_members(&self, list: MemberList) -> Result<(), RingError> {
        list.ring()?;
        drop(self.commands.send(Command::Members(list)).await);
        Ok(())
    }

    /// The ring that this router speaks: to be told to every attached node.
    #[must_use]
    pub fn digest(&self) -> watch::Receiver<u64> {
        self.digest.clone()
    }
}

/// The task that owns a router's [`Locator`].
#[derive(Debug)]
pub struct LocateTask {
    locator: Locator,
    list: MemberList,
    key: Option<Key>,
    clients: HashMap<MemberId, RegistryClientWithKey>,
    calls: Calls,
    commands: mpsc::Receiver<Command>,
    answers: (mpsc::Sender<Answered>, mpsc::Receiver<Answered>),
    waiting: HashMap<LookupId, Waiting>,
    metrics: LocateMetrics,
    digest: watch::Sender<u64>,
    started: Instant,
}

impl LocateTask {
    /// Begins the task. It ends when every handle is gone.
    ///
    /// # Errors
    /// When the list makes no ring.
    pub fn spawn(
        list: MemberList,
        key: Option<Key>,
        metrics: LocateMetrics,
    ) -> Result<(LocateHandle, JoinHandle<()>), RingError> {
        let ring = Arc::new(list.ring()?);
        metrics.ring.show(&ring, list.version);
        let (sender, commands) = mpsc::channel(limits::LOOKUPS_IN_FLIGHT_LIMIT);
        let (digest, speaks) = watch::channel(ring.digest());
        let task = Self {
            locator: Locator::new(ring),
            list,
            key,
            clients: HashMap::new(),
            calls: Calls::default(),
            commands,
            answers: mpsc::channel(limits::LOOKUPS_IN_FLIGHT_LIMIT),
            waiting: HashMap::new(),
            metrics,
            digest,
            started: Instant::now(),
        };
        Ok((LocateHandle { commands: sender, digest: speaks }, tokio::spawn(task.run())))
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    async fn run(mut self) {
        let mut commands = Vec::new();
        loop {
            tokio::select! {
                count = self.commands.recv_many(&mut commands, COMMANDS_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    commands.drain(..).for_each(|command| self.command(command));
                }
                Some(answered) = self.answers.1.recv() => self.answered(answered),
                () = tokio::time::sleep(TICK), if !self.waiting.is_empty() => {}
            }
            self.locator.tick(self.now_ms());
            for ask in self.locator.take_asks() {
                self.calls.push(ask);
            }
            while let Some(call) = self.calls.next(|id| self.locator.awaits(id)) {
                self.call(call);
            }
            for done in self.locator.take_done() {
                self.done(done);
            }
        }
    }

    fn done(&mut self, done: Done) {
        self.metrics.done(&done);
        if let Some(waiting) = self.waiting.remove(&done.lookup) {
            self.metrics.seconds.observe(waiting.since.elapsed().as_secs_f64());
            // An error means that the asker has gone.
            drop(waiting.answer.send(Ok(done.found)));
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Locate(subjects, waiting) => match self.locator.lookup(&subjects, self.now_ms()) {
                Ok(lookup) => drop(self.waiting.insert(lookup, waiting)),
                Err(problem) => drop(waiting.answer.send(Err(problem))),
            },
            Command::NodeSays(node, current) => self.locator.node_says(node, current),
            Command::Detached(node) => self.locator.detached(node),
            Command::Members(list) if list.version > self.list.version => {
                // An error was refused by the handle.
                if let Ok(ring) = list.ring() {
                    self.digest.send_replace(ring.digest());
                    self.metrics.ring.show(&ring, list.version);
                    self.locator.set_ring(Arc::new(ring));
                    self.clients.clear();
                    self.list = list;
                }
            }
            Command::Members(_) => {}
        }
    }

    fn answered(&mut self, Answered { member, asks, answer }: Answered) {
        self.calls.ended(member);
        let now_ms = self.now_ms();
        match answer {
            Some((member, locations)) => {
                let mut locations = locations.into_iter();
                for (id, count) in asks {
                    let its = locations.by_ref().take(count).collect();
                    self.locator.answered(id, member, its, now_ms);
                }
            }
            None => asks.iter().for_each(|(id, _)| self.locator.failed(*id, now_ms)),
        }
    }

    fn call(&mut self, call: Call) {
        let (Self { clients, list, key, .. }, Call { member, asks, subjects }) = (&mut *self, call);
        if !clients.contains_key(&member) {
            let address = list.address(member);
            let client = address.and_then(|address| connect(address, key.clone()));
            clients.extend(client.map(|client| (member, client)));
        }
        let (client, answers) = (clients.get(&member).cloned(), self.answers.0.clone());
        tokio::spawn(async move {
            let answer = match client {
                Some(client) => put(client, member, &subjects).await,
                None => None,
            };
            // An error means that nobody waits.
            drop(answers.send(Answered { member, asks, answer }).await);
        });
    }
}

/// Nothing when the call fails, takes longer than its deadline, or answers another number of keys.
async fn put(
    mut client: RegistryClientWithKey,
    member: MemberId,
    subjects: &[Channel],
) -> Option<(Incarnation, Vec<Location>)> {
    let request = wire::LocateRequest { subjects: subjects.iter().map(ToString::to_string).collect() };
    let deadline = Duration::from_millis(limits::LOOKUP_DEADLINE_MS);
    let called = tokio::time::timeout(deadline, client.locate(request)).await;
    let response = match called.ok()? {
        Ok(response) => response.into_inner(),
        Err(status) => {
            tracing::debug!(member = member.0, code = ?status.code(), message = status.message(), "lookup failed");
            return None;
        }
    };
    let locations = response.locations.into_iter().map(location_from_wire);
    let locations = locations.collect::<Result<Vec<_>, MessageError>>().ok()?;
    let member = incarnation_from_wire(&response.incarnation).ok()?;
    (locations.len() == subjects.len()).then_some((member, locations))
}
