//! The nodes of a member: sessions, generations, leases.

use std::collections::HashMap;

use tidegate_vocab::{Incarnation, limits};

use super::{AnnounceStream, Refusal};
use crate::frame::Hello;
use crate::table::{NodeIndex, Stored, Valid};

/// One node with a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its process start.
    pub node: Incarnation,
    /// Where its internal port is.
    pub address: String,
    /// The newest ring that it knew at its hello.
    pub digest: u64,
    /// Its subjects here, those that a snapshot dropped included until they are swept.
    pub subjects: u32,
    /// Their connections.
    pub connections: u64,
    /// True while its stream is open and its snapshot complete.
    pub is_complete: bool,
}

#[derive(Debug)]
pub(super) struct Node {
    hello: Hello,
    session: u64,
    stream: Option<u64>,
    /// Of this session; the places of this and of all since `valid_from` count.
    pub(super) generation: u32,
    valid_from: u32,
    /// The last batch applied, over all sessions.
    pub(super) applied: u64,
    /// A batch of this session was applied.
    pub(super) has_begun: bool,
    pub(super) lease_until_ms: u64,
    /// Until when what older sessions announced counts while this one's snapshot goes on: a lease after their last batch. A
    /// node that comes again and again without completing a snapshot keeps nobody alive.
    older_until_ms: u64,
    /// Until when the snapshot must be complete; `None` once it is.
    snapshot_until_ms: Option<u64>,
    /// One session's snapshot was completed.
    had_snapshot: bool,
    subjects: u32,
    connections: u64,
    /// When places last stopped counting: at a snapshot's end or the lease's.
    pub(super) ended_ms: u64,
    is_alive: bool,
}

/// All nodes that places may name.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// By index - 1; `None` where no place names it.
    nodes: Vec<Option<Node>>,
    alive: HashMap<Incarnation, NodeIndex>,
    streams: u64,
    generations: u32,
}

impl Nodes {
    fn get(&self, index: NodeIndex) -> Option<&Node> {
        self.nodes.get(usize::from(index.get()) - 1)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: NodeIndex) -> Option<&mut Node> {
        self.nodes.get_mut(usize::from(index.get()) - 1)?.as_mut()
    }

    /// The node of a stream that has not ended.
    pub(super) fn session(&mut self, stream: AnnounceStream) -> Option<&mut Node> {
        self.get_mut(stream.node).filter(|node| node.is_alive && node.stream == Some(stream.number))
    }

    /// Opens a session, and says whether the node is new.
    pub(super) fn open(
        &mut self,
        hello: Hello,
        session: u64,
        (lease_until_ms, snapshot_until_ms): (u64, u64),
    ) -> Result<(AnnounceStream, bool), Refusal> {
        let known = self.alive.get(&hello.node).copied();
        let index = match known {
            Some(index) => index,
            None => self.free_index().ok_or(Refusal::TooManyNodes)?,
        };
        if self.get(index).is_some_and(|node| node.session >= session) {
            return Err(Refusal::StaleHello);
        }
        self.streams += 1;
        self.generations += 1;
        let (number, generation) = (self.streams, self.generations);
        let slot = self.nodes.get_mut(usize::from(index.get()) - 1).ok_or(Refusal::TooManyNodes)?;
        let node = slot.get_or_insert_with(|| Node::new(hello.clone(), generation));
        self.alive.insert(hello.node, index);
        node.hello = hello;
        node.session = session;
        node.stream = Some(number);
        node.generation = generation;
        node.has_begun = false;
        if node.snapshot_until_ms.is_none() {
            node.older_until_ms = node.lease_until_ms;
        }
        node.lease_until_ms = node.lease_until_ms.max(lease_until_ms);
        node.snapshot_until_ms = Some(snapshot_until_ms);
        Ok((AnnounceStream { node: index, number }, known.is_none()))
    }

    fn free_index(&mut self) -> Option<NodeIndex> {
        let free = self.nodes.iter().position(Option::is_none);
        if free.is_none() && self.nodes.len() >= limits::REGISTRY_NODES_LIMIT {
            return None;
        }
        let place = free.unwrap_or_else(|| {
            self.nodes.push(None);
            self.nodes.len() - 1
        });
        u16::try_from(place + 1).ok().and_then(NodeIndex::new)
    }

    /// The snapshot is complete: what it did not mention no longer counts. False if it was complete before.
    pub(super) fn end_snapshot(&mut self, stream: AnnounceStream, now_ms: u64) -> bool {
        let Some(node) = self.session(stream).filter(|node| node.snapshot_until_ms.is_some()) else {
            return false;
        };
        node.snapshot_until_ms = None;
        node.had_snapshot = true;
        node.valid_from = node.generation;
        node.ended_ms = now_ms;
        true
    }

    pub(super) fn close(&mut self, stream: AnnounceStream) {
        if let Some(node) = self.session(stream) {
            node.stream = None;
        }
    }

