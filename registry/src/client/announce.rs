//! The task that owns a node's [`Announcer`] and keeps a stream to every member.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use futures::stream;
use tidegate_proto::registry::v1 as wire;
use tidegate_proto::registry::v1::announce_request::Frame as Asked;
use tidegate_proto::registry::v1::announce_response::Frame as Said;
use tidegate_vocab::{Channel, Incarnation, limits};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};

use super::{RegistryClientWithKey, connect};
use crate::announcer::{Announcer, Count};
use crate::convert::{batch_to_wire, hello_to_wire, incarnation_from_wire};
use crate::frame::{Batch, Current, Hello};
use crate::members::MemberList;
use crate::metrics::AnnounceMetrics;
use crate::ring::{MemberId, RingError};
use tidegate_proto::key::Key;

/// Pause between two looks at what is due: a quarter of the lag that a node tolerates.
const TICK: Duration = Duration::from_millis(limits::REGISTRY_LAG_MS / 4);
/// The same while every member has heard and acknowledged everything: then only leases have to be renewed.
const CALM_TICK: Duration = Duration::from_millis(limits::REGISTRY_LAG_MS * 2);
/// Pause before a member that could not be reached, or ended its stream, is dialled again.
const REDIAL_MS: u64 = 250;

#[derive(Debug)]
enum Command {
    Count(Channel, Count),
    Members(MemberList),
    Spoken(Vec<u64>),
    Goodbye(oneshot::Sender<()>),
}

/// What a stream's task has to report.
#[derive(Debug)]
enum Event {
    Opened(MemberId, u64, Incarnation),
    Acked(MemberId, u64, u64),
    Ended(MemberId, u64),
}

/// What goes out on a stream.
#[derive(Debug)]
enum ToSend {
    Batch(Batch),
    Goodbye,
}

#[derive(Debug)]
struct Dialled {
    session: u64,
    to_send: mpsc::Sender<ToSend>,
    task: AbortHandle,
}

impl Drop for Dialled {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Speaks to the task. All calls wait only while its queue is full.
#[derive(Debug, Clone)]
pub struct AnnounceHandle {
    commands: mpsc::Sender<Command>,
    current: watch::Receiver<Vec<Current>>,
}

impl AnnounceHandle {
    /// How many connections a subject has on this node now. To be called in the order of the changes.
    pub async fn count(&self, subject: Channel, count: Count) {
        self.send(Command::Count(subject, count)).await;
    }

    /// A newer member list. One that is not newer is ignored.
    ///
    /// # Errors
    /// When it makes no ring; then the old one stays.
    pub async fn set_members(&self, list: MemberList) -> Result<(), RingError> {
        list.ring()?;
        self.send(Command::Members(list)).await;
        Ok(())
    }

    /// The digests of the rings of all attached routers, whenever that changes.
    pub async fn routers_speak(&self, digests: Vec<u64>) {
        self.send(Command::Spoken(digests)).await;
    }

    /// The node's word for every attached router: at its attaching, and whenever it changes.
    #[must_use]
    pub fn current(&self) -> watch::Receiver<Vec<Current>> {
        self.current.clone()
    }

    /// Tells all members that the node ends well, and ends the task.
    pub async fn goodbye(&self) {
        let (done, said) = oneshot::channel();
        self.send(Command::Goodbye(done)).await;
        // An error means that the task is gone already.
        drop(said.await);
    }

