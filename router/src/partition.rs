//! One partition that the log assigned to us: a task with a mailbox, from assignment to revocation.
//!
//! Owns everything there is about the partition on this router: the tenure's [`Owner`], the window of keys, the
//! writes to its history and the verdicts that publishers wait for. All of it lives in one task, so that reading S,
//! cutting a History and adding a want are one step (TENURES, rule 7). Runs on the shared runtime; what blocks on a
//! disk goes to the blocking pool. A log or store that fails never ends the task: it backs off and tries again.

mod backfill;
mod begin;
mod jobs;
mod replay;
mod rows;
mod send;
mod serve;
mod status;
mod verdicts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_link::{DeliverSender, Settled};
use tidegate_tenure::{Nonce, Owner, StreamId, ToRouter};
use tidegate_vocab::{Event, Offset, PartitionId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::context::Context;
use send::Stream;
pub(crate) use status::{Phase, Status};
use verdicts::Verdicts;

/// Commands that may wait for one partition: its senders wait, or answer `overloaded`.
const MAILBOX_LIMIT: usize = 1024;
/// Between two attempts to begin, in milliseconds.
const BEGIN_AGAIN_MS: u64 = 500;

/// What a partition is told.
pub(crate) enum Command {
    /// A node attached; its frames follow.
    Attach(StreamId, DeliverSender),
    /// A node's stream ended.
    Detach(StreamId),
    /// A node said something.
    Frame(StreamId, ToRouter),
    /// A publisher wants the verdict of the record at this offset.
    Resolve(Offset, oneshot::Sender<Settled>),
    /// An ephemeral event; the answer is to how many nodes it was routed, `None` when we do not serve.
    Ephemeral(Arc<Event>, oneshot::Sender<Option<usize>>),
}

/// The router's end of a partition task.
pub(crate) struct PartitionHandle {
    pub(crate) mailbox: mpsc::Sender<Command>,
    pub(crate) status: Arc<Status>,
    order: watch::Sender<Order>,
    ended: watch::Receiver<bool>,
}

/// What the partition's task is to do; it only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    /// Serve.
    Own,
    /// It is no longer ours to take over, and whoever it is assigned to has not yet: serve until their takeover stands in
    /// the log, as a router would that has not heard of it (TENURES, rule 1), but not for long.
    Release,
    /// End at once.
    Revoke,
}

impl PartitionHandle {
    /// Starts the task; `streams` are the nodes attached at this moment.
    pub(crate) fn spawn(
        context: Arc<Context>,
        id: PartitionId,
        streams: Vec<(StreamId, DeliverSender)>,
    ) -> Self {
        let (mailbox, commands) = mpsc::channel(MAILBOX_LIMIT);
        let (order, orders) = watch::channel(Order::Own);
        let status = Arc::new(Status::new(context.clock.now_ms()));
        let task = PartitionTask {
            id,
            status: Arc::clone(&status),
            commands,
            orders,
            streams: streams.into_iter().map(|(stream, sender)| (stream, Stream::new(sender))).collect(),
            verdicts: Verdicts::default(),
            context,
        };
        let watched = Arc::clone(&status);
        let run = tokio::spawn(task.run());
        let (ending, ended) = watch::channel(false);
        tokio::spawn(async move {
            if let Err(error) = run.await {
                tracing::error!(partition = %id, %error, "partition task ended unexpectedly");
                watched.set_phase(Phase::Dead);
            }
            ending.send_replace(true);
        });
        Self { mailbox, status, order, ended }
    }

    /// Voids the assignment at once and says so to the nodes; the future completes when the task has ended.
    pub(crate) fn revoke(&self) -> impl Future<Output = ()> + use<> {
        self.order.send_replace(Order::Revoke);
        self.ended()
    }

    /// Lets the task end when the next owner has taken over; completes when it has ended. None when it was told before.
    pub(crate) fn release(&self) -> Option<impl Future<Output = ()> + use<>> {
        let is_news = self.order.send_if_modified(|order| {
            let is_news = *order == Order::Own;
            *order = Order::Release.max(*order);
            is_news
        });
        is_news.then(|| self.ended())
    }

    /// It is on its way to another router.
    pub(crate) fn is_released(&self) -> bool {
        *self.order.borrow() > Order::Own
    }

