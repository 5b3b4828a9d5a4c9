//! The simulated cluster: the logs of a topic's partitions, two routers, a few gateways, clients, and the streams
//! between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_tenure::{Node, NodeOut, Nonce, Owner, StreamId, ToNode, ToRouter, WantFrom};
use tidegate_vocab::{Channel, LogEpoch, Offset, PartitionId, Term, Topic};

use crate::audit::Audit;
use crate::checks::{Check, Session, Violation};
use crate::client::{Client, Follow};
use crate::config::Config;
use crate::log::{Log, Store};
use crate::mutant::{Mutant, Planted};

/// The epochs of the topic as it is made anew: they have no order.
pub(crate) const EPOCHS: [LogEpoch; 3] = [LogEpoch(7), LogEpoch(3), LogEpoch(11)];
pub(crate) const STRANGE_EPOCH: LogEpoch = LogEpoch(6);
pub(crate) const ROUTERS: usize = 2;

/// A router's share of one partition; what is durable is its store.
#[derive(Debug)]
pub(crate) struct Router {
    /// Still believes that the partition is assigned to it.
    pub(crate) believes: bool,
    pub(crate) owner: Option<Owner>,
    pub(crate) store: Store,
    /// Which of the topic's logs it reads: it learns late that there is another.
    pub(crate) log: usize,
    /// The nonce of its last takeover.
    pub(crate) nonce: Option<Nonce>,
    pub(crate) retake_at_ms: Option<u64>,
    /// High watermarks asked for and not yet answered: when, and the log's end then.
    pub(crate) asks: Vec<(u64, u64)>,
    /// Reads of the log asked for and not yet answered.
    pub(crate) reads: Vec<(StreamId, Offset)>,
}

/// A gateway's share of one partition: its node, and how far its one shard has got.
#[derive(Debug)]
pub(crate) struct NodeSide {
    pub(crate) node: Node,
    /// The shard's next[P], and the log in which it counts.
    pub(crate) shard_next: u64,
    pub(crate) shard_epoch: Option<LogEpoch>,
    pub(crate) session: Option<Session>,
    /// The highest term of a Resume in one log.
    pub(crate) highest: Term,
    /// What the session's Resume, Wants and Unwants said is wanted.
    pub(crate) told: BTreeSet<Channel>,
}

/// One partition, everywhere.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) id: PartitionId,
    /// The topic's logs, the current one last.
    pub(crate) logs: Vec<Log>,
    /// Takeovers sent to the log and not yet in it.
    pub(crate) appends: Vec<(usize, Nonce)>,
    pub(crate) assigned: Option<usize>,
    /// Per log and channel, below which some store ever lost rows.
    pub(crate) gone: BTreeMap<(LogEpoch, Channel), u64>,
    pub(crate) routers: Vec<Router>,
    /// By gateway.
    pub(crate) nodes: Vec<NodeSide>,
    pub(crate) planted: Planted,
}

impl Part {
    pub(crate) fn log(&self) -> &Log {
        self.logs.last().expect("invariant: there is a log")
    }

    pub(crate) fn log_mut(&mut self) -> &mut Log {
        self.logs.last_mut().expect("invariant: there is a log")
    }

    pub(crate) fn log_of(&self, epoch: LogEpoch) -> Option<&Log> {
        self.logs.iter().find(|log| log.epoch == epoch)
    }

    /// The log that a router reads.
    pub(crate) fn read_by(&self, r: usize) -> &Log {
        &self.logs[self.routers[r].log]
    }
}

/// What a node pushed to its shard, with the epoch as of then.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) p: usize,
    pub(crate) epoch: Option<LogEpoch>,
    pub(crate) out: NodeOut,
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
    /// By partition.
    pub(crate) audits: BTreeMap<usize, Audit>,
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
            audits: BTreeMap::new(),
        }
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.down.iter().map(ToNode::cost).sum()
    }
}

