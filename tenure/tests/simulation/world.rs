//! The simulated cluster: one partition's log, two routers, a few gateways, clients, and the streams between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_tenure::{Node, NodeOut, Nonce, Owner, StreamId, ToNode, ToRouter, WantFrom};
use tidegate_vocab::{Channel, LogEpoch, Offset, PartitionId, Term, Topic};

use crate::audit::Audit;
use crate::checks::{Check, Session, Violation};
use crate::client::{Client, Follow};
use crate::log::{Log, Store};
use crate::mutant::{Mutant, Planted};

pub(crate) const PARTITION: PartitionId = PartitionId { topic: Topic::Events, number: 0 };
pub(crate) const EPOCH: LogEpoch = LogEpoch(7);
pub(crate) const OTHER_EPOCH: LogEpoch = LogEpoch(6);
pub(crate) const ROUTERS: usize = 2;

/// What differs from seed to seed.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) gateways: usize,
    pub(crate) clients: usize,
    pub(crate) channels: Vec<Channel>,
    pub(crate) ring_bytes: usize,
    pub(crate) node_ring_bytes: usize,
    pub(crate) room_bytes: usize,
    pub(crate) store_rows: usize,
    pub(crate) chunk_rows: usize,
    pub(crate) steps: usize,
    /// One step of time in so many is longer than any linger.
    pub(crate) long_time_in: u32,
    /// How likely each kind of step is, by [`crate::scheduler::Kind`]: some kinds never happen under some seeds.
    pub(crate) weights: Vec<u32>,
}

/// A router process; what is durable is its store.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) up: bool,
    /// Still believes that the partition is assigned to it.
    pub(crate) believes: bool,
    pub(crate) owner: Option<Owner>,
    pub(crate) store: Store,
    /// The nonce of its last takeover.
    pub(crate) nonce: Option<Nonce>,
    pub(crate) retake_at_ms: Option<u64>,
    /// High watermarks asked for and not yet answered: when, and the log's end then.
    pub(crate) asks: Vec<(u64, u64)>,
    /// Reads of the log asked for and not yet answered.
    pub(crate) reads: Vec<(StreamId, Offset)>,
}

/// A gateway: its node and, behind a queue, its one shard.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) node: Node,
    pub(crate) inbox: VecDeque<NodeOut>,
    /// The shard's next[P].
    pub(crate) shard_next: u64,
    pub(crate) session: Option<Session>,
    pub(crate) highest: Term,
    /// What the session's Resume, Wants and Unwants said is wanted.
    pub(crate) told: BTreeSet<Channel>,
}

/// One Deliver stream; each end learns on its own that it was cut.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) router: usize,
    pub(crate) gateway: usize,
    pub(crate) cut: bool,
    pub(crate) router_end: bool,
    pub(crate) node_end: bool,
    pub(crate) down: VecDeque<ToNode>,
    pub(crate) up: VecDeque<ToRouter>,
    pub(crate) audit: Option<Audit>,
}

impl Stream {
    pub(crate) fn new(router: usize, gateway: usize) -> Self {
        Self {
            router,
            gateway,
            cut: false,
            router_end: true,
            node_end: true,
            down: VecDeque::new(),
            up: VecDeque::new(),
            audit: None,
        }
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.down.iter().map(ToNode::cost).sum()
    }
}

