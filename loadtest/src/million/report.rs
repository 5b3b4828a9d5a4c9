//! The figures, and the table.

use std::fmt;

use serde::Serialize;

use super::MillionOptions;
use super::machine::{Of, Sample};
use crate::fleet::Tally;
use crate::histogram::Quantiles;

/// What became of what was published.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    /// Deliveries that had to come.
    pub owed: u64,
    /// That came, each once.
    pub received: u64,
    /// That did not.
    pub lost: u64,
    /// That came again, or to somebody who was not meant.
    pub too_many: u64,
    /// From when an event was due until it was read.
    pub latency: Quantiles,
    /// From the first publish until the last delivery was counted.
    pub seconds: f64,
}

impl Told {
    pub(super) fn new(owed: u64, tally: &Tally, seconds: f64) -> Self {
        Self {
            owed,
            received: tally.received,
            lost: owed.saturating_sub(tally.received),
            too_many: tally.twice + tally.received.saturating_sub(owed),
            latency: tally.latencies.quantiles(),
            seconds,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.lost + self.too_many == 0
    }
}

/// While nothing happened but pings.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// That were counted.
    pub seconds: u64,
    /// Processor time, in seconds per second.
    pub cores: Of<f64>,
    /// Of the gateways, for a million connections.
    pub cores_per_million: f64,
}

/// How things stood at one moment of opening.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// Since opening began.
    pub seconds: f64,
    /// Connections.
    pub open: u64,
    /// What they took.
    pub memory: Sample,
}

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked for.
    pub options: MillionOptions,
    /// Processes.
    pub gateways: usize,
    /// Processes.
    pub routers: usize,
    /// Processes that held the clients' end.
    pub workers: usize,
    /// Until the last connection was open.
    pub open_seconds: f64,
    /// Until every channel was live, after that.
    pub live_seconds: f64,
    /// Times that a connection was refused, or did not come about at once.
    pub refused: u64,
    /// Times that a gateway ended a connection.
    pub closed: u64,
    /// Before the first connection.
    pub empty: Sample,
    /// With all of them.
    pub open: Sample,
    /// After all were told.
    pub told: Sample,
    /// Processor time while nothing happens.
    pub idle: Option<Idle>,
    /// One event to all.
    pub broadcast: Told,
    /// Events to one user each.
    pub unicasts: Told,
    /// The course of opening.
    pub points: Vec<Point>,
    /// Nothing was lost or came twice, and no connection was closed.
    pub passed: bool,
}

/// A row of the table of memory.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) empty: u64,
    pub(super) open: u64,
    /// Of one connection, in bytes.
    pub(super) each: f64,
}

impl Report {
    /// What each part takes, before and after.
    pub(super) fn rows(&self) -> Vec<Row> {
        let row = |name, of: fn(&Sample) -> u64| {
            let (empty, open) = (of(&self.empty), of(&self.open));
            let each = (open as f64 - empty as f64) / self.options.connections as f64;
            Row { name, empty, open, each }
        };
        vec![
            row("gateways", |sample| sample.gateways),
            row("routers", |sample| sample.routers),
            row("registry", |sample| sample.registry),
            row("Kafka", |sample| sample.kafka),
            row("clients (loadtest)", |sample| sample.clients),
            row("kernel: slab, both ends", |sample| sample.machine.slab_bytes),
            row("kernel: bytes in TCP sockets", |sample| sample.machine.tcp_bytes),
        ]
    }

    /// What the whole machine has less than before, of one connection, in bytes.
    pub(super) fn machine_each(&self) -> f64 {
        let (before, after) = (self.empty.machine.available_bytes, self.open.machine.available_bytes);
        (before as f64 - after as f64) / self.options.connections as f64
    }