    /// Whoever waits, and however many: a released partition may be revoked too, and its successor must wait for its end.
    fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.clone();
        // invariant: the watcher says so before it goes; without a runtime there is nobody to wait
        async move { drop(ended.wait_for(|ended| *ended).await) }
    }
}

/// Why a tenure's loop ended.
#[derive(Debug)]
enum End {
    /// The log took the partition away, or the router shuts down.
    Revoked,
    /// Something about the log changed: begin anew.
    Restart(String),
    /// There is a record that only a newer version can read.
    UnknownVersion(u32),
}

struct PartitionTask {
    context: Arc<Context>,
    id: PartitionId,
    status: Arc<Status>,
    commands: mpsc::Receiver<Command>,
    orders: watch::Receiver<Order>,
    streams: BTreeMap<StreamId, Stream>,
    verdicts: Verdicts,
}

impl PartitionTask {
    async fn run(mut self) {
        loop {
            let end = match self.begin_while_idle().await {
                Ok(begun) => {
                    let end = self.serve(begun).await;
                    self.verdicts.end_tenure();
                    if *self.orders.borrow() > Order::Own { End::Revoked } else { end }
                }
                Err(end) => end,
            };
            let pause = match end {
                End::Revoked => break,
                End::Restart(reason) => {
                    tracing::warn!(partition = %self.id, reason, "partition begins anew");
                    self.status.set_phase(Phase::Beginning);
                    Some(Duration::from_millis(BEGIN_AGAIN_MS))
                }
                End::UnknownVersion(version) => {
                    tracing::error!(
                        partition = %self.id, version,
                        "a record has a version that this router cannot read: partition given up, upgrade the router"
                    );
                    self.status.set_phase(Phase::GivenUp);
                    None
                }
            };
            if self.pause_while_idle(pause).await.is_err() {
                break;
            }
        }
        tracing::info!(partition = %self.id, "partition ended");
    }

    /// Finds where to go on; commands that need no tenure are served meanwhile.
    async fn begin_while_idle(&mut self) -> Result<begin::Begun, End> {
        let context = Arc::clone(&self.context);
        let beginning = begin::begin(context, self.id);
        tokio::pin!(beginning);
        loop {
            tokio::select! {
                () = ordered(&mut self.orders, Order::Release) => return Err(End::Revoked),
                begun = &mut beginning => {
                    return begun.map_err(|reason| {
                        self.context.metrics.log_errors.inc();
                        match reason {
                            begin::BeginError::UnknownVersion(version) => End::UnknownVersion(version),
                            other => End::Restart(other.to_string()),
                        }
                    });
                }
                command = self.commands.recv() => self.idle_command(command.ok_or(End::Revoked)?),
            }
        }
    }

    /// Waits, for ever without a `pause`; `Err` when revoked.
    async fn pause_while_idle(&mut self, pause: Option<Duration>) -> Result<(), ()> {
        let until = pause.map(|pause| tokio::time::Instant::now() + pause);
        loop {
            let over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ordered(&mut self.orders, Order::Release) => return Err(()),
                () = over => return Ok(()),
                command = self.commands.recv() => self.idle_command(command.ok_or(())?),
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            self.status.beat(self.context.clock.now_ms());
        }
    }

    /// A command while there is no tenure.
    fn idle_command(&mut self, command: Command) {
        match command {
            Command::Attach(stream, sender) => {
                self.streams.insert(stream, Stream::new(sender));
            }
            Command::Detach(stream) => {
                self.streams.remove(&stream);
            }
            // Without a tenure no frame is of the current one (rule 4).
            Command::Frame(..) => {}
            Command::Resolve(offset, answer) => self.verdicts.wait(offset, answer),
            Command::Ephemeral(_, answer) => {
                // invariant: a publisher that no longer waits needs no answer
                let _ = answer.send(None);
            }
        }
    }

    fn new_owner(&self, begun: &begin::Begun) -> Owner {
        let mut owner = Owner::new(self.id, begun.epoch, begun.h);
        for stream in self.streams.keys() {
            owner.attached(*stream, begun.floor);
        }
        owner
    }
}

/// Completes when at least this has been ordered.
async fn ordered(orders: &mut watch::Receiver<Order>, order: Order) {
    // invariant: an error means that the handle is gone, which is as good as being revoked
    drop(orders.wait_for(|current| *current >= order).await);
}

fn new_nonce() -> Nonce {
    Nonce(rand::random())
}
