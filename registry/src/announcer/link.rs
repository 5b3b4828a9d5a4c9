//! What one member has heard of the node, and what it has not.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use tidegate_vocab::{Channel, Incarnation, limits};

use crate::frame::Current;
use crate::ring::Ring;

/// Subjects for which an empty queue keeps room.
const KEPT: usize = 1_024;

/// A member, and the stream to it if one is open. Numbers go on over all streams, also when the member leaves the ring and comes
/// back: it may still know the older ones.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Some ring in use has the member.
    pub(super) is_wanted: bool,
    /// The stream that was dialled last.
    pub(super) session: u64,
    is_dialling: bool,
    pub(super) stream: Option<Stream>,
    seq: u64,
}

impl Link {
    pub(super) fn needs_stream(&self) -> bool {
        self.is_wanted && !self.is_dialling && self.stream.is_none()
    }

    /// There is a stream, and nothing waits on it or is on its way.
    pub(super) fn is_calm(&self) -> bool {
        let is_calm = |stream: &Stream| {
            stream.has_ended_snapshot && stream.queue.is_empty() && stream.in_flight.is_empty()
        };
        self.stream.as_ref().is_some_and(is_calm)
    }

    pub(super) fn dial(&mut self) -> u64 {
        self.session += 1;
        self.is_dialling = true;
        self.stream = None;
        self.session
    }

    pub(super) fn hang_up(&mut self) {
        self.is_dialling = false;
        self.stream = None;
    }

    /// What the ring adds has just been pushed.
    pub(super) fn begin_ring(&mut self, digest: u64) {
        if let Some(stream) = &mut self.stream {
            stream.begin_ring(digest);
        }
    }

    /// Numbers the batch whose subjects were just taken.
    pub(super) fn number(&mut self, now_ms: u64, oldest_ms: u64) -> Option<u64> {
        self.seq += 1;
        self.stream.as_mut()?.sent(self.seq, now_ms, oldest_ms);
        Some(self.seq)
    }
}

#[derive(Debug)]
struct Sent {
    seq: u64,
    /// Everything pushed before this place is in it or in one before it.
    upto: u64,
    sent_ms: u64,
    /// When the oldest of what it says came up.
    oldest_ms: u64,
}

/// What a batch is to say.
#[derive(Debug)]
pub(super) struct ToSay {
    pub(super) subjects: Vec<Channel>,
    pub(super) oldest_ms: u64,
    pub(super) ends_snapshot: bool,
}

/// One open stream.
#[derive(Debug)]
pub(super) struct Stream {
    member: Incarnation,
    /// Subjects of which the member must hear, and since when; each once.
    queue: VecDeque<(Channel, u64)>,
    queued: HashSet<Channel, foldhash::fast::RandomState>,
    /// Places in the queue ever given, and up to which they were sent and acknowledged.
    pushed: u64,
    taken: u64,
    acked: u64,
    snapshot_end: u64,
    has_ended_snapshot: bool,
    in_flight: VecDeque<Sent>,
    opened_ms: u64,
    last_sent_ms: Option<u64>,
    /// When the last acknowledged batch was sent.
    heard_ms: Option<u64>,
    /// Per ring: up to which place it is announced.
    rings: BTreeMap<u64, u64>,
}

impl Stream {
    pub(super) fn new(member: Incarnation, now_ms: u64) -> Self {
        Self {
            member,
            queue: VecDeque::new(),
            queued: HashSet::default(),
            pushed: 0,
            taken: 0,
            acked: 0,
            snapshot_end: 0,
            has_ended_snapshot: false,
            in_flight: VecDeque::new(),
            opened_ms: now_ms,
            last_sent_ms: None,
            heard_ms: None,
            rings: BTreeMap::new(),
        }
    }

    pub(super) fn push(&mut self, subject: &Channel, now_ms: u64) {
        if self.queued.insert(subject.clone()) {
            self.queue.push_back((subject.clone(), now_ms));
            self.pushed += 1;
        }
    }

    pub(super) fn end_of_snapshot(&mut self) {
        self.snapshot_end = self.pushed;
    }

    /// What the ring adds has just been pushed.
    pub(super) fn begin_ring(&mut self, digest: u64) {
        self.rings.insert(digest, self.pushed);
    }

    /// What the next batch says, if one is due.
    pub(super) fn take(&mut self, now_ms: u64) -> Option<ToSay> {
        if self.in_flight.len() >= limits::REGISTRY_BATCHES_IN_FLIGHT_LIMIT {
            return None;
        }
        let renews = self.last_sent_ms.is_none_or(|last| last + limits::REGISTRY_RENEW_MS <= now_ms);
        if self.queue.is_empty() && !renews && self.has_ended_snapshot {
            return None;
        }
        let count = self.queue.len().min(limits::REGISTRY_BATCH_LIMIT);
        let oldest_ms = self.queue.front().map_or(now_ms, |(_, since_ms)| *since_ms);
        let subjects: Vec<Channel> = self.queue.drain(..count).map(|(subject, _)| subject).collect();
        for subject in &subjects {
            self.queued.remove(subject);
        }
        if self.queue.is_empty() && self.queue.capacity() > KEPT {
            (self.queue, self.queued) = (VecDeque::new(), HashSet::default()); // After a burst.
        }
        self.taken += count as u64;
        let ends_snapshot = !self.has_ended_snapshot && self.taken >= self.snapshot_end;
        self.has_ended_snapshot |= ends_snapshot;
        Some(ToSay { subjects, oldest_ms, ends_snapshot })
    }

    pub(super) fn sent(&mut self, seq: u64, now_ms: u64, oldest_ms: u64) {
        self.last_sent_ms = Some(now_ms);
        self.in_flight.push_back(Sent { seq, upto: self.taken, sent_ms: now_ms, oldest_ms });
    }

    pub(super) fn acked(&mut self, seq: u64) {
        while let Some(sent) = self.in_flight.front().filter(|sent| sent.seq <= seq) {
            self.acked = sent.upto;
            self.heard_ms = Some(sent.sent_ms);
            self.in_flight.pop_front();
        }
    }

    pub(super) fn is_stuck(&self, now_ms: u64) -> bool {
        let waits_since = self.in_flight.front().map(|sent| sent.sent_ms);
        waits_since.is_some_and(|since| since.max(self.opened_ms) + limits::REGISTRY_LEASE_MS <= now_ms)
    }

    /// For which rings the member is current.
    pub(super) fn current(&self, rings: &[Arc<Ring>], now_ms: u64) -> Vec<Current> {
        let is_trusted = self.heard_ms.is_some_and(|heard| now_ms < heard + limits::REGISTRY_TRUST_MS);
        let batch = self.in_flight.iter().find(|sent| sent.upto > self.acked).map(|sent| sent.oldest_ms);
        let oldest_ms = batch.into_iter().chain(self.queue.front().map(|(_, since)| *since)).min();
        let lags = oldest_ms.is_some_and(|oldest| oldest + limits::REGISTRY_LAG_MS < now_ms);
        // What completes the snapshot is acknowledged with the last of it, or with the first batch.
        let is_complete =
            self.has_ended_snapshot && self.heard_ms.is_some() && self.acked >= self.snapshot_end;
        if !is_trusted || lags || !is_complete {
            return Vec::new();
        }
        let announced =
            |ring: &&Arc<Ring>| self.rings.get(&ring.digest()).is_some_and(|upto| *upto <= self.acked);
        let digests = rings.iter().filter(announced).map(|ring| ring.digest());
        digests.map(|digest| Current { member: self.member, digest }).collect()
    }
}