pub(crate) struct World {
    pub(crate) rng: StdRng,
    pub(crate) config: Config,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) now_ms: u64,
    pub(crate) parts: Vec<Part>,
    /// Which router processes run.
    pub(crate) routers_up: Vec<bool>,
    /// What waits for each gateway's shard, of all partitions in one order.
    pub(crate) inboxes: Vec<VecDeque<Item>>,
    pub(crate) clients: Vec<Client>,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) names: u64,
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
        let mut world = Self {
            rng,
            mutant,
            now_ms: 1_000_000,
            parts: (0..config.partitions).map(|p| new_part(p, &config, mutant)).collect(),
            routers_up: vec![true; ROUTERS],
            inboxes: (0..config.gateways).map(|_| VecDeque::new()).collect(),
            clients: Vec::new(),
            streams: BTreeMap::new(),
            names: 0,
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
        self.mutant == Some(mutant)
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

    pub(crate) fn draw_part(&mut self) -> usize {
        self.rng.random_range(0..self.parts.len())
    }

    pub(crate) fn draw_channel(&mut self, p: usize) -> Channel {
        let here = self.config.channels_of(p);
        here[self.rng.random_range(0..here.len())].clone()
    }

    /// Something a client may ask for that has no cursor of ours.
    pub(crate) fn draw_wish(&mut self, p: usize) -> WantFrom {
        let (epoch, end) = (self.parts[p].log().epoch, self.parts[p].log().end());
        let other = match self.parts[p].logs.len() {
            1 => STRANGE_EPOCH,
            logs => self.parts[p].logs[logs - 2].epoch,
        };
        match self.rng.random_range(0..11) {
            0 => WantFrom::Next { epoch, offset: Offset(0) },
            1 => WantFrom::Next { epoch, offset: Offset(self.rng.random_range(0..=end)) },
            // Perhaps above what the owner has consumed.
            2 => WantFrom::Next { epoch, offset: Offset(end.saturating_sub(self.rng.random_range(0..3))) },
            3 => WantFrom::Next { epoch, offset: Offset(end + self.rng.random_range(0..5)) },
            4 => WantFrom::Next { epoch: other, offset: Offset(self.rng.random_range(0..=end)) },
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
        let follow = |channel: Channel| Follow::new(self.config.part_of(&channel), channel);
        Client { follows: channels.into_iter().map(follow).collect(), cursor: None, conn: None }
    }

    /// Everything that must hold after each step and is not checked where it happens.
    pub(crate) fn check(&mut self) -> Check {
        for client in &mut self.clients {
            let Some(conn) = &client.conn else { continue };
            for (follow, sub) in client.follows.iter_mut().zip(&conn.subs) {
                let part = &self.parts[follow.p];
                let Some((epoch, position)) = sub.position(&part.nodes[conn.gateway]) else { continue };
                let Some(log) = part.log_of(epoch).filter(|_| follow.epoch == Some(epoch)) else { continue };
                crate::checks::cursor_passes_nothing(follow, position, log, self.now_ms)?;
                follow.verified = follow.verified.max(position);
            }
        }
        Ok(())
    }

    pub(crate) fn remember_gone(&mut self, p: usize, r: usize) {
        let part = &mut self.parts[p];
        let epoch = part.logs[part.routers[r].log].epoch;
        for (channel, evicted) in part.routers[r].store.evicted() {
            let gone = part.gone.entry((epoch, channel.clone())).or_default();
            *gone = (*gone).max(*evicted);
        }
    }

    /// Rule 10: `lost` is only told when something below `upto` can really not be had from `from` on.
    pub(crate) fn lost_has_a_cause(&self, p: usize, epoch: LogEpoch, channel: &Channel, from: u64) -> Check {
        let start = self.parts[p].log_of(epoch).map_or(0, |log| log.start);
        let gone = self.parts[p].gone.get(&(epoch, channel.clone())).copied().unwrap_or(0).max(start);
        crate::checks::hold(from < gone, "lost_has_a_cause", || {
            format!("{channel:?}: lost from {from}, but only below {gone} is gone")
        })
    }
}

fn new_part(p: usize, config: &Config, mutant: Option<Mutant>) -> Part {
    let id = PartitionId { topic: Topic::Events, number: p as u32 };
    let router = |_| Router {
        believes: false,
        owner: None,
        store: Store::wiped(0, config),
        log: 0,
        nonce: None,
        retake_at_ms: None,
        asks: Vec::new(),
        reads: Vec::new(),
    };
    let node = |_| NodeSide {
        node: Node::new(id).with_ring_bytes_limit(config.node_ring_bytes),
        shard_next: 0,
        shard_epoch: None,
        session: None,
        highest: Term::NONE,
        told: BTreeSet::new(),
    };
    Part {
        id,
        logs: vec![Log::new(EPOCHS[0])],
        appends: Vec::new(),
        assigned: None,
        gone: BTreeMap::new(),
        routers: (0..ROUTERS).map(router).collect(),
        nodes: (0..config.gateways).map(node).collect(),
        planted: Planted::new(mutant, id),
    }
}

pub(crate) type Seen = BTreeMap<&'static str, u64>;

/// The result of one seed: how many steps it took and what it saw, or what broke.
pub(crate) type Ran = Result<(u64, Seen), Failure>;

pub(crate) struct Failure {
    pub(crate) violation: Violation,
    pub(crate) trace: Vec<String>,
}
