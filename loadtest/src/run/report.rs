//! What a run found.

use std::fmt;

use serde::Serialize;

use super::publish::Published;
use super::servers::Used;
use super::{RunOptions, slot_seconds};
use crate::fleet::Tally;
use crate::histogram::{Histogram, Quantiles};
use crate::scenario::{Kind, Scenario};

/// How long after its beginning a storm is looked at.
const STORM_SECONDS: u64 = 5;

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// What the scenario is called.
    pub name: String,
    /// What it said.
    pub scenario: Scenario,
    /// How the receivers were spread.
    pub spread: String,
    /// Events that were accepted.
    pub events: u64,
    /// Events that were not, or of which nobody knows.
    pub failed: u64,
    /// What the first failure said.
    pub first_failure: Option<String>,
    /// From when an event was due until the publisher was answered.
    pub acks: Quantiles,
    /// By `[[clients]]`.
    pub groups: Vec<GroupReport>,
    /// What the servers used.
    pub servers: Vec<Used>,
    /// Deliveries within the window, of all groups.
    pub deliveries: u64,
    /// By the processor time of the gateways; nothing when their processes are not known.
    pub deliveries_per_cpu_second: Option<f64>,
    /// What the gateways' user memory grew by while everybody connected, for each connection.
    pub bytes_per_connection: Option<f64>,
    /// What the last refused or closed connection heard.
    pub last_problem: Option<String>,
    /// Nothing is missing, twice or out of order that must not be, and everything could be published.
    pub good: bool,
}

/// What connections that are alike got.
#[derive(Debug, Clone, Serialize)]
pub struct GroupReport {
    /// What they are called.
    pub name: String,
    /// How many.
    pub connections: u64,
    /// Deliveries that were owed to them.
    pub expected: u64,
    /// That came, repeats apart.
    pub received: u64,
    /// That never came.
    pub lost: u64,
    /// That came again.
    pub twice: u64,
    /// That came after a later one of their channel.
    pub disordered: u64,
    /// Times that a server said that something is gone.
    pub told: u64,
    /// Times that a server ended a connection.
    pub closed: u64,
    /// From when an event was due until it was read.
    pub latency: Quantiles,
    /// From the drop's end until a returned connection follows again.
    pub returned: Option<Quantiles>,
    /// Latency of those that are not dropped, before the storm and in its first seconds.
    pub beside_storm: Option<(Quantiles, Quantiles)>,
    /// From the server, above TCP, within the window, by deliveries in it.
    pub bytes_per_delivery: f64,
    /// To the server: of polls, their requests.
    pub request_bytes_per_delivery: f64,
    /// The time line.
    pub seconds: Vec<Second>,
}

/// A slot of the time line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Second {
    /// When it begins, in seconds since the first event was due.
    pub at: f64,
    /// Deliveries a second.
    pub deliveries_per_second: f64,
    /// Of what came in it.
    pub p50_ms: f64,
    /// Of what came in it.
    pub p99_ms: f64,
}

impl GroupReport {
    fn new(scenario: &Scenario, nth: usize, expected: u64, tally: &Tally) -> Self {
        let clients = &scenario.clients[nth];
        let seconds_each = slot_seconds(scenario) as f64;
        let second = |(number, slot): (usize, &Histogram)| Second {
            at: number as f64 * seconds_each,
            deliveries_per_second: slot.count() as f64 / seconds_each,
            p50_ms: slot.quantile_us(0.5) as f64 / 1_000.0,
            p99_ms: slot.quantile_us(0.99) as f64 / 1_000.0,
        };
        let drops = scenario.storm.as_ref().is_some_and(|storm| storm.clients == clients.name());
        Self {
            name: clients.name().to_owned(),
            connections: clients.connections,
            expected,
            received: tally.received,
            lost: expected.saturating_sub(tally.received),
            twice: tally.twice,
            disordered: tally.disordered,
            told: tally.told,
            closed: tally.closed,
            latency: tally.latencies.quantiles(),
            returned: drops.then(|| tally.openings.quantiles()),
            beside_storm: scenario.storm.as_ref().filter(|_| !drops).map(|storm| {
                let slot = |second: u64| (second / slot_seconds(scenario)) as usize;
                let (from, at) = (scenario.warm_up_seconds, scenario.warm_up_seconds + storm.at_second);
                let between = |from: u64, to: u64| {
                    let mut all = Histogram::default();
                    let slots = tally.slots.iter().take(slot(to)).skip(slot(from));
                    slots.for_each(|slot| all.merge(slot));
                    all.quantiles()
                };
                (between(from, at), between(at, at + STORM_SECONDS))
            }),
            bytes_per_delivery: tally.window_bytes as f64 / tally.in_window.max(1) as f64,
            request_bytes_per_delivery: tally.window_bytes_sent as f64 / tally.in_window.max(1) as f64,
            seconds: tally.slots.iter().enumerate().map(second).collect(),
        }
    }
}

