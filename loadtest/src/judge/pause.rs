//! How long events took from publishing to receiving, and what explains it.
//!
//! One rule after the other, the first that fits:
//! 1. The client was between two connections at the time: the fault of the gateway that it lost, if there was one.
//! 2. The event's partition stood still, for every client that was connected, from about the time at which a router was
//!    killed, restarted or came back: that fault. No more partitions than the router said that it served.
//! 3. The publish was not answered by the router that was killed and had to be sent again: that fault.
//! 4. It was published in the first seconds of the load: the warm-up. Brokers compile their code, and every process meets its
//!    first events.
//! 5. Elsewhere. There nothing may be slow.

mod still;

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Display};

use serde::Serialize;

use super::Limits;
use super::index::{Client, Index, Pos, Published};
use crate::history::{Action, FaultLine};

/// A client may notice a little later than a process is back that its connection was lost.
const NOTICED_US: u64 = 1_000_000;
/// How long an attempt may have been under way when its router was killed.
const ATTEMPT_US: u64 = 5_000_000;

/// Times from publishing to receiving that have one cause.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pause {
    /// The cause.
    pub cause: String,
    /// How many deliveries.
    pub count: usize,
    /// Half of them took at most this many milliseconds.
    pub p50_ms: f64,
    /// 99 in 100 took at most this many.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// What the longest may be; none where it is only shown.
    pub limit_ms: Option<u64>,
    /// Which delivery was the longest.
    pub worst: String,
}

impl Pause {
    pub(super) fn is_too_long(&self) -> bool {
        self.limit_ms.is_some_and(|limit| self.max_ms > limit as f64)
    }
}

impl Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit_ms.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        let Self { cause, count, p50_ms, p99_ms, max_ms, .. } = self;
        write!(f, "{cause:40}{count:>10} {p50_ms:>9.1} {p99_ms:>9.1} {max_ms:>9.1} {limit:>9}")
    }
}

/// What [`check`] found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Pauses {
    pub(super) causes: Vec<Pause>,
    pub(super) transports: Vec<Pause>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Cause {
    /// The n-th fault, through the gateway that clients lost.
    Gateway(usize),
    /// The n-th fault, through a router's partitions and publishes.
    Router(usize),
    WarmUp,
    Elsewhere,
}

/// One event's way to one client.
struct Way<'a> {
    client: u32,
    transport: &'static str,
    key: &'a str,
    partition: u32,
    from_us: u64,
    to_us: u64,
    cause: Option<Cause>,
}

pub(super) fn check(index: &Index<'_>, limits: &Limits) -> Pauses {
    let mut ways: Vec<Way<'_>> = index.clients.values().flat_map(|client| ways_of(index, client)).collect();
    let stood_still = still::stood_still(index, &ways, limits);
    let first_us = index.events.values().map(|event| event.published_us).min().unwrap_or(0);
    let warm_until_us = first_us + limits.warm_up_ms * 1_000;
    let mut by_cause: BTreeMap<Cause, Vec<&Way<'_>>> = BTreeMap::new();
    let mut by_transport: BTreeMap<&str, Vec<&Way<'_>>> = BTreeMap::new();
    for way in &mut ways {
        let still = stood_still.get(&way.partition).into_iter().flatten();
        let mut through_partition = still
            .filter(|still| way.from_us <= still.to_us && way.to_us >= still.from_us)
            .map(|still| Cause::Router(still.fault));
        let through_publish = || retried(index, index.events.get(way.key)?);
        let otherwise = if way.from_us < warm_until_us { Cause::WarmUp } else { Cause::Elsewhere };
        way.cause = way.cause.or(through_partition.next_back()).or_else(through_publish).or(Some(otherwise));
    }
    for way in &ways {
        let cause = way.cause.unwrap_or(Cause::Elsewhere);
        by_cause.entry(cause).or_default().push(way);
        if cause == Cause::Elsewhere {
            by_transport.entry(way.transport).or_default().push(way);
        }
    }
    let moved = |fault| stood_still.values().flatten().filter(|still| still.fault == fault).count();
    Pauses {
        causes: by_cause
            .into_iter()
            .map(|(cause, ways)| {
                let (name, limit_ms) = describe(index, cause, moved, limits);
                summary(name, Some(limit_ms), ways)
            })
            .collect(),
        transports: by_transport
            .into_iter()
            .map(|(transport, ways)| summary(format!("  {transport}"), None, ways))
            .collect(),
    }
}

