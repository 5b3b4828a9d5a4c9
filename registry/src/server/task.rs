//! The task that owns a member.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tidegate_vocab::{Incarnation, limits};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tonic::Status;

use super::ended;
use crate::frame::{Batch, Hello, Transition};
use crate::member::{AnnounceStream, Member, NodeEvent, NodeInfo, Online, Refusal};
use crate::ring::Ring;
use crate::table::Table;

/// Commands that may wait: a batch from every node, and room.
const COMMANDS: usize = 256;
/// Messages of transitions that may wait for their stream.
const TRANSITION_BATCHES: usize = 4;
/// Pause between two ticks.
const TICK: Duration = Duration::from_millis(50);
/// Parts swept in a tick: a pass of 64 takes under half a second, and a slice a millisecond or two.
const SLICES: usize = 8;

/// What presence needs next: transitions to append, or another reading of the topic.
#[derive(Debug)]
pub(crate) struct Emitted {
    pub(crate) reading: u64,
    pub(crate) transitions: Vec<Transition>,
}

/// What the topic says.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) reading: u64,
    pub(crate) records: Vec<Transition>,
    pub(crate) caught_up: bool,
}

#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) nodes: Vec<NodeInfo>,
    pub(crate) online: Online,
    pub(crate) events: broadcast::Receiver<NodeEvent>,
}

#[derive(Debug)]
pub(crate) enum Command {
    Hello(Hello, u64, oneshot::Sender<Result<AnnounceStream, Refusal>>),
    Batch(AnnounceStream, Batch, oneshot::Sender<Result<u64, Refusal>>),
    Closed(AnnounceStream),
    Goodbye(AnnounceStream),
    List(oneshot::Sender<Listing>),
    Presence(oneshot::Sender<(u64, mpsc::Receiver<Emitted>)>),
    Records(u64, Records),
    Ring(Arc<Ring>),
}

/// A member that a task owns.
#[derive(Debug, Clone)]
pub struct MemberHandle {
    commands: mpsc::Sender<Command>,
    table: Arc<Table>,
    incarnation: Incarnation,
    ring: Arc<ArcSwap<Ring>>,
}

impl MemberHandle {
    /// The subjects, for lookups without a call.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The process start.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The digest of the ring that the member knows.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.ring.load().digest()
    }

    /// Another ring from now on.
    pub async fn set_ring(&self, ring: Arc<Ring>) {
        self.ring.store(Arc::clone(&ring));
        // An error means that the member is gone.
        drop(self.commands.send(Command::Ring(ring)).await);
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), Status> {
        self.commands.send(command).await.map_err(|_| ended())
    }
}

/// The task that owns a member.
#[derive(Debug)]
pub struct MemberTask {
    member: Member,
    commands: mpsc::Receiver<Command>,
    events: broadcast::Sender<NodeEvent>,
    started: Instant,
    presence: Option<mpsc::Sender<Emitted>>,
    presences: u64,
    /// The reading that the presence stream was told.
    told: u64,
}

impl MemberTask {
    /// Begins the task. It ends when every handle is gone.
    #[must_use]
    pub fn spawn(member: Member) -> (MemberHandle, JoinHandle<()>) {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let handle = MemberHandle {
            commands: sender,
            table: member.table(),
            incarnation: member.incarnation(),
            ring: Arc::new(ArcSwap::new(Arc::clone(member.ring()))),
        };
        let task = Self {
            member,
            commands,
            events: broadcast::channel(limits::REGISTRY_EVENTS_LIMIT).0,
            started: Instant::now(),
            presence: None,
            presences: 0,
            told: 0,
        };
        (handle, tokio::spawn(task.run()))
    }

    async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.handle(command),
                    None => return,
                },
                _ = ticks.tick() => self.tick(),
            }
            self.emit();
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn tick(&mut self) {
        let now_ms = self.now_ms();
        self.member.tick(now_ms, SLICES);
    }

    /// Answers whose asker is gone go nowhere.
    fn handle(&mut self, command: Command) {
        let now_ms = self.now_ms();
        match command {
            Command::Hello(hello, session, done) => {
                let _ = done.send(self.member.hello(hello, session, now_ms));
            }
            Command::Batch(stream, batch, done) => {
                let _ = done.send(self.member.batch(stream, &batch, now_ms));
            }
            Command::Closed(stream) => self.member.closed(stream),
            Command::Goodbye(stream) => self.member.goodbye(stream, now_ms),
            Command::List(done) => {
                let events = self.events.subscribe();
                let (nodes, online) = (self.member.nodes(), self.member.online());
                drop(done.send(Listing { nodes, online, events }));
            }
            Command::Presence(done) => {
                let (sender, receiver) = mpsc::channel(TRANSITION_BATCHES);
                self.presence = Some(sender);
                self.presences += 1;
                self.told = 0;
                self.member.resend_transitions();
                drop(done.send((self.presences, receiver)));
            }
            Command::Records(presence, records) => {
                // A reading that was begun before the ring changed says nothing about keys that are new here.
                if presence == self.presences && records.reading == self.member.reading() {
                    for record in &records.records {
                        self.member.read_back(record, now_ms);
                    }
                    if records.caught_up {
                        self.member.caught_up(records.reading, now_ms);
                    }
                }
            }
            Command::Ring(ring) => self.member.set_ring(ring),
        }
    }

    /// Hands on what the member has to say, as far as there is room.
    fn emit(&mut self) {
        for event in self.member.take_events() {
            // An error means that nobody watches.
            drop(self.events.send(event));
        }
        let Some(presence) = &self.presence else { return };
        while let Ok(room) = presence.try_reserve() {
            let reading = self.member.reading();
            let transitions = self.member.take_transitions(limits::TRANSITIONS_BATCH_LIMIT);
            if transitions.is_empty() && reading == self.told {
                return;
            }
            self.told = reading;
            room.send(Emitted { reading, transitions });
        }
        if presence.is_closed() {
            self.presence = None;
        }
    }
}
