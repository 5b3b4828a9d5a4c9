//! The one task that owns every [`Node`] state machine: frames from routers in, items to shards out.
//!
//! Comparing `n`, pushing to all shards and moving next[P] are one step of this task (TENURES, rule 4). It waits for
//! room in the shards' queues before it takes more, so that a node that is behind shows as a stream that is behind and
//! nothing is dropped. It never waits for a router: what a router has no room for waits here, and a router that takes
//! nothing while too much waits loses its stream; the next one resumes. Runs on the process's multi-threaded runtime.

mod attachments;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_link::Routers;
use tidegate_tenure::{Node, NodeOut, StreamId, ToNode, ToRouter};
use tidegate_vocab::{Incarnation, PartitionCounts, PartitionId, limits};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::Span;

use crate::clock::{Clock, unix_ms};
use crate::metrics::Metrics;
use crate::shard::item::{NodeCommand, ShardItem, SharedEvent};
use attachments::{Attachments, FromStream};

/// How often acknowledgements leave and lingering channels are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two rounds of dialling every router while a partition lacks an owner (TENURES, rule 2).
const TICKS_PER_REDIAL: u64 = 4;
/// A read of the log older than this is as good as no owner.
const READ_AGE_LIMIT_MS: u64 = 3_000;
/// A router that takes no frame for so long, while more than the limit wait, is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// Frames that may wait even for a router that takes some: all of a large node's Wants, sent again at once.
const WAITING_FRAMES_MOST: usize = 16 * limits::STREAM_WAITING_FRAMES_LIMIT;

struct Stream {
    to_router: mpsc::Sender<ToRouter>,
    waiting: VecDeque<ToRouter>,
    /// When the router last took a frame, or none waited.
    taken_at: Instant,
    /// Dropped with the stream: ends the task that reads it.
    _stop: oneshot::Sender<()>,
}

impl Stream {
    fn flush(&mut self) {
        while let Some(frame) = self.waiting.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(frame)) = self.to_router.try_send(frame) {
                self.waiting.push_front(frame);
                return;
            }
            self.taken_at = Instant::now();
        }
        self.taken_at = Instant::now();
    }

    fn is_stuck(&self) -> bool {
        let count = self.waiting.len();
        count > WAITING_FRAMES_MOST
            || (count > limits::STREAM_WAITING_FRAMES_LIMIT && self.taken_at.elapsed() > STUCK_AFTER)
    }
}

/// See the module.
pub(crate) struct NodeTask {
    nodes: BTreeMap<PartitionId, Node>,
    streams: BTreeMap<StreamId, Stream>,
    shards: Vec<mpsc::Sender<Vec<ShardItem>>>,
    items: Vec<Vec<ShardItem>>,
    out: Vec<NodeOut>,
    /// Of the batch of frames in hand, if somebody records one of its events.
    fan_out: Span,
    clock: Clock,
    metrics: Metrics,
    /// Set once every partition has been named by some owner.
    owners_heard: Arc<AtomicBool>,
    ticks: u64,
}

impl NodeTask {
    pub(crate) fn new(
        counts: PartitionCounts,
        shards: Vec<mpsc::Sender<Vec<ShardItem>>>,
        clock: Clock,
        metrics: Metrics,
        owners_heard: Arc<AtomicBool>,
    ) -> Self {
        Self {
            nodes: counts.followed().map(|partition| (partition, Node::new(partition))).collect(),
            streams: BTreeMap::new(),
            items: shards.iter().map(|_| Vec::new()).collect(),
            shards,
            out: Vec::new(),
            fan_out: Span::none(),
            clock,
            metrics,
            owners_heard,
            ticks: 0,
        }
    }