/// First receipts of events that were published after the client began to follow.
fn ways_of<'a>(index: &Index<'a>, client: &Client<'a>) -> Vec<Way<'a>> {
    let mut seen: HashSet<Pos> = HashSet::new();
    let mut ways = Vec::new();
    for (delivery, pos) in &client.received {
        let Some(pos) = pos.filter(|pos| seen.insert(*pos)) else { continue };
        let Some(event) = index.events.get(delivery.key.as_str()) else { continue };
        let since_us = client.established.get(delivery.channel.as_str()).copied().unwrap_or(u64::MAX);
        if event.published_us <= since_us {
            continue;
        }
        let (from_us, to_us) = (event.published_us, delivery.t_us);
        let outage = client.outages.iter().find(|outage| outage.from_us <= to_us && outage.to_us >= from_us);
        let cause = outage.map(|outage| gateway_fault(index, outage.gateway, outage.from_us));
        let transport = client.plan.transport.as_str();
        ways.push(Way {
            client: client.plan.client,
            transport,
            key: delivery.key.as_str(),
            partition: pos.partition,
            from_us,
            to_us,
            cause,
        });
    }
    ways
}

/// What was done to a process, and until when it was away.
fn absences<'a>(index: &Index<'a>) -> impl Iterator<Item = (usize, &'a str, Action, u64, u64, Option<u64>)> {
    let faults = index.faults;
    faults.iter().enumerate().filter_map(move |(at, line)| {
        let FaultLine::Fault { t_us, action, node, serving, .. } = line else { return None };
        let back = faults.iter().skip(at + 1).find_map(|later| match later {
            FaultLine::Fault { done_us, action: Action::Start, node: other, .. } if other == node => {
                Some(*done_us)
            }
            _ => None,
        });
        Some((at, node.as_str(), *action, *t_us, back.unwrap_or(u64::MAX), *serving))
    })
}

fn gateway_fault(index: &Index<'_>, gateway: &str, lost_us: u64) -> Cause {
    let mut faults = absences(index).filter(|(_, _, action, ..)| *action != Action::Start);
    let fault = faults.find(|(_, node, _, from_us, back_us, _)| {
        *node == gateway && *from_us <= lost_us && lost_us <= back_us.saturating_add(NOTICED_US)
    });
    fault.map_or(Cause::Elsewhere, |(at, ..)| Cause::Gateway(at))
}

/// An attempt that was not the last went to a router that was away.
fn retried(index: &Index<'_>, event: &Published<'_>) -> Option<Cause> {
    let (_, unanswered) = event.attempts.split_last()?;
    let mut faults = absences(index).filter(|(_, _, action, ..)| *action != Action::Start);
    let fault = faults.find(|(_, node, _, from_us, back_us, _)| {
        unanswered.iter().any(|(sent_us, router)| {
            router == node
                && sent_us + ATTEMPT_US >= *from_us
                && *sent_us <= back_us.saturating_add(NOTICED_US)
        })
    });
    fault.map(|(at, ..)| Cause::Router(at))
}

fn describe(
    index: &Index<'_>,
    cause: Cause,
    moved: impl Fn(usize) -> usize,
    limits: &Limits,
) -> (String, u64) {
    let fault = |at: usize| match index.faults.get(at) {
        Some(FaultLine::Fault { action, node, serving, .. }) => (*action, node.as_str(), *serving),
        _ => (Action::Kill, "?", None),
    };
    match cause {
        Cause::Gateway(at) => {
            let (action, node, _) = fault(at);
            (format!("{} {node}: its clients", action.as_str()), limits.gateway_ms_limit)
        }
        Cause::Router(at) => {
            let (action, node, serving) = fault(at);
            let of = serving.map(|count| format!(" of {count}")).unwrap_or_default();
            let name = format!("{} {node}: {}{of} partitions", action.as_str(), moved(at));
            let limit = if action == Action::Kill { limits.router_ms_limit } else { limits.planned_ms_limit };
            (name, limit)
        }
        Cause::WarmUp => (format!("first {} ms of load", limits.warm_up_ms), limits.warm_up_ms_limit),
        Cause::Elsewhere => ("elsewhere".to_owned(), limits.elsewhere_ms_limit),
    }
}

fn summary(cause: String, limit_ms: Option<u64>, mut ways: Vec<&Way<'_>>) -> Pause {
    ways.sort_by_key(|way| way.to_us.saturating_sub(way.from_us));
    let ms = |way: &&Way<'_>| way.to_us.saturating_sub(way.from_us) as f64 / 1_000.0;
    let at = |share: f64| {
        let place = ((ways.len() as f64 * share) as usize).min(ways.len().saturating_sub(1));
        ways.get(place).map(ms).unwrap_or_default()
    };
    let worst = ways.last().map(|way| {
        let Way { client, transport, key, partition, from_us, .. } = way;
        format!(
            "client {client} ({transport}), {key}, partition {partition}, published at {:.3} s",
            *from_us as f64 / 1e6
        )
    });
    Pause {
        cause,
        count: ways.len(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        max_ms: at(1.0),
        limit_ms,
        worst: worst.unwrap_or_default(),
    }
}