pub(crate) struct World {
    pub(crate) rng: StdRng,
    pub(crate) config: Config,
    pub(crate) planted: Planted,
    pub(crate) now_ms: u64,
    pub(crate) log: Log,
    pub(crate) routers: Vec<Router>,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) clients: Vec<Client>,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    /// Takeovers sent to the log and not yet in it.
    pub(crate) appends: Vec<(usize, Nonce)>,
    pub(crate) assigned: Option<usize>,
    pub(crate) names: u64,
    /// Per channel, below which some store ever lost rows.
    pub(crate) gone: BTreeMap<Channel, u64>,
    /// How often what matters happened, so that a simulation which no longer reaches it is noticed.
    pub(crate) seen: Seen,
    pub(crate) trace: Option<VecDeque<String>>,
    /// What happens late while settling repeats itself.
    pub(crate) trace_frozen: bool,
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Option<Mutant>, traced: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let config = Config::draw(&mut rng);
        let router = || Router {
            up: true,
            believes: false,
            owner: None,
            store: Store::wiped(0, &config),
            nonce: None,
            retake_at_ms: None,
            asks: Vec::new(),
            reads: Vec::new(),
        };
        let gateway = |_| Gateway {
            node: Node::new(PARTITION).with_ring_bytes_limit(config.node_ring_bytes),
            inbox: VecDeque::new(),
            shard_next: 0,
            session: None,
            highest: Term::NONE,
            told: BTreeSet::new(),
        };
        let routers = (0..ROUTERS).map(|_| router()).collect();
        let gateways = (0..config.gateways).map(gateway).collect();
        let mut world = Self {
            rng,
            planted: Planted::new(mutant),
            now_ms: 1_000_000,
            log: Log::default(),
            routers,
            gateways,
            clients: Vec::new(),
            streams: BTreeMap::new(),
            appends: Vec::new(),
            assigned: None,
            names: 0,
            gone: BTreeMap::new(),
            seen: Seen::new(),
            trace: traced.then(VecDeque::new),
            trace_frozen: false,
            config,
        };
        world.clients = (0..world.config.clients).map(|_| world.draw_client()).collect();
        world
    }

    pub(crate) fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.planted.mutant == Some(mutant)
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = self.trace.as_mut().filter(|_| !self.trace_frozen) {
            trace.push_back(line());
            if trace.len() > 120 {
                trace.pop_front();
            }
        }
    }

    /// A number never used before.
    pub(crate) fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    pub(crate) fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_ratio(1, n)
    }

    pub(crate) fn draw_channel(&mut self) -> Channel {
        let index = self.rng.random_range(0..self.config.channels.len());
        self.config.channels[index].clone()
    }

    /// Something a client may ask for that has no cursor of ours.
    pub(crate) fn draw_wish(&mut self) -> WantFrom {
        let end = self.log.end();
        match self.rng.random_range(0..11) {
            0 => WantFrom::Next { epoch: EPOCH, offset: Offset(0) },
            1 => WantFrom::Next { epoch: EPOCH, offset: Offset(self.rng.random_range(0..=end)) },
            // Perhaps above what the owner has consumed.
            2 => WantFrom::Next {
                epoch: EPOCH,
                offset: Offset(end.saturating_sub(self.rng.random_range(0..3))),
            },
            3 => WantFrom::Next { epoch: EPOCH, offset: Offset(end + self.rng.random_range(0..5)) },
            4 => WantFrom::Next { epoch: OTHER_EPOCH, offset: Offset(self.rng.random_range(0..=end)) },
            5 => WantFrom::Since(self.now_ms - self.rng.random_range(0..10_000)),
            6 => WantFrom::Last(self.rng.random_range(0..5)),
            7 => WantFrom::Start,
            _ => WantFrom::Now,
        }
    }

    fn draw_client(&mut self) -> Client {
        let mut channels = self.config.channels.clone();
        let count = if self.rng.random() { 1 } else { self.rng.random_range(1..=channels.len()) };
        while channels.len() > count {
            channels.remove(self.rng.random_range(0..channels.len()));
        }
        let follows = channels.into_iter().map(|channel| Follow::new(channel, self.draw_wish())).collect();
        Client { follows, conn: None }
    }

    /// Everything that must hold after each step and is not checked where it happens.
    pub(crate) fn check(&mut self) -> Check {
        for client in &mut self.clients {
            let Some(conn) = &client.conn else { continue };
            let shard_next = self.gateways[conn.gateway].shard_next;
            for (follow, sub) in client.follows.iter_mut().zip(&conn.subs) {
                let Some(position) = sub.position(shard_next) else { continue };
                crate::checks::cursor_passes_nothing(follow, position, &self.log, self.now_ms)?;
                follow.verified = follow.verified.max(position);
            }
        }
        Ok(())
    }

    pub(crate) fn remember_gone(&mut self, router: usize) {
        for (channel, evicted) in self.routers[router].store.evicted() {
            let gone = self.gone.entry(channel.clone()).or_default();
            *gone = (*gone).max(*evicted);
        }
    }

    /// Rule 10: `lost` is only told when something below `upto` can really not be had from `from` on.
    pub(crate) fn lost_has_a_cause(&self, channel: &Channel, from: u64) -> Check {
        let gone = self.gone.get(channel).copied().unwrap_or(0).max(self.log.start);
        crate::checks::hold(from < gone, "lost_has_a_cause", || {
            format!("{channel:?}: lost from {from}, but only below {gone} is gone")
        })
    }
}

impl Config {
    fn draw(rng: &mut StdRng) -> Self {
        let pick = |rng: &mut StdRng, from: &[usize]| from[rng.random_range(0..from.len())];
        let channels = rng.random_range(1..=3);
        let name = |index: usize| Channel::parse(&format!("c{index}")).expect("invariant: a valid name");
        Self {
            gateways: rng.random_range(1..=3),
            clients: rng.random_range(1..=5),
            channels: (0..channels).map(name).collect(),
            ring_bytes: pick(rng, &[0, 200, 800, 1 << 20]),
            node_ring_bytes: pick(rng, &[0, 200, 800, 1 << 20]),
            room_bytes: pick(rng, &[100, 300, 1_000, 1 << 20]),
            store_rows: pick(rng, &[2, 5, 1_000, 1_000]),
            chunk_rows: pick(rng, &[1, 2, 1_000]),
            steps: pick(rng, &[100, 400, 1_000, 2_500]),
            long_time_in: [2, 8, 32][rng.random_range(0..3)],
            weights: crate::scheduler::draw_weights(rng),
        }
    }
}

pub(crate) type Seen = BTreeMap<&'static str, u64>;

/// The result of one seed: how many steps it took and what it saw, or what broke.
pub(crate) type Ran = Result<(u64, Seen), Failure>;

pub(crate) struct Failure {
    pub(crate) violation: Violation,
    pub(crate) trace: Vec<String>,
}
