//! Misreadings that lose or invent users, planted between the machines.

/// One misreading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A member applies a batch that it has applied before, after newer ones.
    StaleSequenceAccepted,
    /// A member applies a late batch of a stream that a newer hello ended.
    OldStreamAccepted,
    /// A member does not hear the end of a snapshot.
    SnapshotEndIgnored,
    /// A snapshot leaves someone out.
    SnapshotIncomplete,
    /// A member renews the lease of a node whose stream is gone.
    LeaseOutlivesStream,
    /// A router trusts every member about every node.
    MemberTrustedBlindly,
    /// A router knows members by their place in the ring, not by their incarnation.
    IncarnationIgnored,
    /// A node counts a member as current once it has sent, not once it is acknowledged.
    CurrentWhenSent,
    /// A node drops the old ring at once and goes on vouching for it.
    OldRingDroppedAtOnce,
    /// A replica emits transitions like a primary.
    ReplicaEmits,
    /// A restarted member does not read the topic first.
    TopicNotReadBack,
    /// Offline is said without waiting.
    NoDebounce,
    /// Whoever appends transitions is replaced, and they are not given out again.
    TransitionsNotResent,
    /// Withdrawals get lost.
    WithdrawalLost,
}
