//! The verdict, for people and for machines.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::Serialize;

use super::delivery::{Deliveries, Finding, Kind};
use super::index::Index;
use super::pause::{Pause, Pauses};
use super::{Limits, Pos};

/// Faults that are listed; the counts are of all.
const LISTED_LIMIT: usize = 50;

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Nothing is wrong. Only a verdict of a judge that was proved counts.
    pub good: bool,
    /// What the judge found in doctored copies of this history, once it was proved.
    pub proved: Option<Vec<String>>,
    /// Why it is not good.
    pub problems: Vec<String>,
    /// Events acked.
    pub acked: usize,
    /// Events published and never answered.
    pub unanswered: usize,
    /// Partitions with events.
    pub partitions: usize,
    /// Connections of all clients.
    pub connections: u64,
    /// Events received.
    pub received: u64,
    /// Pairs of a client and an event that it had to receive.
    pub expected: u64,
    /// Losses that were told.
    pub told: u64,
    /// Events missing that were told to be lost.
    pub told_missing: u64,
    /// Repeats after a resume at clients of several channels.
    pub repeats_allowed: u64,
    /// How many faults of each kind there are.
    pub counts: BTreeMap<Kind, usize>,
    /// The faults, the first of them.
    pub findings: Vec<Finding>,
    /// How long it took from publishing to receiving, per cause.
    pub pauses: Vec<Pause>,
    /// The same by transport, where no fault explains it.
    pub transports: Vec<Pause>,
    /// Pushes per event over nodes that wanted it.
    pub amplification: Option<f64>,
}

const KINDS: [Kind; 7] =
    [Kind::Missing, Kind::Twice, Kind::Order, Kind::Repeat, Kind::Position, Kind::Foreign, Kind::AckOrder];

impl Verdict {
    pub(super) fn new(
        index: &Index<'_>,
        found: Deliveries,
        pauses: Pauses,
        amplification: Option<f64>,
    ) -> Self {
        let mut counts: BTreeMap<Kind, usize> = KINDS.into_iter().map(|kind| (kind, 0)).collect();
        for finding in &found.findings {
            *counts.entry(finding.kind).or_default() += 1;
        }
        let unanswered =
            index.events.values().filter(|event| event.acked.is_none() && !event.is_refused).count();
        let partitions: std::collections::BTreeSet<u32> =
            index.positions().map(|pos: Pos| pos.partition).collect();
        Self {
            good: false,
            proved: None,
            problems: Vec::new(),
            acked: index.acked.values().map(Vec::len).sum(),
            unanswered,
            partitions: partitions.len(),
            connections: index.clients.values().map(|client| u64::from(client.connections)).sum(),
            received: found.received,
            expected: found.expected,
            told: found.told,
            told_missing: found.told_missing,
            repeats_allowed: found.repeats_allowed,
            counts,
            findings: found.findings.into_iter().take(LISTED_LIMIT).collect(),
            pauses: pauses.causes,
            transports: pauses.transports,
            amplification,
        }
    }

    /// How many faults there are of a kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    pub(super) fn broken_promises(&self, limits: &Limits) -> Vec<String> {
        let mut problems = Vec::new();
        for (kind, count) in self.counts.iter().filter(|(_, count)| **count > 0) {
            problems.push(format!("{count} × {}", kind.label()));
        }
        if self.unanswered > 0 {
            problems.push(format!("{} publishes were never answered", self.unanswered));
        }
        if self.told > 0 {
            problems.push(format!("{} losses were told, of {} events", self.told, self.told_missing));
        }
        for pause in self.pauses.iter().filter(|pause| pause.is_too_long()) {
            let Pause { cause, max_ms, worst, .. } = pause;
            let limit_ms = pause.limit_ms.unwrap_or_default();
            problems.push(format!("{cause}: {max_ms:.0} ms, over {limit_ms} ms ({worst})"));
        }
        if let Some(ratio) = self.amplification.filter(|ratio| *ratio > limits.amplification_limit) {
            problems.push(format!("{ratio:.3} pushes per wanted event, over {}", limits.amplification_limit));
        }
        problems
    }

    /// Takes what the proof found, and decides.
    pub fn decide(&mut self, proved: Result<Vec<String>, String>) {
        match proved {
            Ok(found) => self.proved = Some(found),
            Err(problem) => self.problems.push(format!("the judge is not proved: {problem}")),
        }
        self.good = self.problems.is_empty() && self.proved.is_some();
    }
}

impl Kind {
    /// What it means, in a few words.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "acked and missing",
            Self::Twice => "twice on one connection",
            Self::Order => "order broken",
            Self::Repeat => "repeated to a one-channel client",
            Self::Position => "under a wrong position",
            Self::Foreign => "not published or not followed",
            Self::AckOrder => "log against the order of acks",
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &dyn Display| writeln!(f, "  {name:38}{value:>12}");
        row("events acked", &self.acked)?;
        row("partitions with events", &self.partitions)?;
        row("connections and poll chains", &self.connections)?;
        row("deliveries that had to be", &self.expected)?;
        row("deliveries received", &self.received)?;
        for (kind, count) in &self.counts {
            row(kind.label(), count)?;
        }
        row("publishes never answered", &self.unanswered)?;
        row("losses told", &self.told)?;
        row("repeats, clients of several channels", &self.repeats_allowed)?;
        match self.amplification {
            Some(ratio) => row("pushes per wanted event", &format!("{ratio:.3}"))?,
            None => row("pushes per wanted event", &"-")?,
        }
        writeln!(
            f,
            "\n  from publishing to receiving, ms {:>17} {:>9} {:>9} {:>9} {:>9}",
            "events", "p50", "p99", "max", "limit"
        )?;
        for pause in self.pauses.iter().chain(&self.transports) {
            writeln!(f, "  {pause}")?;
        }
        for finding in self.findings.iter().take(10) {
            let Finding { kind, client, connection, channel, key, pos } = finding;
            let (client, connection) = (shown(client.as_ref()), shown(connection.as_ref()));
            let (kind, pos) = (kind.label(), shown(pos.as_ref()));
            writeln!(f, "  ! {kind}: client {client}, connection {connection}, {channel}, {key}, pos {pos}")?;
        }
        for proof in self.proved.iter().flatten() {
            writeln!(f, "  proved: {proof}")?;
        }
        for problem in &self.problems {
            writeln!(f, "  ! {problem}")?;
        }
        write!(f, "\n  {}", if self.good { "GOOD" } else { "NOT GOOD" })
    }
}

fn shown<T: Display>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), T::to_string)
}
