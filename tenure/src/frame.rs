//! The frames of a Deliver stream, one partition's share of them.
//!
//! Every frame names its partition and its term; every data frame also the Resume number `n` that it answers.

use std::sync::Arc;

use tidegate_vocab::{Channel, Event, LogEpoch, Offset, PartitionId, Term};

/// One Deliver stream between a router and a node, numbered by the side that keeps the state; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// One Want of one subscription, unique within a node incarnation. The high bits name the shard that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WantId(pub u64);

/// From where a subscription wants its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantFrom {
    /// A cursor: everything from this offset on, or be told `lost`.
    Next {
        /// The epoch in which the offset counts.
        epoch: LogEpoch,
        /// The first offset not yet received.
        offset: Offset,
    },
    /// What has come since this time (milliseconds since the Unix epoch, log time), as far as it exists.
    Since(u64),
    /// At most this many of the latest events.
    Last(u32),
    /// All that exists.
    Start,
    /// From now on.
    Now,
}

/// Why events are gone for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LostReason {
    /// Older than the retention, or evicted by the history's size.
    Expired,
    /// The cursor counts in another log.
    Epoch,
    /// The cursor is damaged, or ahead of a log that it claims to come from.
    BadCursor,
}

impl LostReason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Epoch => "epoch",
            Self::BadCursor => "bad_cursor",
        }
    }
}

/// What a Want turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything from the cursor on follows.
    Recovered,
    /// There was no cursor: what was asked for follows, as far as it exists.
    Fresh,
    /// Something between the cursor and now is gone; live events follow.
    Lost(LostReason),
}

/// Router to node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToNode {
    /// The sender owns the partition in this term.
    Owned {
        /// The partition.
        partition: PartitionId,
        /// The tenure's name.
        term: Term,
        /// The epoch of the topic.
        epoch: LogEpoch,
        /// The first offset that the history covers.
        floor: Offset,
    },
    /// The sender no longer owns it.
    Ended {
        /// The partition.
        partition: PartitionId,
        /// The term that ended.
        term: Term,
    },
    /// A live event of a wanted channel. Without an offset it is ephemeral.
    Event {
        /// The partition.
        partition: PartitionId,
        /// The tenure.
        term: Term,
        /// The Resume it answers.
        n: u64,
        /// The event.
        event: Arc<Event>,
    },
    /// Everything wanted before `next` has been sent on this stream.
    Mark {
        /// The partition.
        partition: PartitionId,
        /// The tenure.
        term: Term,
        /// The Resume it answers.
        n: u64,
        /// The send pointer S.
        next: Offset,
        /// Milliseconds since the router asked for the high watermark that it has since reached.
        age_ms: u64,
    },
    /// Past events for one Want, in order.
    History {
        /// The partition.
        partition: PartitionId,
        /// The tenure.
        term: Term,
        /// The Resume it answers.
        n: u64,
        /// The Want it answers.
        want: WantId,
        /// What the Want turned out to be so far.
        outcome: Outcome,
        /// The events.
        rows: Vec<Arc<Event>>,
    },
    /// The History of one Want is complete; live events from `upto` on follow.
    HistoryEnd {
        /// The partition.
        partition: PartitionId,
        /// The tenure.
        term: Term,
        /// The Resume it answers.
        n: u64,
        /// The Want it answers.
        want: WantId,
        /// What the Want turned out to be.
        outcome: Outcome,
        /// The first offset that is not covered by the History.
        upto: Offset,
    },
    /// Events of a channel (or of the whole partition) below `upto` are gone and will not come.
    Lost {
        /// The partition.
        partition: PartitionId,
        /// The tenure.
        term: Term,
        /// The Resume it answers.
        n: u64,
        /// The channel; `None` for every channel of the partition.
        channel: Option<Channel>,
        /// The first offset that is not lost.
        upto: Offset,
    },
}

/// Node to router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToRouter {
    /// The node wants something in the partition and goes on from here.
    Resume {
        /// The partition.
        partition: PartitionId,
        /// The tenure.
        term: Term,
        /// The node's number for it, never reused in one incarnation.
        n: u64,
        /// The least position of the established subscriptions; `None` when there is none: from now.
        from: Option<Offset>,
        /// The established channels.
        channels: Vec<Channel>,
    },
    /// One subscription wants one channel.
    Want {
        /// The partition.
        partition: PartitionId,
        /// The tenure.
        term: Term,
        /// The current Resume.
        n: u64,
        /// Position of this frame among the Wants and Unwants since that Resume, from 1.
        number: u64,
        /// The answer's address.
        want: WantId,
        /// The channel.
        channel: Channel,
        /// From where.
        from: WantFrom,
    },
    /// Nobody on the node wants the channel any more.
    Unwant {
        /// The partition.
        partition: PartitionId,
        /// The tenure.
        term: Term,
        /// The current Resume.
        n: u64,
        /// Position of this frame among the Wants and Unwants since that Resume, from 1.
        number: u64,
        /// The channel.
        channel: Channel,
    },
    /// The subscription of a Want is gone: nothing more of its History is needed. It ends neither the want of the
    /// channel nor takes a number: nobody is left to be told.
    Cancel {
        /// The partition.
        partition: PartitionId,
        /// The tenure.
        term: Term,
        /// The current Resume.
        n: u64,
        /// The Want.
        want: WantId,
    },
    /// The node has pushed everything before `next` to its shards; and what it believes it wants.
    Ack {
        /// The partition.
        partition: PartitionId,
        /// The tenure.
        term: Term,
        /// The current Resume.
        n: u64,
        /// The node's next.
        next: Offset,
        /// The number of the last Want or Unwant sent; 0 when none was since the Resume.
        number: u64,
        /// How many channels the node holds.
        held: u64,
        /// The xor of their hashes.
        held_xor: u64,
    },
}

impl ToNode {
    /// The partition that the frame is about.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        match self {
            Self::Owned { partition, .. }
            | Self::Ended { partition, .. }
            | Self::Event { partition, .. }
            | Self::Mark { partition, .. }
            | Self::History { partition, .. }
            | Self::HistoryEnd { partition, .. }
            | Self::Lost { partition, .. } => *partition,
        }
    }

    /// About how many bytes the frame holds, for byte caps.
    #[must_use]
    pub fn cost(&self) -> usize {
        match self {
            Self::Event { event, .. } => event_cost(event),
            Self::History { rows, .. } => 64 + rows.iter().map(|row| event_cost(row)).sum::<usize>(),
            _ => 64,
        }
    }
}

impl ToRouter {
    /// The partition that the frame is about.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        match self {
            Self::Resume { partition, .. }
            | Self::Want { partition, .. }
            | Self::Unwant { partition, .. }
            | Self::Cancel { partition, .. }
            | Self::Ack { partition, .. } => *partition,
        }
    }

    /// The tenure and the Resume that the frame belongs to.
    #[must_use]
    pub fn session(&self) -> (Term, u64) {
        match self {
            Self::Resume { term, n, .. }
            | Self::Want { term, n, .. }
            | Self::Unwant { term, n, .. }
            | Self::Cancel { term, n, .. }
            | Self::Ack { term, n, .. } => (*term, *n),
        }
    }
}

/// About how many bytes an event holds.
pub(crate) fn event_cost(event: &Event) -> usize {
    64 + event.channel.as_str().len() + event.name.as_str().len() + event.payload.bytes().len()
}
