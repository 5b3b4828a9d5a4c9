//! A shard: one thread, its connections, and everything it needs to deliver to them without a lock.
//!
//! Owns every socket once it is a stream or a waiting poll. Runs on a single-threaded runtime: the accept loop, HTTP,
//! one small task per connection, and one loop that takes items from the node task and ticks the wheel.
//!
//! Invariants: an event is given to a connection at most once per channel and in order; a cursor covers nothing that
//! was not handed to the socket's queue before it; an idle connection has no buffer, no timer and no channel of its own.

pub(crate) mod asked;
pub(crate) mod conn;
mod cursor;
mod deliver;
mod fan_out;
pub(crate) mod item;
pub mod measure;
mod opening;
mod outbox;
pub(crate) mod poll;
pub(crate) mod revoked;
mod slow;
mod table;
mod task;
mod timers;
mod told;
mod unchanged;
mod upstream;
mod wheel;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slab::Slab;
use tidegate_tenure::WantId;
use tidegate_vocab::{LogEpoch, Offset};
use tokio::sync::{Notify, mpsc, watch};

use crate::clock::ticks;
use crate::shared::Shared;
use conn::{Conn, Mode, Phase, Progress};
use item::{NodeCommand, ShardItem, SharedEvent};
use table::{ChannelIdx, ConnIdx, SetIdx, Table};
pub(crate) use task::Takeover;
use wheel::Wheel;

type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// No set: the connection follows nothing any more.
const NO_SET: SetIdx = SetIdx::MAX;

/// A shard and what its tasks share.
pub(crate) struct Shard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: RefCell<State>,
    accepting: watch::Receiver<bool>,
    /// Turns to a window when every connection is to be closed in slices over this time.
    draining: watch::Receiver<Option<Duration>>,
}

/// One partition as this shard has seen it.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    epoch: Option<LogEpoch>,
    /// next[P]: every live connection here was given everything of its channels before this.
    next: Offset,
}

/// What waits for the end of a batch, so that a socket's frames leave in one send.
enum Out {
    /// A whole frame, and whether a slow client may lose it.
    Frame(Bytes, outbox::Tag),
    /// An event whose frame has the cursor if it is the last of its flush.
    Event(Arc<SharedEvent>, outbox::Tag),
    /// The connection's poll may be ready.
    Poll,
}

/// An [`Out`] and whose it is.
struct Owed {
    idx: ConnIdx,
    /// Its place in the batch.
    number: u32,
    out: Out,
}

/// Everything a shard owns.
pub(crate) struct State {
    shared: Arc<Shared>,
    shard: Weak<Shard>,
    number: u16,
    conns: Slab<Box<Conn>>,
    table: Table,
    parts: Vec<Part>,
    wants: Map<WantId, (ConnIdx, u32, ChannelIdx)>,
    want_sequence: u64,
    generation: u32,
    wheel: Wheel,
    /// The tick to which the shard sleeps, and what wakes it earlier.
    wakes_at: u32,
    nudge: Rc<Notify>,
    polled: unchanged::Polled,
    pending: Vec<Owed>,
    scratch: Vec<u8>,
    read_buffer: Vec<u8>,
    /// Connections whose opening may be over.
    settling: Vec<(ConnIdx, u32)>,
    commands: VecDeque<NodeCommand>,
    /// What connections have said that waits for the log, by place and generation.
    talking: Map<(ConnIdx, u32), VecDeque<upstream::Said>>,
    to_node: mpsc::Sender<Vec<NodeCommand>>,
    drain: Option<Drain>,
    /// How many revocations have been applied here.
    revocations_applied: u64,
    /// Some namespace's events may be left out for slow clients.
    may_leave_out: bool,
    /// When slow clients are looked for again, at the last rung of the overload ladder.
    shed_tick: u32,
}

/// A drain under way: close evenly until `end_tick`.
#[derive(Debug, Clone, Copy)]
struct Drain {
    end_tick: u32,
}

/// Questions answered in a row before others have their turn.
const ASKS_IN_A_ROW: usize = 63;
/// Items of several batches that are delivered together, as far as they wait.
const ITEMS_AT_ONCE: usize = 32;
/// Bytes read from a socket at once; one buffer per shard.
const READ_BUFFER_BYTES: usize = 64 * 1024;

