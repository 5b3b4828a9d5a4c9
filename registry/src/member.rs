//! What one member of the registry knows: nodes, their leases, and their subjects.
//!
//! Sans-io: whoever owns a `Member` passes in what came and the time, in milliseconds of one monotonic clock. One task owns it;
//! lookups go to its [`Table`] from any thread. It decides nothing about other members, and answers for any key. See
//! `docs/adr/0013-registry.md`.

mod nodes;
mod pass;
mod presences;

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_vocab::{ErrorKind, Incarnation, limits};

use crate::frame::{Batch, Hello, Presence, Transition, Update};
use crate::id::CompactId;
use crate::ring::{MemberId, REPLICAS, Ring};
use crate::table::{Entry, Stored, Table};
pub use nodes::NodeInfo;
use nodes::Nodes;
use pass::Pass;
pub use presences::Online;
use presences::Presences;

/// Times and places of a member.
#[derive(Debug, Clone, Copy)]
pub struct MemberOptions {
    /// How long a node is believed after its last batch.
    pub lease_ms: u64,
    /// How long a subject must be nowhere before it is offline: longer than a drain's pause.
    pub debounce_ms: u64,
    /// In which time a snapshot must be complete; then its stream is ended.
    pub snapshot_ms: u64,
    /// The Unix time, in milliseconds, at which the clock stood at 0. For people, never compared.
    pub unix_ms: u64,
}

impl Default for MemberOptions {
    fn default() -> Self {
        Self {
            lease_ms: limits::REGISTRY_LEASE_MS,
            debounce_ms: limits::OFFLINE_DEBOUNCE_MS,
            snapshot_ms: limits::REGISTRY_SNAPSHOT_TIMEOUT_MS,
            unix_ms: 0,
        }
    }
}

/// A stream of announcements that a hello opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AnnounceStream {
    pub(crate) node: crate::table::NodeIndex,
    pub(crate) number: u64,
}

/// What operators and routers hear at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeEvent {
    /// A node announced itself.
    Joined(Incarnation),
    /// A node's lease ended, or it said goodbye: its subjects are no longer there.
    Lost {
        /// The node.
        node: Incarnation,
        /// How many subjects it had here.
        subjects: u32,
    },
}

/// Why a hello or a batch was refused; the stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A newer hello of the node came, or its lease ended.
    #[error("the stream was ended: a newer one came, or the lease ended")]
    Ended,
    /// A hello that an older one of its node overtook.
    #[error("a newer hello of the node came before")]
    StaleHello,
    /// There is no room for another node.
    #[error("too many nodes")]
    TooManyNodes,
    /// A batch is missing before this one, or a stream begins behind the one before.
    #[error("batch {got} cannot follow {applied}")]
    Gap {
        /// The last one applied.
        applied: u64,
        /// The one that came.
        got: u64,
    },
    /// The batch has more updates than one may have.
    #[error("a batch has {0} updates")]
    TooManyUpdates(usize),
    /// The address is too long.
    #[error("an address has {0} bytes")]
    LongAddress(usize),
}

impl Refusal {
    /// The kind that the peer hears.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Ended | Self::StaleHello => ErrorKind::Conflict,
            Self::TooManyNodes => ErrorKind::Overloaded,
            Self::Gap { .. } => ErrorKind::BadRequest,
            Self::TooManyUpdates(_) => ErrorKind::TooMany,
            Self::LongAddress(_) => ErrorKind::TooLarge,
        }
    }
}

/// One member of the registry. See the module.
#[derive(Debug)]
pub struct Member {
    id: MemberId,
    incarnation: Incarnation,
    ring: Arc<Ring>,
    options: MemberOptions,
    table: Arc<Table>,
    nodes: Nodes,
    presences: Presences,
    pass: Option<Pass>,
    /// What calls for a pass; taken by the next one.
    wanted: Option<pass::Wanted>,
    /// How often the topic had to be read from its start.
    reading: u64,
    /// When presence is spoken about, once the topic was read.
    speaks_at_ms: Option<u64>,
    events: VecDeque<NodeEvent>,
}

impl Member {
    /// An empty member of this ring. Presence stays silent until [`caught_up`](Self::caught_up).
    #[must_use]
    pub fn new(id: MemberId, incarnation: Incarnation, ring: Arc<Ring>, options: MemberOptions) -> Self {
        Self {
            id,
            incarnation,
            ring,
            options,
            table: Arc::new(Table::new(incarnation.0 as u64)),
            nodes: Nodes::default(),
            presences: Presences::new(incarnation, options.debounce_ms, options.unix_ms),
            pass: None,
            wanted: None,
            reading: 1,
            speaks_at_ms: None,
            events: VecDeque::new(),
        }
    }