    async fn send(&self, command: Command) {
        // An error means that the task is gone: the process is ending.
        drop(self.commands.send(command).await);
    }
}

/// The task that owns a node's [`Announcer`].
#[derive(Debug)]
pub struct AnnounceTask {
    announcer: Announcer,
    list: MemberList,
    key: Option<Key>,
    commands: mpsc::Receiver<Command>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    dialled: HashMap<MemberId, Dialled>,
    redial_at_ms: HashMap<MemberId, u64>,
    current: watch::Sender<Vec<Current>>,
    metrics: AnnounceMetrics,
    started: Instant,
}

impl AnnounceTask {
    /// Begins the task. It ends when every handle is gone, or after a goodbye.
    ///
    /// # Errors
    /// When the list makes no ring.
    pub fn spawn(
        node: Incarnation,
        address: String,
        list: MemberList,
        key: Option<Key>,
        metrics: AnnounceMetrics,
    ) -> Result<(AnnounceHandle, JoinHandle<()>), RingError> {
        let ring = Arc::new(list.ring()?);
        metrics.ring.show(&ring, list.version);
        let (sender, commands) = mpsc::channel(limits::NODE_QUEUE_LIMIT);
        let (current, is_current) = watch::channel(Vec::new());
        let task = Self {
            announcer: Announcer::new(node, address, ring),
            list,
            key,
            commands,
            events: mpsc::channel(limits::REGISTRY_BATCHES_IN_FLIGHT_LIMIT * 8),
            dialled: HashMap::new(),
            redial_at_ms: HashMap::new(),
            current,
            metrics,
            started: Instant::now(),
        };
        Ok((AnnounceHandle { commands: sender, current: is_current }, tokio::spawn(task.run())))
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    async fn run(mut self) {
        let mut commands = Vec::new();
        loop {
            let pause = if self.announcer.is_calm() { CALM_TICK } else { TICK };
            tokio::select! {
                count = self.commands.recv_many(&mut commands, limits::REGISTRY_BATCH_LIMIT) => {
                    if count == 0 {
                        return;
                    }
                    for command in commands.drain(..) {
                        if let Command::Goodbye(done) = command {
                            return self.say_goodbye(done).await;
                        }
                        self.command(command);
                    }
                }
                Some(event) = self.events.1.recv() => self.event(event),
                () = tokio::time::sleep(pause) => {}
            }
            self.pump();
        }
    }

    fn command(&mut self, command: Command) {
        let now_ms = self.now_ms();
        match command {
            Command::Count(subject, count) => {
                let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.announcer.count(&subject, count, unix.as_secs() as u32, now_ms);
            }
            Command::Members(list) if list.version > self.list.version => {
                // An error was refused by the handle.
                if let Ok(ring) = list.ring() {
                    self.metrics.ring.show(&ring, list.version);
                    self.announcer.set_ring(Arc::new(ring), now_ms);
                    // Members of rings that are still needed keep their addresses.
                    let old = std::mem::replace(&mut self.list, list);
                    for member in old.members {
                        if self.list.address(member.id).is_none() {
                            self.list.members.push(member);
                        }
                    }
                }
            }
            Command::Members(_) | Command::Goodbye(_) => {}
            Command::Spoken(digests) => self.announcer.routers_speak(&digests, now_ms),
        }
    }

    fn event(&mut self, event: Event) {
        let now_ms = self.now_ms();
        match event {
            Event::Opened(member, session, incarnation) => {
                self.announcer.opened(member, session, incarnation, now_ms);
            }
            Event::Acked(member, session, seq) => self.announcer.acked(member, session, seq),
            Event::Ended(member, session) => self.hang_up(member, session),
        }
    }

    fn hang_up(&mut self, member: MemberId, session: u64) {
        self.announcer.closed(member, session);
        self.redial_at_ms.insert(member, self.now_ms() + REDIAL_MS);
        if self.dialled.get(&member).is_some_and(|dialled| dialled.session == session) {
            self.dialled.remove(&member);
        }
    }

    /// Does what is due, and hands on what there is to say.
    fn pump(&mut self) {
        let now_ms = self.now_ms();
        self.announcer.tick(now_ms);
        for (member, session) in self.announcer.stuck(now_ms) {
            tracing::debug!(member = member.0, "registry member acknowledges nothing: dialled anew");
            self.hang_up(member, session);
        }
        for member in self.announcer.unlinked() {
            if self.redial_at_ms.get(&member).is_none_or(|at| *at <= now_ms) {
                self.dial(member);
            }
        }
        let wanted: Vec<MemberId> = self.announcer.wanted().collect();
        self.dialled.retain(|member, _| wanted.contains(member));
        for (member, dialled) in &self.dialled {
            while let Ok(room) = dialled.to_send.try_reserve() {
                match self.announcer.next_batch(*member, dialled.session, now_ms) {
                    Some(batch) => room.send(ToSend::Batch(batch)),
                    None => break,
                }
            }
        }
        if let Some(current) = self.announcer.current(now_ms) {
            self.current.send_replace(current);
        }
        self.metrics.show(&self.announcer);
    }

    fn dial(&mut self, member: MemberId) {
        let address = self.list.address(member);
        let client = address.and_then(|address| connect(address, self.key.clone()));
        let Some((hello, session)) = self.announcer.hello(member) else { return };
        // Streams are numbered from 1.
        self.metrics.redials.inc_by(u64::from(session > 1));
        let Some(client) = client else { return self.hang_up(member, session) };
        let (to_send, sending) = mpsc::channel(limits::REGISTRY_BATCHES_IN_FLIGHT_LIMIT);
        let stream = StreamTask { member, session, events: self.events.0.clone() };
        let task = tokio::spawn(stream.run(client, hello, sending)).abort_handle();
        self.dialled.insert(member, Dialled { session, to_send, task });
    }

    async fn say_goodbye(mut self, done: oneshot::Sender<()>) {
        for dialled in self.dialled.values() {
            // One that takes nothing lets the lease run out.
            drop(dialled.to_send.try_send(ToSend::Goodbye));
        }
        let deadline = Instant::now() + Duration::from_millis(limits::REGISTRY_RENEW_MS);
        while !self.dialled.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.events.1.recv()).await {
                Ok(Some(Event::Ended(member, session))) => self.hang_up(member, session),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        // Nobody waits when the asker is gone.
        let _ = done.send(());
    }
}

/// One stream to one member.
struct StreamTask {
    member: MemberId,
    session: u64,
    events: mpsc::Sender<Event>,
}

impl StreamTask {
    async fn run(self, client: RegistryClientWithKey, hello: Hello, sending: mpsc::Receiver<ToSend>) {
        if let Err(status) = self.speak(client, hello, sending).await {
            tracing::debug!(member = self.member.0, code = ?status.code(), message = status.message(), "announce stream ended");
        }
        // An error means that nobody announces any more.
        drop(self.events.send(Event::Ended(self.member, self.session)).await);
    }