impl Shard {
    pub(crate) fn new(
        number: u16,
        shared: Arc<Shared>,
        to_node: mpsc::Sender<Vec<NodeCommand>>,
        accepting: watch::Receiver<bool>,
        draining: watch::Receiver<Option<Duration>>,
    ) -> Rc<Self> {
        Rc::new_cyclic(|shard| Self {
            state: RefCell::new(State {
                shard: Weak::clone(shard),
                number,
                conns: Slab::new(),
                table: Table::new(shared.counts, shared.config.slow_consumers.clone()),
                parts: vec![Part::default(); Table::parts_len(shared.counts)],
                wants: Map::default(),
                want_sequence: 0,
                generation: 0,
                wheel: Wheel::new(shared.clock.tick()),
                wakes_at: 0,
                nudge: Rc::default(),
                polled: unchanged::Polled::default(),
                pending: Vec::new(),
                scratch: Vec::new(),
                read_buffer: vec![0; READ_BUFFER_BYTES],
                settling: Vec::new(),
                commands: VecDeque::new(),
                talking: Map::default(),
                to_node,
                drain: None,
                revocations_applied: 0,
                may_leave_out: !shared.config.slow_consumers.all_disconnect(),
                shed_tick: 0,
                shared: Arc::clone(&shared),
            }),
            shared,
            accepting,
            draining,
        })
    }

    /// Turns false when the node stops accepting.
    pub(crate) fn accepting(&self) -> watch::Receiver<bool> {
        self.accepting.clone()
    }

    /// Takes items and ticks until the node task ends. What came while no router vouches for what is revoked waits, one
    /// batch here and the rest where it is: in the node task, in its streams, in the routers.
    /// Questions of routers are answered all the while.
    pub(crate) async fn run(
        self: Rc<Self>,
        mut inbox: mpsc::Receiver<Vec<ShardItem>>,
        mut asks: mpsc::Receiver<asked::ShardAsk>,
    ) {
        let mut sleep = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let nudge = Rc::clone(&self.state.borrow().nudge);
        let mut draining = self.draining.clone();
        let mut held = None;
        loop {
            let tick = self.state.borrow_mut().next_tick(held.is_some());
            let due = self.shared.clock.begin_of(tick).into();
            if sleep.deadline() != due {
                sleep.as_mut().reset(due);
            }
            tokio::select! {
                biased; // Ticks first: what is due must not wait for a queue that is never empty.
                () = &mut sleep => {
                    let mut state = self.state.borrow_mut();
                    state.apply_revocations();
                    state.tick();
                    if inbox.is_closed() && held.is_some() {
                        return; // The node task has ended: nobody vouches any more.
                    }
                }
                () = nudge.notified() => {}
                Ok(()) = draining.changed() => {
                    let window = *draining.borrow_and_update();
                    self.state.borrow_mut().begin_drain(window.unwrap_or_default());
                }
                Some(ask) = asks.recv() => {
                    let mut state = self.state.borrow_mut();
                    let mut goes_on = state.asked(ask);
                    for _ in 0..ASKS_IN_A_ROW {
                        let Some(ask) = goes_on.then(|| asks.try_recv().ok()).flatten() else { break };
                        goes_on = state.asked(ask);
                    }
                    // Questions without end must not keep events waiting.
                    held = held.or_else(|| inbox.try_recv().ok());
                }
                message = inbox.recv(), if held.is_none() => match message {
                    Some(items) => held = Some(items),
                    None => return,
                },
            }
            if held.is_some() && self.state.borrow_mut().may_deliver() {
                let mut items = held.take().unwrap_or_default();
                // What has come meanwhile leaves with it: one send for each socket.
                while let Some(more) = (items.len() < ITEMS_AT_ONCE).then(|| inbox.try_recv().ok()).flatten()
                {
                    items.extend(more);
                }
                self.state.borrow_mut().deliver(items);
            }
        }
    }
}

impl State {
    fn tick_now(&self) -> u32 {
        self.shared.clock.tick()
    }

    /// The connection, if it is still the one that was meant.
    fn conn(&mut self, idx: ConnIdx, generation: u32) -> Option<&mut Conn> {
        self.conns.get_mut(idx as usize).map(Box::as_mut).filter(|conn| conn.generation == generation)
    }