    /// A node that announces and never ends its snapshot holds up what waits for it: it must come anew.
    pub(super) fn end_late_snapshots(&mut self, now_ms: u64) {
        let late = |node: &&mut Node| node.snapshot_until_ms.is_some_and(|until| until <= now_ms);
        for node in self.nodes.iter_mut().flatten().filter(late) {
            node.stream = None;
            node.snapshot_until_ms = None;
            node.had_snapshot = true;
        }
    }

    /// What only older sessions announced, for longer than a lease, no longer counts. True if there was any.
    pub(super) fn end_older(&mut self, now_ms: u64) -> bool {
        let mut has_ended = false;
        for node in self.nodes.iter_mut().flatten().filter(|node| node.is_alive) {
            let is_over = node.snapshot_until_ms.is_some() && node.older_until_ms <= now_ms;
            if is_over && node.valid_from < node.generation {
                node.valid_from = node.generation;
                node.ended_ms = node.older_until_ms;
                node.had_snapshot = false;
                has_ended = true;
            }
        }
        has_ended
    }

    /// The nodes whose leases ended, and how many subjects each had.
    pub(super) fn end_leases(&mut self, now_ms: u64) -> Vec<(Incarnation, u32)> {
        let mut lost = Vec::new();
        for node in self.nodes.iter_mut().flatten().filter(|node| node.is_alive) {
            if node.lease_until_ms > now_ms {
                continue;
            }
            node.is_alive = false;
            node.stream = None;
            // Also when nobody looked since.
            node.ended_ms = node.lease_until_ms;
            self.alive.remove(&node.hello.node);
            lost.push((node.hello.node, node.subjects));
        }
        lost
    }

    /// A node is still telling for the first time whom it has.
    pub(super) fn has_first_snapshot(&self) -> bool {
        let first = |node: &Node| node.is_alive && node.snapshot_until_ms.is_some() && !node.had_snapshot;
        self.nodes.iter().flatten().any(first)
    }

    pub(super) fn counts(&self, place: &Stored) -> bool {
        self.get(place.node).is_some_and(|node| node.valid().covers(place.generation))
    }

    /// A place of one node went, came or changed.
    pub(super) fn count(&mut self, old: Option<&Stored>, new: Option<&Stored>) {
        let Some(node) = old.or(new).and_then(|place| self.get_mut(place.node)) else { return };
        let of = |place: Option<&Stored>| place.map_or((0, 0), |place| (1, u64::from(place.connections)));
        let ((old_subjects, old_connections), (subjects, connections)) = (of(old), of(new));
        node.subjects = (node.subjects + subjects).saturating_sub(old_subjects);
        node.connections = (node.connections + connections).saturating_sub(old_connections);
    }

    pub(super) fn valid(&self) -> Vec<Valid> {
        self.nodes.iter().map(|node| node.as_ref().map_or(Valid::NOTHING, Node::valid)).collect()
    }

    /// The indexes that a pass which begins now makes free.
    pub(super) fn dead(&self) -> Vec<NodeIndex> {
        let dead = |(at, node): (usize, &Option<Node>)| {
            let is_dead = node.as_ref().is_some_and(|node| !node.is_alive);
            is_dead.then(|| u16::try_from(at + 1).ok().and_then(NodeIndex::new)).flatten()
        };
        self.nodes.iter().enumerate().filter_map(dead).collect()
    }

    pub(super) fn free(&mut self, dead: &[NodeIndex]) {
        for index in dead {
            if let Some(node) = self.nodes.get_mut(usize::from(index.get()) - 1) {
                debug_assert!(
                    node.as_ref().is_none_or(|node| node.subjects == 0),
                    "all of its places were swept"
                );
                *node = None;
            }
        }
    }

    pub(super) fn list(&self) -> Vec<NodeInfo> {
        let alive = self.nodes.iter().flatten().filter(|node| node.is_alive);
        alive.map(Node::info).collect()
    }
}

impl Node {
    fn new(hello: Hello, generation: u32) -> Self {
        Self {
            hello,
            session: 0,
            stream: None,
            generation,
            valid_from: generation,
            applied: 0,
            has_begun: false,
            older_until_ms: 0,
            lease_until_ms: 0,
            snapshot_until_ms: None,
            had_snapshot: false,
            subjects: 0,
            connections: 0,
            ended_ms: 0,
            is_alive: true,
        }
    }

    pub(super) fn valid(&self) -> Valid {
        if !self.is_alive {
            return Valid::NOTHING;
        }
        Valid { node: self.hello.node, from: self.valid_from, upto: self.generation }
    }

    fn info(&self) -> NodeInfo {
        NodeInfo {
            node: self.hello.node,
            address: self.hello.address.clone(),
            digest: self.hello.digest,
            subjects: self.subjects,
            connections: self.connections,
            is_complete: self.stream.is_some() && self.snapshot_until_ms.is_none(),
        }
    }
}
