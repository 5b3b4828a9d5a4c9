//! A router's side: whom to ask where subjects are, and what an answer is worth.
//!
//! Sans-io. A lookup goes to one member per key; after the deadline, or a failure, to the other replica, and if that fails
//! too, to all attached nodes. An answer is completed by every attached node that the member was not current about, by
//! that node's own word. So it may name a node too many, and never one too few.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tidegate_vocab::{Channel, ErrorKind, Incarnation, Problem, limits};

use crate::frame::{Current, Location};
use crate::ring::{MemberId, REPLICAS, Ring};

/// A lookup, by its number.
pub type LookupId = u64;

/// One question to one member, by its number.
pub type AskId = u64;

/// A question for a member's lookup service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// By which the answer is known.
    pub id: AskId,
    /// Whom to ask.
    pub member: MemberId,
    /// The keys.
    pub subjects: Vec<Channel>,
}

/// Where a subject is, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// What the member said; empty where nobody answered.
    pub location: Location,
    /// Attached nodes that must be asked themselves, besides those in the location.
    pub also: Arc<[Incarnation]>,
}

/// An attached node and its word.
#[derive(Debug)]
struct Attached {
    current: HashSet<Current>,
    /// When the word last changed: an answer to an older question is not covered by it.
    since: u64,
}

#[derive(Debug, Default)]
struct Known {
    incarnation: Option<Incarnation>,
    /// Until when it is asked last.
    penalty_until_ms: u64,
}

#[derive(Debug)]
struct Lookup {
    found: Vec<Found>,
    /// Questions without an answer.
    open: usize,
}

#[derive(Debug)]
struct Asked {
    lookup: LookupId,
    member: MemberId,
    /// Under which ring the member was chosen.
    digest: u64,
    /// What the nodes' words were worth when it was asked.
    at: u64,
    deadline_ms: u64,
    /// Where the keys stand in the lookup.
    places: Vec<usize>,
    subjects: Vec<Channel>,
    is_second: bool,
}

/// A router's side of the registry. See the module.
#[derive(Debug)]
pub struct Locator {
    ring: Arc<Ring>,
    nodes: BTreeMap<Incarnation, Attached>,
    members: HashMap<MemberId, Known>,
    lookups: HashMap<LookupId, Lookup>,
    asked: BTreeMap<AskId, Asked>,
    last: u64,
    /// Rises with every word of a node, and with every ring.
    words: u64,
    /// When this router began to speak its ring.
    ring_since: u64,
    asks: Vec<Ask>,
    done: Vec<(LookupId, Vec<Found>)>,
}

impl Locator {
    /// A router that no node is attached to.
    #[must_use]
    pub fn new(ring: Arc<Ring>) -> Self {
        Self {
            ring,
            nodes: BTreeMap::new(),
            members: HashMap::new(),
            lookups: HashMap::new(),
            asked: BTreeMap::new(),
            last: 0,
            words: 0,
            ring_since: 0,
            asks: Vec::new(),
            done: Vec::new(),
        }
    }

    /// A newer member list. Nodes may withdraw what only the old ring assigned as soon as they hear of it, so answers to questions
    /// under way cover no node.
    pub fn set_ring(&mut self, ring: Arc<Ring>) {
        if ring.digest() != self.ring.digest() {
            self.words += 1;
            self.ring_since = self.words;
            self.ring = ring;
        }
    }