    async fn speak(
        &self,
        mut client: RegistryClientWithKey,
        hello: Hello,
        sending: mpsc::Receiver<ToSend>,
    ) -> Result<(), tonic::Status> {
        let first = wire::AnnounceRequest { frame: Some(Asked::Hello(hello_to_wire(hello, self.session))) };
        let rest = stream::unfold(sending, |mut sending| async {
            let frame = match sending.recv().await? {
                ToSend::Batch(batch) => Asked::Batch(batch_to_wire(batch)),
                ToSend::Goodbye => Asked::Goodbye(wire::Goodbye {}),
            };
            Some((wire::AnnounceRequest { frame: Some(frame) }, sending))
        });
        let requests = stream::iter([first]).chain(rest);
        let opening = tokio::time::timeout(crate::server::HELLO_TIMEOUT, client.announce(requests)).await;
        let opened = opening.map_err(|_| tonic::Status::deadline_exceeded("no hello came in time"))?;
        let mut responses = opened?.into_inner();
        while let Some(response) = responses.message().await? {
            let event = match response.frame {
                Some(Said::Hello(hello)) => {
                    crate::convert::version(hello.min_version, hello.max_version)?;
                    let incarnation = incarnation_from_wire(&hello.incarnation)?;
                    Event::Opened(self.member, self.session, incarnation)
                }
                Some(Said::Acked(seq)) => Event::Acked(self.member, self.session, seq),
                None => continue,
            };
            if self.events.send(event).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}
