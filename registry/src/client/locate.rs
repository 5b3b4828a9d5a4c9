//! The task that owns a router's [`Locator`] and puts its questions.

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
use crate::locator::{Ask, AskId, Found, Locator, LookupId};
use crate::members::MemberList;
use crate::ring::{MemberId, RingError};
use tidegate_proto::key::Key;

/// Pause between two looks at deadlines while a lookup waits.
const TICK: Duration = Duration::from_millis(5);

type Answer = oneshot::Sender<Result<Vec<Found>, Problem>>;

#[derive(Debug)]
enum Command {
    Locate(Vec<Channel>, Answer),
    NodeSays(Incarnation, Vec<Current>),
    Detached(Incarnation),
    Members(MemberList),
}

#[derive(Debug)]
struct Answered {
    id: AskId,
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
        let (done, answer) = oneshot::channel();
        let ended = || Problem::new(ErrorKind::Draining, "the router shuts down");
        self.commands.send(Command::Locate(subjects, done)).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
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
    commands: mpsc::Receiver<Command>,
    answers: (mpsc::Sender<Answered>, mpsc::Receiver<Answered>),
    waiting: HashMap<LookupId, Answer>,
    digest: watch::Sender<u64>,
    started: Instant,
}

impl LocateTask {
    /// Begins the task. It ends when every handle is gone.
    ///
    /// # Errors
    /// When the list makes no ring.
    pub fn spawn(list: MemberList, key: Option<Key>) -> Result<(LocateHandle, JoinHandle<()>), RingError> {
        let ring = Arc::new(list.ring()?);
        let (sender, commands) = mpsc::channel(limits::LOOKUPS_IN_FLIGHT_LIMIT);
        let (digest, speaks) = watch::channel(ring.digest());
        let task = Self {
            locator: Locator::new(ring),
            list,
            key,
            clients: HashMap::new(),
            commands,
            answers: mpsc::channel(limits::LOOKUPS_IN_FLIGHT_LIMIT),
            waiting: HashMap::new(),
            digest,
            started: Instant::now(),
        };
        Ok((LocateHandle { commands: sender, digest: speaks }, tokio::spawn(task.run())))
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    async fn run(mut self) {
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                Some(answered) = self.answers.1.recv() => {
                    let now_ms = self.now_ms();
                    match answered.answer {
                        Some((member, locations)) => self.locator.answered(answered.id, member, locations, now_ms),
                        None => self.locator.failed(answered.id, now_ms),
                    }
                }
                () = tokio::time::sleep(TICK), if !self.waiting.is_empty() => {}
            }
            self.locator.tick(self.now_ms());
            for ask in self.locator.take_asks() {
                self.ask(ask);
            }
            for (lookup, found) in self.locator.take_done() {
                if let Some(answer) = self.waiting.remove(&lookup) {
                    // An error means that the asker has gone.
                    drop(answer.send(Ok(found)));
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Locate(subjects, answer) => match self.locator.lookup(&subjects, self.now_ms()) {
                Ok(lookup) => drop(self.waiting.insert(lookup, answer)),
                Err(problem) => drop(answer.send(Err(problem))),
            },
            Command::NodeSays(node, current) => self.locator.node_says(node, current),
            Command::Detached(node) => self.locator.detached(node),
            Command::Members(list) if list.version > self.list.version => {
                // An error was refused by the handle.
                if let Ok(ring) = list.ring() {
                    self.digest.send_replace(ring.digest());
                    self.locator.set_ring(Arc::new(ring));
                    self.clients.clear();
                    self.list = list;
                }
            }
            Command::Members(_) => {}
        }
    }

    fn ask(&mut self, ask: Ask) {
        let (Self { clients, list, key, .. }, id) = (&mut *self, ask.id);
        if !clients.contains_key(&ask.member) {
            let address = list.address(ask.member);
            let client = address.and_then(|address| connect(address, key.clone()));
            clients.extend(client.map(|client| (ask.member, client)));
        }
        let (client, answers) = (clients.get(&ask.member).cloned(), self.answers.0.clone());
        tokio::spawn(async move {
            let answer = match client {
                Some(client) => put(client, &ask).await,
                None => None,
            };
            // An error means that nobody waits.
            drop(answers.send(Answered { id, answer }).await);
        });
    }
}

/// Nothing when the call fails or takes longer than its deadline.
async fn put(mut client: RegistryClientWithKey, ask: &Ask) -> Option<(Incarnation, Vec<Location>)> {
    let subjects = ask.subjects.iter().map(ToString::to_string).collect();
    let deadline = Duration::from_millis(limits::LOOKUP_DEADLINE_MS);
    let called = tokio::time::timeout(deadline, client.locate(wire::LocateRequest { subjects })).await;
    let response = match called.ok()? {
        Ok(response) => response.into_inner(),
        Err(status) => {
            tracing::debug!(member = ask.member.0, code = ?status.code(), message = status.message(), "lookup failed");
            return None;
        }
    };
    let locations = response.locations.into_iter().map(location_from_wire);
    let locations = locations.collect::<Result<Vec<_>, MessageError>>().ok()?;
    Some((incarnation_from_wire(&response.incarnation).ok()?, locations))
}
