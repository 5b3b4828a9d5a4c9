//! Who there is, and the truth about users.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_registry::{
    Announcer, Locator, LookupId, Member, MemberId, MemberOptions, REPLICAS, Ring, Transition,
};
use tidegate_vocab::{Channel, Incarnation};

use crate::checks::Begun;
use crate::mutant::Mutant;
use crate::network::{Network, Stream};

pub(crate) type NodeAt = usize;
pub(crate) type MemberAt = usize;
pub(crate) type UserAt = usize;

/// Members that there ever are; a ring has two or more of them.
pub(crate) const MEMBERS: usize = 4;
pub(crate) const ROUTERS: usize = 2;
/// Nodes alive at a time.
pub(crate) const NODES: usize = 3;
const USERS: usize = 7;
/// Longest step of time.
pub(crate) const STEP_MS_LIMIT: u64 = 50;
/// Longest time that a node's word is on the way to a router.
pub(crate) const WORD_MS_LIMIT: u64 = 100;
/// Longest time that a message is on the way on a slow stream.
pub(crate) const SLOW_MS_LIMIT: u64 = 1_000;
pub(crate) const DEBOUNCE_MS: u64 = 4_000;

/// What a user really has on a node.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    pub(crate) since_ms: u64,
    pub(crate) connections: u32,
    pub(crate) linger_until_ms: Option<u64>,
}

pub(crate) struct NodeProcess {
    pub(crate) incarnation: Incarnation,
    pub(crate) announcer: Announcer,
    pub(crate) is_alive: bool,
    pub(crate) ring: usize,
    pub(crate) users: BTreeMap<UserAt, Truth>,
    pub(crate) left: BTreeMap<UserAt, u64>,
    /// The rings that routers speak, as far as the node has heard.
    pub(crate) spoken: BTreeMap<usize, u64>,
}

pub(crate) struct MemberProcess {
    pub(crate) machine: Option<Member>,
    pub(crate) incarnation: Incarnation,
    pub(crate) ring: usize,
    /// Its clock: a start and a rate in percent.
    offset_ms: u64,
    rate: u64,
    /// How far it has read the topic, and how long that was when it started.
    pub(crate) read: usize,
    pub(crate) to_read: usize,
    pub(crate) has_caught_up: bool,
    /// The stream of who appends its transitions.
    pub(crate) pump: u64,
}

/// Every third is a channel: to the registry that is no difference.
fn name(user: UserAt) -> Channel {
    let kind = if user % 3 == 2 { "chat" } else { "user" };
    Channel::parse(&format!("{kind}:{user}")).expect("valid")
}

impl MemberProcess {
    pub(crate) fn clock(&self, now_ms: u64) -> u64 {
        self.offset_ms + now_ms * self.rate / 100
    }

    pub(crate) fn machine(&self) -> &Member {
        self.machine.as_ref().expect("the member is up")
    }
}

pub(crate) struct RouterProcess {
    pub(crate) locator: Locator,
    pub(crate) ring: usize,
    pub(crate) attached: BTreeSet<NodeAt>,
    pub(crate) lookups: HashMap<LookupId, Begun>,
}

/// A member list that somebody configured.
pub(crate) struct RingOf {
    pub(crate) ring: Arc<Ring>,
    pub(crate) members: Vec<MemberAt>,
    /// Per user: its members, the primary first.
    pub(crate) homes: Vec<Vec<MemberAt>>,
}