    /// The subjects, for lookups on any thread.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table)
    }

    /// The process start.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The ring by which this member knows what it is primary of.
    #[must_use]
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Opens a session: the node's older stream is ended, what the node has is announced anew.
    ///
    /// # Errors
    /// When the hello was overtaken by a newer one of its node, or there is no room.
    pub fn hello(&mut self, hello: Hello, session: u64, now_ms: u64) -> Result<AnnounceStream, Refusal> {
        if hello.address.len() > limits::REGISTRY_ADDRESS_BYTES_LIMIT {
            return Err(Refusal::LongAddress(hello.address.len()));
        }
        self.end_leases(now_ms);
        let node = hello.node;
        let until = (now_ms + self.options.lease_ms, now_ms + self.options.snapshot_ms);
        let (stream, is_new) = self.nodes.open(hello, session, until)?;
        if is_new {
            self.say(NodeEvent::Joined(node));
        }
        self.table.set_valid(self.nodes.valid());
        Ok(stream)
    }

    /// Takes a batch and gives back the number up to which everything is applied.
    ///
    /// # Errors
    /// When the stream was ended, or the batch breaks the rules; nothing of it is applied.
    pub fn batch(&mut self, stream: AnnounceStream, batch: &Batch, now_ms: u64) -> Result<u64, Refusal> {
        if batch.updates.len() > limits::REGISTRY_BATCH_LIMIT {
            return Err(Refusal::TooManyUpdates(batch.updates.len()));
        }
        self.end_leases(now_ms);
        let node = self.nodes.session(stream).ok_or(Refusal::Ended)?;
        if node.has_begun && batch.seq <= node.applied {
            return Ok(node.applied);
        }
        // A stream keeps its order, so what begins it is newer than all that was: acknowledging it unapplied would lie.
        let is_next = if node.has_begun { batch.seq == node.applied + 1 } else { batch.seq > node.applied };
        if !is_next {
            return Err(Refusal::Gap { applied: node.applied, got: batch.seq });
        }
        node.has_begun = true;
        node.applied = batch.seq;
        node.lease_until_ms = now_ms + self.options.lease_ms;
        for update in &batch.updates {
            self.apply(stream, update, now_ms);
        }
        if batch.ends_snapshot && self.nodes.end_snapshot(stream, now_ms) {
            self.table.set_valid(self.nodes.valid());
            self.want(pass::Wanted::default());
        }
        Ok(batch.seq)
    }

    fn apply(&mut self, stream: AnnounceStream, update: &Update, now_ms: u64) {
        let Self { nodes, presences, table, ring, id, .. } = self;
        let Some(node) = nodes.session(stream) else { return };
        let generation = node.generation;
        let key = CompactId::new(update.subject.as_str());
        table.change(&key, |entry, is_new| {
            if is_new {
                entry.is_primary = is_primary(ring, *id, update.subject.as_str());
            }
            match update.state {
                Some(state) => {
                    let new = Stored {
                        generation,
                        connections: state.connections,
                        since_s: state.since_s,
                        node: stream.node,
                        transports: state.transports.0,
                    };
                    nodes.count(entry.put(new).as_ref(), Some(&new));
                }
                None => entry.retain(|place| {
                    let stays = place.node != stream.node;
                    if !stays {
                        nodes.count(Some(place), None);
                    }
                    stays
                }),
            }
            presences.look(entry, &key, |place| nodes.counts(place), now_ms);
        });
    }

    /// The stream ended without a goodbye: the lease runs on.
    pub fn closed(&mut self, stream: AnnounceStream) {
        self.nodes.close(stream);
    }

    /// The node ends well: all of it is gone at once.
    pub fn goodbye(&mut self, stream: AnnounceStream, now_ms: u64) {
        if let Some(node) = self.nodes.session(stream) {
            node.lease_until_ms = now_ms;
            self.end_leases(now_ms);
        }
    }

    /// Another ring from now on. What this member is primary of is looked at anew, in slices, and presence is silent until the
    /// topic was read once more: keys that are new here were passed over before.
    pub fn set_ring(&mut self, ring: Arc<Ring>) {
        if ring.digest() == self.ring.digest() {
            return;
        }
        self.ring = ring;
        self.want(pass::Wanted { ring: true });
        self.reading += 1;
        self.speaks_at_ms = None;
        self.presences.speaks = false;
        let Self { presences, table, ring, id, .. } = self;
        presences.take_back(table, |subject| !is_primary(ring, *id, subject.as_str()));
    }

    /// The number of the reading of the topic, from its start, that this member waits for or has had.
    #[must_use]
    pub fn reading(&self) -> u64 {
        self.reading
    }

    /// A record of the topic, from its start on and then as it grows, this member's own included.
    pub fn read_back(&mut self, record: &Transition, now_ms: u64) {
        let is_heeded = self.presences.heeds(record);
        if self.presences.take_backlog() {
            self.want(pass::Wanted::default());
        }
        if !is_heeded {
            return;
        }
        let subject = record.subject.as_str();
        let is_ours = self.ring.replicas(subject, REPLICAS).any(|member| member == self.id);
        let Self { nodes, presences, table, ring, id, .. } = self;
        let key = CompactId::new(subject);
        table.change(&key, |entry, is_new| {
            if is_new && !is_ours {
                return;
            }
            if is_new {
                entry.is_primary = is_primary(ring, *id, subject);
            }
            presences.set_online(entry, record.presence == Presence::Online);
            presences.look(entry, &key, |place| nodes.counts(place), now_ms);
        });
    }

    /// In this reading the topic was read up to where it ended when reading began. From a lease later on, so that nodes have come,
    /// presence is spoken about.
    pub fn caught_up(&mut self, reading: u64, now_ms: u64) {
        if reading == self.reading {
            self.speaks_at_ms.get_or_insert(now_ms + self.options.lease_ms);
        }
    }

    /// Ends leases, sweeps `slices` of 64 parts, and says who has been gone for long enough. Due a few times a second.
    pub fn tick(&mut self, now_ms: u64, slices: usize) {
        self.end_leases(now_ms);
        let is_due = self.speaks_at_ms.is_some_and(|at| at <= now_ms) && !self.is_learning_ring();
        if !self.presences.speaks && is_due {
            self.presences.speaks = true;
            self.want(pass::Wanted::default());
        }
        for _ in 0..slices {
            self.sweep(now_ms);
        }
        if !self.nodes.has_first_snapshot() {
            let Self { nodes, presences, table, .. } = self;
            presences.end_debounces(table, |place| nodes.counts(place), now_ms);
        }
    }

    /// True while places that no longer count are being swept.
    #[must_use]
    pub fn is_sweeping(&self) -> bool {
        self.pass.is_some() || self.wanted.is_some()
    }

    /// Ends what was not renewed: one step a node, whatever it had.
    fn end_leases(&mut self, now_ms: u64) {
        self.nodes.end_late_snapshots(now_ms);
        let has_older_ended = self.nodes.end_older(now_ms);
        let lost = self.nodes.end_leases(now_ms);
        if lost.is_empty() && !has_older_ended {
            return;
        }
        self.table.set_valid(self.nodes.valid());
        self.want(pass::Wanted::default());
        for (node, subjects) in lost {
            self.say(NodeEvent::Lost { node, subjects });
        }
    }

    fn say(&mut self, event: NodeEvent) {
        if self.events.len() == limits::REGISTRY_EVENTS_LIMIT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// What happened to nodes since the last call; the oldest are missing if nobody asked for long.
    pub fn take_events(&mut self) -> Vec<NodeEvent> {
        self.events.drain(..).collect()
    }

    /// At most this many transitions that were not given out yet, in order. Each stays in flight until it is read back.
    pub fn take_transitions(&mut self, limit: usize) -> Vec<Transition> {
        self.presences.take(limit)
    }

    /// Whoever took transitions is gone: those in flight are given out again.
    pub fn resend_transitions(&mut self) {
        self.presences.resend();
    }

    /// The nodes with a lease.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.nodes.list()
    }

    /// How many subjects are online of whose key this member is the primary, by what it said and read.
    #[must_use]
    pub fn online(&self) -> Online {
        self.presences.online
    }
}

/// Whether a member is the primary of a key.
fn is_primary(ring: &Ring, id: MemberId, subject: &str) -> bool {
    ring.replicas(subject, 1).next() == Some(id)
}

/// What a closure over an entry's places asks.
trait Counts: Fn(&Stored) -> bool {}
impl<F: Fn(&Stored) -> bool> Counts for F {}

/// The earliest `since` of the places that count.
fn since_s(entry: &Entry, counts: impl Counts) -> Option<u32> {
    entry.places().filter(|place| counts(place)).map(|place| place.since_s).min()
}

#[cfg(test)]
mod tests;
