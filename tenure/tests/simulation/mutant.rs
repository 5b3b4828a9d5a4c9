//! Readings of the rules that lose events or stall, planted between the machines and in the model's own shards.

mod node;
mod router;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use tidegate_tenure::{Nonce, StreamId, WantFrom, WantId};
use tidegate_vocab::{Channel, LogEpoch, PartitionId, Term};

/// One misreading. Most are named in TENURES, with the traces by which the model refuted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A shard gives a History to every subscriber of the channel.
    HistoryToEverySubscriber,
    /// A History is matched by (connection, channel), not by its Want.
    HistoryWithoutWantId,
    /// A shard dedupes by the partition's position.
    DedupeByPartition,
    /// A shard gives a live event to a pending subscription.
    LiveEventToPending,
    /// A Mark moves a pending subscription.
    MarkToPending,
    /// A subscription to a channel that the node holds needs no Want.
    JoinLocally,
    /// A Mark overtakes the events queued before it.
    MarkBeforeQueuedEvents,
    /// A Mark says H instead of S.
    MarkSaysH,
    /// A Mark goes out before the Resume that it answers was processed.
    MarkBeforeResume,
    /// A node heeds any data frame of a lower term.
    HeedLowerTerm,
    /// A node heeds Events and Marks of a lower term.
    HeedLowerTermLive,
    /// A node heeds data frames of an old Resume number in the same term.
    HeedOldNumber,
    /// A node follows the latest `Owned`, also one of a lower term.
    OwnedOfLowerTerm,
    /// A node ignores an `Owned` of a term that it has heard.
    IgnoreEqualTerm,
    /// A Resume says "from now" instead of the least position.
    ResumeFromHead,
    /// A Resume lists the pending channels too, and they count as established.
    ResumeFoldsPending,
    /// After a Resume the unfinished Wants are not sent again.
    WantsNotRepeated,
    /// next[P] rises with a History.
    HistoryMovesNext,
    /// Want and Unwant change places on the way.
    UnwantOvertakesWant,
    /// Frames that tell of loss get lost.
    LostIsDropped,
    /// A router recognises its takeover by its own name.
    TakeoverByName,
    /// A router serves as soon as its takeover is in the log.
    ServesBeforeConsumed,
    /// A router does not stop at a foreign takeover.
    ForeignTakeoverIgnored,
    /// A router that was taken over does not try again.
    NoRetake,
    /// A store forgets what it evicted.
    EvictedForgotten,
    /// A cursor above H is judged by H, not by a high watermark.
    WatermarkIsOwnH,
    /// A node takes a hold to begin at the cursor of the Want, not where its History was cut.
    HoldBeginsAtCursor,
    /// A node answers over a gap in its ring.
    RingHasGap,
    /// A hold survives a Lost.
    HoldSurvivesLost,
    /// A hold survives an Unwant: the next one is taken to begin where that one did.
    HoldSurvivesUnwant,
    /// A hold survives a change of the log: it begins at the same number there.
    HoldSurvivesEpoch,
    /// A shard keeps its next[P] in another log.
    NextSurvivesEpoch,
    /// A shard is not told of another log.
    EpochUntold,
    /// An owner does not look at the epoch of a cursor.
    EpochNotCompared,
    /// An owner takes a Cancel for an Unwant too; the node does not.
    CancelUnwantsAtOwner,
    /// A node takes a Cancel for an Unwant too; the owner does not.
    CancelUnwantsAtNode,
    /// A Cancel is applied to another Want.
    CancelOfAnother,
    /// An owner goes on with a Want that was cancelled.
    CancelIgnored,
}

/// The misreading of this run in one partition, and what it must remember.
#[derive(Debug)]
pub(crate) struct Planted {
    mutant: Option<Mutant>,
    id: PartitionId,
    /// Per router: the nonce it took over with last.
    nonces: BTreeMap<usize, Nonce>,
    /// Per router: where that nonce is in the log.
    landed: BTreeMap<usize, u64>,
    /// Terms that one side knows by another number: (router, or stream and its side's number) -> the real one.
    real_terms: BTreeMap<(usize, Term), Term>,
    heard_terms: BTreeMap<(StreamId, Term), Term>,
    /// Per gateway: the highest term of an `Owned`.
    highest: BTreeMap<usize, Term>,
    /// Per gateway: the position of the partition.
    positions: BTreeMap<usize, u64>,
    wants: BTreeSet<WantId>,
    /// What each Want asked for.
    asked: BTreeMap<WantId, (Channel, WantFrom)>,
    /// Per gateway and channel: where a hold began, and the log of it.
    holds: BTreeMap<(usize, Channel), (u64, Option<LogEpoch>)>,
    /// Per stream: what was put in the place of Cancels in this session.
    sessions: BTreeMap<StreamId, wire::Told>,
}

impl Planted {
    pub(crate) fn new(mutant: Option<Mutant>, id: PartitionId) -> Self {
        Self {
            mutant,
            id,
            nonces: BTreeMap::new(),
            landed: BTreeMap::new(),
            real_terms: BTreeMap::new(),
            heard_terms: BTreeMap::new(),
            highest: BTreeMap::new(),
            positions: BTreeMap::new(),
            wants: BTreeSet::new(),
            asked: BTreeMap::new(),
            holds: BTreeMap::new(),
            sessions: BTreeMap::new(),
        }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}