pub(crate) struct World {
    pub(crate) rng: StdRng,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) now_ms: u64,
    pub(crate) names: Vec<Channel>,
    pub(crate) rings: Vec<RingOf>,
    pub(crate) nodes: Vec<NodeProcess>,
    pub(crate) members: Vec<MemberProcess>,
    pub(crate) routers: Vec<RouterProcess>,
    pub(crate) network: Network,
    pub(crate) streams: Vec<Stream>,
    pub(crate) topic: Vec<Transition>,
    /// When a member last had to know that a user is connected.
    pub(crate) known: HashMap<(Incarnation, UserAt), u64>,
    /// The transitions that were given out, by emitter and number.
    pub(crate) given: HashSet<(Incarnation, u64)>,
    /// Something made a member unsure of what was said: repeats are allowed.
    pub(crate) is_unsure: bool,
    pub(crate) has_faults: bool,
    pub(crate) seen: BTreeMap<&'static str, u64>,
    pub(crate) trace: Option<Vec<String>>,
    incarnations: u128,
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Option<Mutant>, is_traced: bool) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            mutant,
            now_ms: 1_000,
            names: (0..USERS).map(name).collect(),
            rings: Vec::new(),
            nodes: Vec::new(),
            members: Vec::new(),
            routers: Vec::new(),
            network: Network::default(),
            streams: Vec::new(),
            topic: Vec::new(),
            known: HashMap::new(),
            given: HashSet::new(),
            is_unsure: false,
            has_faults: true,
            seen: BTreeMap::new(),
            trace: is_traced.then(Vec::new),
            incarnations: 0,
        };
        world.add_ring((0..MEMBERS - 1).collect());
        for member in 0..MEMBERS {
            let (offset_ms, rate) = (world.rng.random_range(0..1_000_000), world.rng.random_range(95..=105));
            let process = MemberProcess {
                machine: None,
                incarnation: Incarnation(0),
                ring: 0,
                offset_ms,
                rate,
                read: 0,
                to_read: 0,
                has_caught_up: false,
                pump: 0,
            };
            world.members.push(process);
            world.start_member(member);
        }
        for _ in 0..ROUTERS {
            let locator = Locator::new(Arc::clone(&world.rings[0].ring));
            let process =
                RouterProcess { locator, ring: 0, attached: BTreeSet::new(), lookups: HashMap::new() };
            world.routers.push(process);
        }
        for _ in 0..NODES {
            world.start_node();
        }
        world
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>6} {}", self.now_ms, line()));
        }
    }

    pub(crate) fn one_in(&mut self, count: u32) -> bool {
        self.rng.random_range(0..count) == 0
    }

    pub(crate) fn next_incarnation(&mut self) -> Incarnation {
        self.incarnations += 1;
        Incarnation(1_000 + self.incarnations)
    }

    pub(crate) fn add_ring(&mut self, members: Vec<MemberAt>) {
        let listed: Vec<_> = members.iter().map(|member| (MemberId(*member as u32), 1)).collect();
        let ring = Arc::new(Ring::build(&listed).expect("valid"));
        let homes = |user: &Channel| ring.replicas(user.as_str(), REPLICAS).map(|it| it.0 as usize).collect();
        let homes = self.names.iter().map(homes).collect();
        self.rings.push(RingOf { ring, members, homes });
    }

    pub(crate) fn members_of_the_ring(&self) -> impl Iterator<Item = MemberAt> + use<> {
        self.rings.last().expect("a ring").members.clone().into_iter()
    }

    /// What a member takes its ring to be.
    pub(crate) fn ring_for(&self, member: MemberAt) -> Arc<Ring> {
        if self.is(Mutant::ReplicaEmits) {
            return Arc::new(Ring::build(&[(MemberId(member as u32), 1)]).expect("valid"));
        }
        Arc::clone(&self.rings[self.members[member].ring].ring)
    }

    pub(crate) fn start_member(&mut self, member: MemberAt) {
        let incarnation = self.next_incarnation();
        let debounce_ms = if self.is(Mutant::NoDebounce) { 100 } else { DEBOUNCE_MS };
        let options = MemberOptions { debounce_ms, ..MemberOptions::default() };
        let ring = self.ring_for(member);
        let length = self.topic.len();
        let is_blind = self.is(Mutant::TopicNotReadBack);
        let process = &mut self.members[member];
        process.incarnation = incarnation;
        process.machine = Some(Member::new(MemberId(member as u32), incarnation, ring, options));
        process.read = if is_blind { length } else { 0 };
        process.to_read = length;
        process.has_caught_up = false;
        process.pump += 1;
    }

    pub(crate) fn start_node(&mut self) {
        let incarnation = self.next_incarnation();
        // Knows any of the last two lists.
        let ring = self.rings.len() - 1 - usize::from(self.rings.len() > 1 && self.one_in(2));
        let announcer = Announcer::new(incarnation, String::new(), Arc::clone(&self.rings[ring].ring));
        self.nodes.push(NodeProcess {
            incarnation,
            announcer,
            is_alive: true,
            ring,
            users: BTreeMap::new(),
            left: BTreeMap::new(),
            spoken: BTreeMap::new(),
        });
        let node = self.nodes.len() - 1;
        self.note(|| format!("node {node} starts, ring {ring}"));
        self.say_word(node);
    }

    pub(crate) fn node_of(&self, incarnation: Incarnation) -> NodeAt {
        self.nodes.iter().position(|node| node.incarnation == incarnation).expect("a node that was")
    }

    pub(crate) fn user_of(&self, name: &Channel) -> UserAt {
        self.names.iter().position(|user| user == name).expect("a user")
    }

    pub(crate) fn any_node(&mut self) -> Option<NodeAt> {
        let alive: Vec<NodeAt> = (0..self.nodes.len()).filter(|node| self.nodes[*node].is_alive).collect();
        (!alive.is_empty()).then(|| alive[self.rng.random_range(0..alive.len())])
    }
}
