//! What crosses between the node task and the shards, and an event with its encoding.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tidegate_tenure::{Outcome, WantFrom, WantId};
use tidegate_vocab::{Channel, Event, LogEpoch, Offset, PartitionId};
use tidegate_wire::object;
use tracing::Span;

/// An event with its body, encoded at most once however many shards, sets and framings it goes to.
#[derive(Debug)]
pub(crate) struct SharedEvent {
    pub(crate) event: Arc<Event>,
    pub(crate) partition: PartitionId,
    pub(crate) epoch: LogEpoch,
    body: OnceLock<Bytes>,
    /// Of the batch that it came in, if somebody records it: ends when the last event of the batch is dropped.
    _span: Span,
}

impl SharedEvent {
    pub(crate) fn new(event: Arc<Event>, partition: PartitionId, epoch: LogEpoch) -> Self {
        Self::live(event, partition, epoch, Span::none())
    }

    /// Of a batch that is fanned out under this span.
    pub(crate) fn live(event: Arc<Event>, partition: PartitionId, epoch: LogEpoch, span: Span) -> Self {
        Self { event, partition, epoch, body: OnceLock::new(), _span: span }
    }

    /// The event object without its closing brace.
    pub(crate) fn body(&self) -> &Bytes {
        self.body.get_or_init(|| object::event_body(&self.event, self.partition, self.epoch).into())
    }
}

/// One thing for a shard, in the order in which the node heard it.
#[derive(Debug, Clone)]
pub(crate) enum ShardItem {
    /// A live event.
    Event(Arc<SharedEvent>),
    /// Established subscriptions of the partition have everything before `next`.
    Mark { partition: PartitionId, epoch: LogEpoch, next: Offset },
    /// Past events for one Want.
    History { want: WantId, outcome: Outcome, partition: PartitionId, epoch: LogEpoch, rows: Vec<Arc<Event>> },
    /// One Want is answered.
    Established { want: WantId, outcome: Outcome, epoch: LogEpoch, upto: Offset },
    /// Events below `upto` are gone.
    Lost { partition: PartitionId, channel: Option<Channel>, upto: Offset },
    /// The partition's log is another one.
    EpochChanged { partition: PartitionId, epoch: LogEpoch },
}

/// What a shard asks of the node task.
#[derive(Debug)]
pub(crate) enum NodeCommand {
    /// A subscription wants a channel.
    Subscribe { want: WantId, partition: PartitionId, channel: Channel, from: WantFrom },
    /// A subscription that was pending when the shard said so is given up.
    Cancel { want: WantId, partition: PartitionId, channel: Channel },
    /// An established subscription has gone.
    Release { partition: PartitionId, channel: Channel },
}