    /// What this router tells attached nodes that it speaks.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.ring.digest()
    }

    /// A node attached, or changed its word on who is current about it.
    pub fn node_says(&mut self, node: Incarnation, current: impl IntoIterator<Item = Current>) {
        self.words += 1;
        let current = current.into_iter().collect();
        self.nodes.insert(node, Attached { current, since: self.words });
    }

    /// A node is no longer attached: it cannot be reached through this router.
    pub fn detached(&mut self, node: Incarnation) {
        self.nodes.remove(&node);
    }

    /// How many attached nodes a member is not known to be current about.
    fn missing(&self, member: MemberId) -> usize {
        let known = self.members.get(&member).and_then(|known| known.incarnation);
        let Some(member) = known else { return self.nodes.len() };
        let current = Current { member, digest: self.ring.digest() };
        self.nodes.values().filter(|node| !node.current.contains(&current)).count()
    }

    /// Begins a lookup: take the questions and, at once or later, the result.
    ///
    /// # Errors
    /// When it has too many keys, or too many lookups are under way.
    pub fn lookup(&mut self, subjects: &[Channel], now_ms: u64) -> Result<LookupId, Problem> {
        if subjects.len() > limits::LOOKUP_KEYS_LIMIT {
            return Err(Problem::new(ErrorKind::TooMany, "a lookup has more than 4096 keys"));
        }
        if self.lookups.len() >= limits::LOOKUPS_IN_FLIGHT_LIMIT {
            return Err(Problem::new(ErrorKind::Overloaded, "too many lookups wait").retry_after_ms(100));
        }
        self.last += 1;
        let lookup = self.last;
        let ring = Arc::clone(&self.ring);
        let mut ranks: BTreeMap<MemberId, (bool, usize)> = BTreeMap::new();
        let mut groups: BTreeMap<MemberId, Vec<usize>> = BTreeMap::new();
        for (place, subject) in subjects.iter().enumerate() {
            let mut rank = |member| *ranks.entry(member).or_insert_with(|| self.rank(member, now_ms));
            // The first of equals is the primary.
            if let Some(member) = ring.replicas(subject.as_str(), REPLICAS).min_by_key(|member| rank(*member))
            {
                groups.entry(member).or_default().push(place);
            }
        }
        self.lookups.insert(lookup, Lookup { found: vec![Found::default(); subjects.len()], open: 0 });
        for (member, places) in groups {
            let subjects = places.iter().map(|place| subjects[*place].clone()).collect(); // invariant: places of these subjects
            self.ask(lookup, member, places, subjects, false, now_ms);
        }
        self.finish(lookup);
        Ok(lookup)
    }

    /// Members that missed a deadline last, then those that are current about the most nodes first.
    fn rank(&self, member: MemberId, now_ms: u64) -> (bool, usize) {
        let is_late = self.members.get(&member).is_some_and(|known| known.penalty_until_ms > now_ms);
        (is_late, self.missing(member))
    }

    fn ask(
        &mut self,
        lookup: LookupId,
        member: MemberId,
        places: Vec<usize>,
        subjects: Vec<Channel>,
        is_second: bool,
        now_ms: u64,
    ) {
        self.last += 1;
        let id = self.last;
        self.asks.push(Ask { id, member, subjects: subjects.clone() });
        if let Some(lookup) = self.lookups.get_mut(&lookup) {
            lookup.open += 1;
        }
        let (digest, at) = (self.ring.digest(), self.words);
        let deadline_ms = now_ms + limits::LOOKUP_DEADLINE_MS;
        let asked = Asked { lookup, member, digest, at, deadline_ms, places, subjects, is_second };
        self.asked.insert(id, asked);
    }

    /// A member answered. What comes after the deadline, or has another length than the question, is nothing.
    pub fn answered(&mut self, id: AskId, member: Incarnation, locations: Vec<Location>, now_ms: u64) {
        let is_fit = |asked: &Asked| locations.len() == asked.subjects.len() && now_ms <= asked.deadline_ms;
        match self.asked.get(&id) {
            None => return,
            Some(asked) if !is_fit(asked) => return self.failed(id, now_ms),
            Some(_) => {}
        }
        let Some(asked) = self.asked.remove(&id) else { return };
        self.members.entry(asked.member).or_default().incarnation = Some(member);
        let current = Current { member, digest: asked.digest };
        let is_spoken = self.ring_since <= asked.at;
        let covers = |node: &Attached| is_spoken && node.since <= asked.at && node.current.contains(&current);
        let uncovered = self.nodes.iter().filter(|(_, node)| !covers(node)).map(|(node, _)| *node);
        let also: Arc<[Incarnation]> = uncovered.collect();
        if let Some(lookup) = self.lookups.get_mut(&asked.lookup) {
            for (place, location) in asked.places.into_iter().zip(locations) {
                lookup.found[place] = Found { location, also: Arc::clone(&also) }; // invariant: a place of this lookup
            }
            lookup.open -= 1;
        }
        self.finish(asked.lookup);
    }

    /// The call failed, or its deadline passed: the other replica, then all nodes.
    pub fn failed(&mut self, id: AskId, now_ms: u64) {
        let Some(asked) = self.asked.remove(&id) else { return };
        let known = self.members.entry(asked.member).or_default();
        known.penalty_until_ms = now_ms + limits::LOOKUP_PENALTY_MS;
        let ring = Arc::clone(&self.ring);
        let mut groups: BTreeMap<MemberId, (Vec<usize>, Vec<Channel>)> = BTreeMap::new();
        let mut nobody: Vec<usize> = Vec::new();
        for (place, subject) in asked.places.into_iter().zip(asked.subjects) {
            let mut replicas = ring.replicas(subject.as_str(), REPLICAS);
            match replicas.find(|member| *member != asked.member).filter(|_| !asked.is_second) {
                Some(other) => {
                    let (places, subjects) = groups.entry(other).or_default();
                    places.push(place);
                    subjects.push(subject);
                }
                None => nobody.push(place),
            }
        }
        let all: Arc<[Incarnation]> = self.nodes.keys().copied().collect();
        if let Some(lookup) = self.lookups.get_mut(&asked.lookup) {
            lookup.open -= 1;
            for place in nobody {
                // invariant: a place of this lookup
                lookup.found[place] = Found { location: Location::default(), also: Arc::clone(&all) };
            }
        }
        for (member, (places, subjects)) in groups {
            self.ask(asked.lookup, member, places, subjects, true, now_ms);
        }
        self.finish(asked.lookup);
    }

    /// Gives up on answers whose deadline passed. Due every few milliseconds while lookups wait.
    pub fn tick(&mut self, now_ms: u64) {
        let late = self.asked.iter().filter(|(_, asked)| asked.deadline_ms <= now_ms);
        for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.failed(id, now_ms);
        }
    }

    fn finish(&mut self, lookup: LookupId) {
        if self.lookups.get(&lookup).is_some_and(|it| it.open == 0)
            && let Some(done) = self.lookups.remove(&lookup)
        {
            self.done.push((lookup, done.found));
        }
    }

    /// Questions to put.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.asks)
    }

    /// Results, each in the order of its lookup's keys.
    pub fn take_done(&mut self) -> Vec<(LookupId, Vec<Found>)> {
        std::mem::take(&mut self.done)
    }
}

#[cfg(test)]
mod tests;