    /// Stays attached to every router that discovery names, and runs until the shards are gone.
    pub(crate) async fn run(
        mut self,
        routers: Routers,
        incarnation: Incarnation,
        mut commands: mpsc::Receiver<Vec<NodeCommand>>,
    ) {
        let (from_streams, mut streams) = mpsc::channel(64);
        let mut attachments = Attachments::new(routers, incarnation, from_streams);
        attachments.follow();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                heard = streams.recv() => match heard {
                    Some(heard) => self.on_stream(heard),
                    None => return,
                },
                batch = commands.recv() => match batch {
                    Some(batch) => batch.into_iter().for_each(|command| self.on_command(command)),
                    None => return,
                },
                () = attachments.changed() => attachments.follow(),
                _ = ticks.tick() => {
                    if self.tick() {
                        attachments.dial_now();
                    }
                    attachments.follow();
                }
            }
            self.flush_streams();
            if self.push_items().await.is_err() {
                return;
            }
        }
    }

    fn on_stream(&mut self, heard: FromStream) {
        match heard {
            FromStream::Up(stream, to_router, stop) => {
                let waiting = VecDeque::new();
                let opened = Stream { to_router, waiting, taken_at: Instant::now(), _stop: stop };
                self.streams.insert(stream, opened);
                self.metrics.streams.inc();
            }
            // What a stream said before it was closed here has no owner to come from.
            FromStream::Frames(stream, _) if !self.streams.contains_key(&stream) => {}
            FromStream::Frames(stream, frames) => {
                let now_ms = self.clock.now_ms();
                self.fan_out = fan_out_span(&frames);
                for frame in frames {
                    let partition = frame.partition();
                    if let Some(node) = self.nodes.get_mut(&partition) {
                        node.on_frame(stream, frame, now_ms, &mut self.out);
                        self.carry_out(partition);
                    }
                }
                self.fan_out = Span::none();
                self.hear_owners();
            }
            FromStream::Down(stream) => self.down(stream),
        }
    }

    fn down(&mut self, stream: StreamId) {
        if self.streams.remove(&stream).is_some() {
            self.metrics.streams.dec();
            self.nodes.values_mut().for_each(|node| node.stream_down(stream));
        }
    }

    fn hear_owners(&self) {
        if !self.owners_heard.load(Ordering::Relaxed)
            && self.nodes.values().all(|node| node.epoch().is_some())
        {
            self.owners_heard.store(true, Ordering::Relaxed);
        }
    }

    fn on_command(&mut self, command: NodeCommand) {
        let now_ms = self.clock.now_ms();
        let partition = match &command {
            NodeCommand::Subscribe { partition, .. }
            | NodeCommand::Cancel { partition, .. }
            | NodeCommand::Release { partition, .. } => *partition,
        };
        let Some(node) = self.nodes.get_mut(&partition) else { return };
        match command {
            NodeCommand::Subscribe { want, channel, from, .. } => {
                if node.subscribe(want, channel, from, unix_ms(), &mut self.out) {
                    self.metrics.own_answers.inc();
                }
            }
            NodeCommand::Cancel { want, channel, .. } => {
                if !node.cancel(want, now_ms, &mut self.out) {
                    node.release(&channel, now_ms); // Its HistoryEnd was on the way to the shard.
                }
            }
            NodeCommand::Release { channel, .. } => node.release(&channel, now_ms),
        }
        self.carry_out(partition);
    }

    /// True when every router is to be dialled: a partition in which something is wanted has no owner that reads on.
    fn tick(&mut self) -> bool {
        let now_ms = self.clock.now_ms();
        let partitions: Vec<PartitionId> = self.nodes.keys().copied().collect();
        let (mut unserved, mut stale) = (0, 0);
        for partition in partitions {
            if let Some(node) = self.nodes.get_mut(&partition) {
                node.tick(now_ms, &mut self.out);
                if node.has_interest() && !node.is_served() {
                    unserved += 1;
                } else if node.has_interest() {
                    stale += i64::from(node.read_age_ms(now_ms).is_some_and(|age| age > READ_AGE_LIMIT_MS));
                }
                self.carry_out(partition);
            }
        }
        self.metrics.partitions_unserved.set(unserved);
        self.metrics.partitions_stale.set(stale);
        self.ticks += 1;
        let is_due = unserved + stale > 0 && self.ticks.is_multiple_of(TICKS_PER_REDIAL);
        if is_due {
            self.metrics.redials.inc();
        }
        is_due
    }

    /// Turns what a node said into frames and items, in order.
    fn carry_out(&mut self, partition: PartitionId) {
        let epoch = self.nodes.get(&partition).and_then(Node::epoch);
        for out in std::mem::take(&mut self.out) {
            let item = match (out, epoch) {
                (NodeOut::Send(stream, frame), _) => {
                    if let Some(stream) = self.streams.get_mut(&stream) {
                        stream.waiting.push_back(frame);
                    }
                    continue;
                }
                (NodeOut::EpochChanged(epoch), _) => ShardItem::EpochChanged { partition, epoch },
                (NodeOut::Lost { channel, upto }, _) => ShardItem::Lost { partition, channel, upto },
                (NodeOut::History { want, outcome, rows }, Some(epoch)) => {
                    let item = ShardItem::History { want, outcome, partition, epoch, rows };
                    self.push_to((want.0 >> 48) as usize, item);
                    continue;
                }
                (NodeOut::Established { want, outcome, epoch, upto }, _) => {
                    self.push_to(
                        (want.0 >> 48) as usize,
                        ShardItem::Established { want, outcome, epoch, upto },
                    );
                    continue;
                }
                (NodeOut::Event(event), Some(epoch)) => {
                    let span = if event.trace.is_some() { self.fan_out.clone() } else { Span::none() };
                    ShardItem::Event(Arc::new(SharedEvent::live(event, partition, epoch, span)))
                }
                (NodeOut::Mark(next), Some(epoch)) => ShardItem::Mark { partition, epoch, next },
                (NodeOut::History { .. } | NodeOut::Event(_) | NodeOut::Mark(_), None) => continue,
            };
            for items in &mut self.items {
                items.push(item.clone());
            }
        }
    }

    fn push_to(&mut self, shard: usize, item: ShardItem) {
        if let Some(items) = self.items.get_mut(shard) {
            items.push(item);
        }
    }

    /// Sends what the routers take; closes the stream of one that is stuck, whose partitions resume on the next.
    fn flush_streams(&mut self) {
        self.streams.values_mut().for_each(Stream::flush);
        let stuck: Vec<StreamId> =
            self.streams.iter().filter(|(_, stream)| stream.is_stuck()).map(|(id, _)| *id).collect();
        for stream in stuck {
            tracing::warn!(stream = stream.0, "router takes no frames; its stream is closed");
            self.metrics.streams_stuck.inc();
            self.down(stream);
        }
    }

    /// Hands the shards what was gathered, waiting for room; an error when a shard is gone.
    async fn push_items(&mut self) -> Result<(), mpsc::error::SendError<Vec<ShardItem>>> {
        for (shard, items) in self.shards.iter().zip(&mut self.items) {
            if !items.is_empty() {
                shard.send(std::mem::take(items)).await?;
            }
        }
        Ok(())
    }
}

/// One span for the batch, however many events and connections it has; none when nobody records any of it.
fn fan_out_span(frames: &[ToNode]) -> Span {
    tidegate_telemetry::fan_out_span(frames.iter().filter_map(|frame| match frame {
        ToNode::Event { event, .. } => event.trace,
        _ => None,
    }))
}

#[cfg(test)]
mod tests;
