//! The one task that owns every [`Node`] state machine: frames from routers in, items to shards out.
//!
//! Comparing `n`, pushing to all shards and moving next[P] are one step of this task (TENURES, rule 4). It waits for
//! room in the shards' queues before it takes more, so that a node that is behind shows as a stream that is behind and
//! nothing is dropped. It never waits for a router: what a router has no room for waits here, bounded by the number of
//! subscriptions. Runs on the process's multi-threaded runtime.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidegate_link::{DeliverReceiver, RouterLink};
use tidegate_tenure::{Node, NodeOut, StreamId, ToNode, ToRouter};
use tidegate_vocab::{Incarnation, PartitionCounts, PartitionId};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::shard::ToShard;
use crate::shard::item::{NodeCommand, ShardItem, SharedEvent};

/// Frames taken from a stream at once.
const FRAMES_AT_ONCE: usize = 256;
/// How often acknowledgements leave and lingering channels are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Pause before a router is dialled again.
const REDIAL_PAUSE: Duration = Duration::from_millis(500);

/// What the node task hears of its streams.
enum FromStream {
    Up(StreamId, mpsc::Sender<ToRouter>),
    Frames(StreamId, Vec<ToNode>),
    Down(StreamId),
}

struct Stream {
    to_router: mpsc::Sender<ToRouter>,
    waiting: VecDeque<ToRouter>,
}

/// See the module.
pub(crate) struct NodeTask {
    nodes: BTreeMap<PartitionId, Node>,
    streams: BTreeMap<StreamId, Stream>,
    shards: Vec<mpsc::Sender<ToShard>>,
    items: Vec<Vec<ShardItem>>,
    out: Vec<NodeOut>,
    clock: Clock,
    metrics: Metrics,
}

impl NodeTask {
    pub(crate) fn new(
        counts: PartitionCounts,
        shards: Vec<mpsc::Sender<ToShard>>,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self {
            nodes: counts.followed().map(|partition| (partition, Node::new(partition))).collect(),
            streams: BTreeMap::new(),
            items: shards.iter().map(|_| Vec::new()).collect(),
            shards,
            out: Vec::new(),
            clock,
            metrics,
        }
    }

    /// Attaches to every router and runs until the shards are gone.
    pub(crate) async fn run(
        mut self,
        routers: Vec<Arc<dyn RouterLink>>,
        incarnation: Incarnation,
        mut commands: mpsc::Receiver<Vec<NodeCommand>>,
    ) {
        let (from_streams, mut streams) = mpsc::channel(64);
        let mut attachments = tokio::task::JoinSet::new();
        for (index, router) in routers.into_iter().enumerate() {
            attachments.spawn(stay_attached(router, incarnation, index as u64, from_streams.clone()));
        }
        drop(from_streams);
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
                _ = ticks.tick() => self.tick(),
            }
            self.flush_streams();
            if self.push_items().await.is_err() {
                return;
            }
        }
    }

    fn on_stream(&mut self, heard: FromStream) {
        match heard {
            FromStream::Up(stream, to_router) => {
                self.streams.insert(stream, Stream { to_router, waiting: VecDeque::new() });
                self.metrics.streams.inc();
            }
            FromStream::Frames(stream, frames) => {
                let now_ms = self.clock.now_ms();
                for frame in frames {
                    let partition = frame.partition();
                    if let Some(node) = self.nodes.get_mut(&partition) {
                        node.on_frame(stream, frame, now_ms, &mut self.out);
                        self.carry_out(partition);
                    }
                }
            }
            FromStream::Down(stream) => {
                self.streams.remove(&stream);
                self.metrics.streams.dec();
                self.nodes.values_mut().for_each(|node| node.stream_down(stream));
            }
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
                node.subscribe(want, channel, from, &mut self.out)
            }
            NodeCommand::Cancel { want, channel, .. } => {
                if !node.cancel(want, now_ms) {
                    node.release(&channel, now_ms); // Its HistoryEnd was on the way to the shard.
                }
            }
            NodeCommand::Release { channel, .. } => node.release(&channel, now_ms),
        }
        self.carry_out(partition);
    }

    fn tick(&mut self) {
        let now_ms = self.clock.now_ms();
        let partitions: Vec<PartitionId> = self.nodes.keys().copied().collect();
        let mut unserved = 0;
        for partition in partitions {
            if let Some(node) = self.nodes.get_mut(&partition) {
                node.tick(now_ms, &mut self.out);
                unserved += i64::from(!node.is_served() && node.has_interest());
                self.carry_out(partition);
            }
        }
        self.metrics.partitions_unserved.set(unserved);
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
                    ShardItem::Event(Arc::new(SharedEvent::new(event, partition, epoch)))
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

    fn flush_streams(&mut self) {
        for stream in self.streams.values_mut() {
            while let Some(frame) = stream.waiting.pop_front() {
                if let Err(mpsc::error::TrySendError::Full(frame)) = stream.to_router.try_send(frame) {
                    stream.waiting.push_front(frame);
                    break;
                }
            }
        }
    }

    /// Hands the shards what was gathered, waiting for room; an error when a shard is gone.
    async fn push_items(&mut self) -> Result<(), mpsc::error::SendError<ToShard>> {
        for (shard, items) in self.shards.iter().zip(&mut self.items) {
            if !items.is_empty() {
                shard.send(ToShard::Items(std::mem::take(items))).await?;
            }
        }
        Ok(())
    }
}

/// Keeps one stream to one router: numbers its successive streams so that a newer one has a higher id.
async fn stay_attached(
    router: Arc<dyn RouterLink>,
    incarnation: Incarnation,
    index: u64,
    node: mpsc::Sender<FromStream>,
) {
    let mut attempt = 0_u64;
    loop {
        attempt += 1;
        let stream = StreamId(attempt << 16 | index);
        match router.attach(incarnation).await {
            Ok(deliver) => {
                if node.send(FromStream::Up(stream, deliver.to_router)).await.is_err() {
                    return;
                }
                if forward(stream, deliver.from_router, &node).await.is_err() {
                    return;
                }
                if node.send(FromStream::Down(stream)).await.is_err() {
                    return;
                }
                tracing::warn!("deliver stream ended; dialling again");
            }
            Err(problem) => tracing::warn!(%problem, "router refused the deliver stream; dialling again"),
        }
        tokio::time::sleep(REDIAL_PAUSE).await;
    }
}

async fn forward(
    stream: StreamId,
    mut from_router: DeliverReceiver,
    node: &mpsc::Sender<FromStream>,
) -> Result<(), mpsc::error::SendError<FromStream>> {
    while let Some(frames) = from_router.next(FRAMES_AT_ONCE).await {
        node.send(FromStream::Frames(stream, frames)).await?;
    }
    Ok(())
}
