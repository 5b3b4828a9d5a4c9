//! A history, by event and by client.

use std::collections::{BTreeMap, HashMap};

use serde::{Serialize, Serializer};

use crate::history::{ClientLine, ClientPlan, Delivery, FaultLine, History, PublishLine, Run};

/// A position, comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pos {
    /// The log's epoch.
    pub epoch: u64,
    /// The partition.
    pub partition: u32,
    /// The offset in it.
    pub offset: u64,
}

impl Pos {
    /// Reads `<16 hexadecimal digits>.<partition>.<offset>`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let epoch = u64::from_str_radix(parts.next()?, 16).ok()?;
        let (partition, offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Self { epoch, partition, offset })
    }
}

impl std::fmt::Display for Pos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}.{}.{}", self.epoch, self.partition, self.offset)
    }
}

impl Serialize for Pos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An event that was published.
#[derive(Debug, Clone)]
pub(super) struct Published<'a> {
    pub(super) channel: &'a str,
    /// When it was first sent.
    pub(super) published_us: u64,
    /// When and to which router each attempt went.
    pub(super) attempts: Vec<(u64, &'a str)>,
    pub(super) acked: Option<(u64, Pos)>,
    pub(super) is_refused: bool,
}

/// A client between two connections: nothing could reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outage<'a> {
    pub(super) from_us: u64,
    pub(super) to_us: u64,
    /// Whose connection was lost.
    pub(super) gateway: &'a str,
}

/// One client's side of the history.
#[derive(Debug, Clone)]
pub(super) struct Client<'a> {
    pub(super) plan: &'a ClientPlan,
    /// Since when each channel is followed.
    pub(super) established: HashMap<&'a str, u64>,
    /// What came, in order, with its position.
    pub(super) received: Vec<(&'a Delivery, Option<Pos>)>,
    /// When `lost` or `gap` was told, by channel.
    pub(super) told: HashMap<&'a str, Vec<u64>>,
    pub(super) outages: Vec<Outage<'a>>,
    pub(super) connections: u32,
    gateway: &'a str,
    broken_us: Option<(u64, &'a str)>,
}

impl<'a> Client<'a> {
    fn new(plan: &'a ClientPlan) -> Self {
        Self {
            plan,
            established: HashMap::new(),
            received: Vec::new(),
            told: HashMap::new(),
            outages: Vec::new(),
            connections: 0,
            gateway: "",
            broken_us: None,
        }
    }

    pub(super) fn is_established(&self) -> bool {
        self.plan.channels.iter().all(|channel| self.established.contains_key(channel.as_str()))
    }

    /// It began to follow some channel after this time.
    pub(super) fn is_later_than(&self, time_us: u64) -> bool {
        self.established.values().any(|since_us| *since_us > time_us)
    }

    pub(super) fn name(&self) -> String {
        format!("{} ({})", self.plan.client, self.plan.transport.as_str())
    }

    fn take(&mut self, line: &'a ClientLine) {
        match line {
            ClientLine::Connect { gateway, .. } => {
                self.gateway = gateway;
                self.connections += 1;
            }
            ClientLine::State { t_us, recovered, fresh, lost, .. } => {
                for channel in recovered.iter().chain(fresh).chain(lost) {
                    self.established.entry(channel).or_insert(*t_us);
                }
                for channel in lost {
                    self.told.entry(channel).or_default().push(*t_us);
                }
                if let Some((from_us, gateway)) = self.broken_us.take() {
                    self.outages.push(Outage { from_us, to_us: *t_us, gateway });
                }
            }
            ClientLine::Event(delivery) => self.received.push((delivery, Pos::parse(&delivery.pos))),
            ClientLine::Gap { t_us, channel, .. } => self.told.entry(channel).or_default().push(*t_us),
            // Of several failed tries in a row, the first connection that was lost is the one to blame.
            ClientLine::Cut { t_us, .. } => {
                self.broken_us.get_or_insert((*t_us, self.gateway));
            }
            ClientLine::Close { .. } | ClientLine::End { .. } => {}
        }
    }
}

/// A history, by event and by client.
#[derive(Debug)]
pub(super) struct Index<'a> {
    pub(super) run: &'a Run,
    pub(super) events: HashMap<&'a str, Published<'a>>,
    /// Acked events of each channel.
    pub(super) acked: HashMap<&'a str, Vec<(&'a str, Pos)>>,
    pub(super) clients: BTreeMap<u32, Client<'a>>,
    pub(super) faults: &'a [FaultLine],
    /// What does not fit together.
    pub(super) problems: Vec<String>,
}

impl<'a> Index<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let mut index = Self {
            run: &history.run,
            events: HashMap::new(),
            acked: HashMap::new(),
            clients: history.run.clients.iter().map(|plan| (plan.client, Client::new(plan))).collect(),
            faults: &history.faults,
            problems: Vec::new(),
        };
        for line in &history.publishes {
            index.take_publish(line);
        }
        for (key, event) in &index.events {
            if let Some((_, pos)) = event.acked {
                index.acked.entry(event.channel).or_default().push((key, pos));
            }
        }
        for events in index.acked.values_mut() {
            events.sort_unstable_by_key(|(_, pos)| *pos);
        }
        for line in &history.clients {
            match client_of(line).map(|number| index.clients.get_mut(&number)) {
                Some(Some(client)) => client.take(line),
                Some(None) => index.problems.push(format!("a client that run.json does not name: {line:?}")),
                None => {}
            }
        }
        index
    }

    fn take_publish(&mut self, line: &'a PublishLine) {
        match line {
            PublishLine::Publish { t_us, key, channel, router, .. } => {
                let event = self.events.entry(key).or_insert_with(|| Published {
                    channel,
                    published_us: *t_us,
                    attempts: Vec::new(),
                    acked: None,
                    is_refused: false,
                });
                event.attempts.push((*t_us, router));
            }
            PublishLine::Ack { t_us, key, pos, .. } => {
                match (self.events.get_mut(key.as_str()), Pos::parse(pos)) {
                    (Some(event), Some(pos)) => event.acked = Some((*t_us, pos)),
                    _ => self.problems.push(format!("an ack of nothing, or without a position: {line:?}")),
                }
            }
            PublishLine::Refused { key, status, detail, .. } => {
                self.problems.push(format!("publish {key} was refused for good: {status} {detail}"));
                if let Some(event) = self.events.get_mut(key.as_str()) {
                    event.is_refused = true;
                }
            }
            PublishLine::End { .. } => {}
        }
    }

    /// Positions of all acked events.
    pub(super) fn positions(&self) -> impl Iterator<Item = Pos> {
        self.acked.values().flatten().map(|(_, pos)| *pos)
    }
}

fn client_of(line: &ClientLine) -> Option<u32> {
    match line {
        ClientLine::Connect { client, .. }
        | ClientLine::State { client, .. }
        | ClientLine::Gap { client, .. }
        | ClientLine::Close { client, .. }
        | ClientLine::Cut { client, .. } => Some(*client),
        ClientLine::Event(delivery) => Some(delivery.client),
        ClientLine::End { .. } => None,
    }
}