    /// What was done, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        format!(
            "{} idle WebSockets, each with a user and a channel of its own, on {} gateways and {} routers",
            self.options.connections, self.gateways, self.routers
        )
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owed, received, lost, too_many, latency, seconds } = self;
        write!(
            f,
            "{received} of {owed} came, lost {lost}, too many {too_many}; p50 {:.0} ms, p99 {:.0} ms, last {:.0} ms; {seconds:.1} s",
            latency.p50_ms, latency.p99_ms, latency.max_ms
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title())?;
        writeln!(f, "{:30}{:>12}{:>12}{:>14}", "memory", "before, MiB", "with, MiB", "bytes each")?;
        for Row { name, empty, open, each } in self.rows() {
            writeln!(f, "{name:30}{:>12}{:>12}{each:>14.0}", empty >> 20, open >> 20)?;
        }
        let (before, with) = (&self.empty.machine, &self.open.machine);
        writeln!(
            f,
            "{:30}{:>12}{:>12}{:>14.0}\n",
            "the machine has left",
            before.available_bytes >> 20,
            with.available_bytes >> 20,
            self.machine_each()
        )?;
        writeln!(
            f,
            "opened in {:.0} s ({:.0}/s), all channels live {:.1} s later; refused {}, closed {}",
            self.open_seconds,
            self.options.connections as f64 / self.open_seconds,
            self.live_seconds,
            self.refused,
            self.closed
        )?;
        if let Some(Idle { seconds, cores, cores_per_million }) = &self.idle {
            writeln!(
                f,
                "idle for {seconds} s: gateways {:.3} cores ({cores_per_million:.3} for 1,000,000 connections), routers {:.3}, \
                 registry {:.3}, Kafka {:.3}, clients {:.3}",
                cores.gateways, cores.routers, cores.registry, cores.kafka, cores.clients
            )?;
        }
        writeln!(f, "one event to all: {}", self.broadcast)?;
        writeln!(f, "events to one user each: {}", self.unicasts)?;
        let stands = if self.passed { "passed" } else { "missed" };
        let wrong =
            [&self.broadcast, &self.unicasts].iter().map(|told| told.lost + told.too_many).sum::<u64>();
        write!(f, "GATE {stands}: {wrong} deliveries lost or too many, {} connections closed", self.closed)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::million::machine::Machine;

    /// A run of a thousand connections.
    pub(in crate::million) fn report() -> Report {
        let options = MillionOptions {
            connections: 1_000,
            rate: 100.0,
            unicasts: 10,
            unicast_rate: 10.0,
            idle_seconds: 1,
            least_memory_bytes: 0,
            patience: std::time::Duration::ZERO,
            loadtest: "loadtest".into(),
            planted_drops: 0,
        };
        let sample = |gateways: u64, slab: u64| Sample {
            gateways,
            machine: Machine {
                slab_bytes: slab,
                available_bytes: 100_000_000 - slab - gateways,
                ..Machine::default()
            },
            ..Sample::default()
        };
        let tally = |received| Tally { received, ..Tally::default() };
        let (empty, open) = (sample(1_000_000, 0), sample(3_000_000, 8_000_000));
        Report {
            options,
            gateways: 2,
            routers: 2,
            workers: 1,
            open_seconds: 10.0,
            live_seconds: 0.5,
            refused: 0,
            closed: 0,
            empty,
            open,
            told: open,
            idle: Some(Idle { seconds: 1, cores: Of::default(), cores_per_million: 0.5 }),
            broadcast: Told::new(1_000, &tally(1_000), 1.0),
            unicasts: Told::new(10, &tally(9), 1.0),
            points: vec![
                Point { seconds: 0.0, open: 0, memory: empty },
                Point { seconds: 10.0, open: 1_000, memory: open },
            ],
            passed: false,
        }
    }

    #[test]
    fn what_a_connection_takes_is_told_by_part_and_what_is_lost_is_counted() {
        let report = report();
        let each: Vec<_> = report.rows().iter().map(|row| row.each as i64).collect();
        assert_eq!(each, [2_000, 0, 0, 0, 0, 8_000, 0]);
        assert_eq!(report.machine_each() as i64, 10_000);
        assert!(report.broadcast.is_whole() && !report.unicasts.is_whole());
        let text = report.to_string();
        for wanted in ["9 of 10 came, lost 1", "GATE missed: 1 deliveries", "opened in 10 s (100/s)"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        let tally = Tally { received: 12, twice: 1, ..Tally::default() };
        assert_eq!(Told::new(10, &tally, 1.0).too_many, 3, "and also what came to others");
    }
}