impl RunReport {
    pub(super) fn new(
        options: &RunOptions,
        published: &Published,
        expected: &[u64],
        tallies: &[Tally],
        servers: Vec<Used>,
        spread: String,
        last_problem: Option<String>,
    ) -> Self {
        let scenario = options.scenario.clone();
        let each = expected.iter().zip(tallies).enumerate();
        let groups: Vec<_> =
            each.map(|(nth, (expected, tally))| GroupReport::new(&scenario, nth, *expected, tally)).collect();
        let gateways = || servers.iter().filter(|used| used.is_gateway);
        let cpu_seconds: f64 = gateways().map(|used| used.cpu_seconds).sum();
        let grown: i64 = gateways()
            .map(|used| used.memory_open_bytes.cast_signed() - used.memory_before_bytes.cast_signed())
            .sum();
        let deliveries = tallies.iter().map(|tally| tally.in_window).sum::<u64>();
        let promised = scenario.publish.kind == Kind::Durable;
        let is_good = |group: &GroupReport| {
            // After a resume, what came last may come again.
            let is_once = group.twice == 0 || group.returned.is_some();
            is_once && group.disordered == 0 && (!promised || (group.lost == 0 && group.told == 0))
        };
        Self {
            name: options.name.clone(),
            spread,
            events: published.events(),
            failed: published.failed,
            first_failure: published.first_failure.clone(),
            acks: published.acks.quantiles(),
            good: published.failed == 0 && groups.iter().all(is_good),
            deliveries,
            deliveries_per_cpu_second: (cpu_seconds > 0.0).then(|| deliveries as f64 / cpu_seconds),
            bytes_per_connection: gateways().next().map(|_| grown as f64 / scenario.connections() as f64),
            groups,
            servers,
            last_problem,
            scenario,
        }
    }

    /// What was asked for, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        let Scenario { publish, seconds, .. } = &self.scenario;
        let kind = match publish.kind {
            Kind::Durable => "durable",
            Kind::Ephemeral => "ephemeral",
            Kind::Direct => "direct",
        };
        format!(
            "{}: {} connections, {}/s {kind} events of {} B, {seconds} s",
            self.name,
            self.scenario.connections(),
            publish.rate,
            publish.bytes
        )
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n", self.title(), self.spread)?;
        let heads = [
            "connections",
            "expected",
            "received",
            "lost",
            "twice",
            "disorder",
            "closed",
            "p50 ms",
            "p99 ms",
            "max ms",
            "bytes each",
        ];
        write!(f, "{:14}", "clients")?;
        heads.iter().try_for_each(|head| write!(f, "{head:>12}"))?;
        writeln!(f)?;
        for group in &self.groups {
            write!(f, "{:14}", group.name)?;
            let GroupReport {
                connections, expected, received, lost, twice, disordered, closed, latency, ..
            } = group;
            for count in [connections, expected, received, lost, twice, disordered, closed] {
                write!(f, "{count:>12}")?;
            }
            for ms in [latency.p50_ms, latency.p99_ms, latency.max_ms] {
                write!(f, "{ms:>12.2}")?;
            }
            writeln!(f, "{:>12.0}", group.bytes_per_delivery)?;
        }
        for group in &self.groups {
            if let Some(returned) = &group.returned {
                writeln!(
                    f,
                    "\n{}: a dropped connection follows again {:.0} ms after it began to connect (p50), {:.0} ms (p99), {:.0} ms at most",
                    group.name, returned.p50_ms, returned.p99_ms, returned.max_ms
                )?;
            }
            if let Some((before, during)) = &group.beside_storm {
                writeln!(
                    f,
                    "\n{}: p99 {:.2} ms before the storm, {:.2} ms in its first {STORM_SECONDS} s",
                    group.name, before.p99_ms, during.p99_ms
                )?;
            }
            if group.told > 0 {
                writeln!(f, "{}: the server said {} times that something is gone", group.name, group.told)?;
            }
        }
        let Self { events, failed, acks, .. } = self;
        writeln!(
            f,
            "\npublished {events}, failed {failed}; answered within {:.2} ms (p50), {:.2} ms (p99) of when it was due",
            acks.p50_ms, acks.p99_ms
        )?;
        if let Some(failure) = &self.first_failure {
            writeln!(f, "the first failure: {failure}")?;
        }
        if let Some(problem) =
            self.last_problem.as_ref().filter(|_| self.groups.iter().any(|group| group.closed > 0))
        {
            writeln!(f, "the last closed connection heard: {problem}")?;
        }
        if self.servers.is_empty() {
            writeln!(
                f,
                "\nthe servers' processes are not known: with --pid, or --cluster, they are read too"
            )?;
        } else {
            writeln!(f, "\n{:14}{:>12}{:>14}{:>14}", "server", "CPU s", "MiB before", "MiB open")?;
        }
        for Used { name, cpu_seconds, memory_before_bytes, memory_open_bytes, .. } in &self.servers {
            let mib = |bytes: &u64| *bytes as f64 / f64::from(1 << 20);
            writeln!(
                f,
                "{name:14}{cpu_seconds:>12.2}{:>14.1}{:>14.1}",
                mib(memory_before_bytes),
                mib(memory_open_bytes)
            )?;
        }
        writeln!(f)?;
        if let Some(deliveries) = self.deliveries_per_cpu_second {
            writeln!(f, "{deliveries:.0} deliveries per CPU-second of the gateways")?;
        }
        if let Some(bytes) = self.bytes_per_connection {
            writeln!(f, "{bytes:.0} bytes of user memory per connection of the gateways")?;
        }
        let verdict = if self.good { "good" } else { "NOT GOOD: see lost, twice, disorder and failed" };
        write!(f, "{verdict}")
    }
}