    /// Sends what was asked of the node task, as far as it has room; the rest goes at the next tick.
    fn flush_commands(&mut self) {
        if self.commands.is_empty() {
            return;
        }
        if let Ok(permit) = self.to_node.try_reserve() {
            permit.send(self.commands.drain(..).collect());
        } else {
            self.wake_by(self.tick_now() + 1);
        }
    }

    /// Ends what the connection follows; its socket stays.
    fn unfollow(&mut self, idx: ConnIdx) {
        let Some(conn) = self.conns.get_mut(idx as usize) else { return };
        let set = std::mem::replace(&mut conn.set, NO_SET);
        if set == NO_SET {
            return;
        }
        let (place, opening, transport) = (conn.place, conn.opening.take(), conn.transport());
        let channels: Vec<ChannelIdx> = self.table.set(set).channels().collect();
        self.shared.presences.go(channels.iter().map(|channel| &self.table.entry(*channel).name), transport);
        for channel in channels {
            let sub =
                opening.as_ref().and_then(|opening| opening.subs.iter().find(|sub| sub.channel == channel));
            let entry = self.table.entry(channel);
            let (partition, name) = (self.table.partition(channel), entry.name.clone());
            match sub.map(|sub| sub.progress) {
                Some(Progress::Pending { want, .. }) => {
                    self.wants.remove(&want);
                    self.commands.push_back(NodeCommand::Cancel { want, partition, channel: name });
                }
                Some(Progress::Stalled { .. }) => {}
                Some(Progress::Live { .. }) | None => {
                    self.commands.push_back(NodeCommand::Release { partition, channel: name });
                }
            }
        }
        if let Some(moved) = self.table.leave(set, place)
            && let Some(other) = self.conns.get_mut(moved as usize)
        {
            other.place = place;
        }
        self.flush_commands();
    }

    /// Takes a connection out: what it followed ends, and its task with it. The socket is the caller's.
    fn take(&mut self, idx: ConnIdx, reason: &str) -> Option<Box<Conn>> {
        self.unfollow(idx);
        let conn = self.conns.try_remove(idx as usize)?;
        let transport = conn.transport().as_str();
        self.shared.metrics.connections.with_label_values(&[transport]).dec();
        if conn.phase == Phase::Open {
            self.shared.metrics.closed.with_label_values(&[transport, reason]).inc();
        }
        self.shared.metrics.outbox_bytes.sub(conn.queued_bytes() as i64);
        conn.wake();
        Some(conn)
    }

    /// Closes the socket at once.
    fn remove(&mut self, idx: ConnIdx, reason: &str) {
        drop(self.take(idx, reason));
    }

    /// Sends bytes to one connection now, behind what waits for it already.
    fn send_now(&mut self, idx: ConnIdx, bytes: &[u8]) {
        let tick = self.tick_now();
        let Some(conn) = self.conns.get_mut(idx as usize) else { return };
        let before = conn.queued_bytes();
        let sent = conn.send_slice(bytes, tick);
        conn.wrote_tick = tick;
        self.make_room(idx, tick);
        let after = self.conns.get(idx as usize).map_or(0, |conn| conn.queued_bytes());
        self.account(idx, before, after, sent);
        if after > self.shared.outbox_bytes_limit() {
            self.remove(idx, "slow"); // Answers to a client that does not read them: nothing more to say.
        } else if after > 0 {
            self.arm(idx, ticks(self.shared.config.outbox_age_limit.as_millis() as u64));
        }
    }

    /// Notes what a send did, and ends the connection if its socket is broken.
    fn account(&mut self, idx: ConnIdx, before: usize, after: usize, sent: std::io::Result<usize>) {
        let written = self.note_sent(idx, before, after, sent);
        self.shared.metrics.bytes_out.inc_by(written);
    }

    /// As [`State::account`], but for the count of bytes, which the caller adds up: shards share it.
    fn note_sent(&mut self, idx: ConnIdx, before: usize, after: usize, sent: std::io::Result<usize>) -> u64 {
        if before != after {
            self.shared.metrics.outbox_bytes.add(after as i64 - before as i64);
        }
        match sent {
            Ok(written) => written as u64,
            Err(_) => {
                self.remove(idx, "write_error");
                0
            }
        }
    }

    fn is_stream(&self, idx: ConnIdx) -> bool {
        self.conns.get(idx as usize).is_some_and(|conn| conn.phase == Phase::Open && conn.mode != Mode::Poll)
    }
}
