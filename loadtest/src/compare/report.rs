//! Figures over all pairs, the gate, and the table.

use std::fmt;

use serde::Serialize;

use super::measure::Measurement;
use super::system::System;
use super::{CompareOptions, Pair, Scenario};
use crate::median::median;

/// At a steady rate nothing can be saved: as little as the floor takes, and a twentieth for all that the floor does not do.
const STEADY_LIMIT: f64 = 0.95;
/// When saturated, waiting events leave in one send: the floor, which sends one by one, must be beaten.
const SATURATED_LIMIT: f64 = 1.0;

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked for.
    pub options: CompareOptions,
    /// Of each system, medians over the pairs.
    pub systems: Vec<Summary>,
    /// Of deliveries per CPU-second: the median of the ratios within each pair.
    pub ratios: Vec<Ratio>,
    /// What was to be reached; nothing when our gateway was not measured.
    pub gate: Option<Gate>,
    /// Why nchan is not there.
    pub left_out: Option<String>,
    /// Everything that was measured.
    pub pairs: Vec<Pair>,
}

/// Of one system: medians; sums of what must not be.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Which.
    pub system: System,
    /// Median.
    pub deliveries_per_cpu_second: f64,
    /// Median.
    pub deliveries_per_second: f64,
    /// Median.
    pub bytes_per_delivery: f64,
    /// Median, milliseconds.
    pub p50_ms: f64,
    /// Median, milliseconds.
    pub p99_ms: f64,
    /// In all pairs together.
    pub lost: u64,
    /// In all pairs together.
    pub duplicated: u64,
}

/// One system in terms of another.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// Whose figure is divided.
    pub of: System,
    /// By whose.
    pub to: System,
    /// The median of `each`.
    pub median: f64,
    /// One for each pair.
    pub each: Vec<f64>,
}

/// Whether it is near enough to the floor.
#[derive(Debug, Clone, Serialize)]
pub struct Gate {
    /// At least this many times the floor; more than it when saturated.
    pub limit: f64,
    /// So many times the floor.
    pub ratio: f64,
    /// Deliveries that did not come, or came twice, from our gateway.
    pub wrong: u64,
    /// The limit is reached, and nothing is wrong.
    pub passed: bool,
}

impl Pair {
    fn of(&self, system: System) -> Option<&Measurement> {
        self.measurements.iter().find(|measurement| measurement.system == system)
    }
}

impl Summary {
    fn new(system: System, pairs: &[Pair]) -> Option<Self> {
        let all: Vec<_> = pairs.iter().filter_map(|pair| pair.of(system)).collect();
        let over = |of: fn(&Measurement) -> f64| median(all.iter().map(|measurement| of(measurement)));
        (!all.is_empty()).then(|| Self {
            system,
            deliveries_per_cpu_second: over(|one| one.deliveries_per_cpu_second),
            deliveries_per_second: over(|one| one.deliveries_per_second),
            bytes_per_delivery: over(|one| one.bytes_per_delivery),
            p50_ms: over(|one| one.latency.p50_ms),
            p99_ms: over(|one| one.latency.p99_ms),
            lost: all.iter().map(|one| one.lost).sum(),
            duplicated: all.iter().map(|one| one.duplicated).sum(),
        })
    }
}

impl Ratio {
    fn new(of: System, to: System, pairs: &[Pair]) -> Option<Self> {
        let within = |pair: &Pair| {
            Some(pair.of(of)?.deliveries_per_cpu_second / pair.of(to)?.deliveries_per_cpu_second)
        };
        let each: Vec<_> = pairs.iter().filter_map(within).collect();
        (!each.is_empty()).then(|| Self { of, to, median: median(each.iter().copied()), each })
    }
}

impl Report {
    pub(super) fn new(options: CompareOptions, pairs: Vec<Pair>, left_out: Option<String>) -> Self {
        let all = [System::Floor, System::Tidegate, System::Nchan];
        let systems: Vec<_> = all.into_iter().filter_map(|system| Summary::new(system, &pairs)).collect();
        let ours = Ratio::new(System::Tidegate, System::Floor, &pairs);
        let wrong = systems
            .iter()
            .filter(|summary| summary.system == System::Tidegate)
            .map(|summary| summary.lost + summary.duplicated)
            .sum();
        let is_saturated = options.scenario == Scenario::Saturated;
        let gate = ours.as_ref().map(|Ratio { median: ratio, .. }| {
            let (ratio, limit) = (*ratio, if is_saturated { SATURATED_LIMIT } else { STEADY_LIMIT });
            let reached = if is_saturated { ratio > limit } else { ratio >= limit };
            Gate { limit, ratio, wrong, passed: reached && wrong == 0 }
        });
        let others = [(System::Nchan, System::Floor), (System::Tidegate, System::Nchan)];
        let others = others.into_iter().filter_map(|(of, to)| Ratio::new(of, to, &pairs));
        Self { ratios: ours.into_iter().chain(others).collect(), systems, gate, left_out, options, pairs }
    }

    /// What was asked for, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        let CompareOptions { scenario, sockets, rate, seconds, bytes, in_flight, pairs, .. } = &self.options;
        let shape = match scenario {
            Scenario::Broadcast => format!("broadcast of {bytes} B to {sockets} WebSockets at {rate}/s"),
            Scenario::Channels20 => {
                format!("{bytes} B to {sockets} WebSockets with 20 channels each, {rate}/s in all")
            }
            Scenario::Saturated => {
                format!(
                    "broadcast of {bytes} B to {sockets} WebSockets as fast as it goes, {in_flight} events on their way"
                )
            }
        };
        let floor = self.options.floor_bytes.map_or_else(String::new, |bytes| format!(" (floor: {bytes} B)"));
        format!("{shape}{floor}; {seconds} s each, medians of {pairs}")
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, ratio, wrong, passed } = self;
        let stands = if *passed { "passed" } else { "missed" };
        write!(f, "GATE {stands}: {ratio:.3} x floor, limit {limit}; {wrong} deliveries lost or twice")
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<_> = self.each.iter().map(|ratio| format!("{ratio:.3}")).collect();
        let (of, to) = (self.of.name(), self.to.name());
        write!(f, "{of} = {:.3} x {to}  (pairs: {})", self.median, each.join(" "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title())?;
        let heads = ["per CPU-second", "per second", "bytes each", "p50 ms", "p99 ms", "lost", "twice"];
        write!(f, "{:10}", "deliveries")?;
        heads.iter().try_for_each(|head| write!(f, "{head:>16}"))?;
        for one in &self.systems {
            write!(f, "\n{:10}", one.system.name())?;
            write!(f, "{:>16.0}{:>16.0}", one.deliveries_per_cpu_second, one.deliveries_per_second)?;
            write!(f, "{:>16.0}{:>16.2}{:>16.2}", one.bytes_per_delivery, one.p50_ms, one.p99_ms)?;
            write!(f, "{:>16}{:>16}", one.lost, one.duplicated)?;
        }
        writeln!(f, "\n")?;
        self.ratios.iter().try_for_each(|ratio| writeln!(f, "{ratio}"))?;
        if let Some(reason) = &self.left_out {
            writeln!(f, "not compared: {reason}")?;
        }
        match &self.gate {
            Some(gate) => write!(f, "{gate}"),
            None => write!(f, "no gate: no cluster was compared"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::histogram::Histogram;

    fn measurement(system: System, per_cpu_second: f64) -> Measurement {
        let mut latencies = Histogram::default();
        (1..100).for_each(|us| latencies.add(us * 1_000));
        Measurement {
            system,
            events: 10,
            deliveries: 1_000,
            seconds: 1.0,
            cpu_seconds: 0.5,
            deliveries_per_cpu_second: per_cpu_second,
            deliveries_per_second: 1_000.0,
            bytes_per_delivery: 102.0,
            latency: latencies.quantiles(),
            lost: 0,
            duplicated: 0,
            closed: 0,
            floor_waits: 0,
            slices: vec![0, 500, 500],
            latencies,
        }
    }

    /// Pairs of floor, us and nchan with these figures.
    pub(in crate::compare) fn report(scenario: Scenario, figures: &[[f64; 3]]) -> Report {
        let systems = [System::Floor, System::Tidegate, System::Nchan];
        let pair = |figures: &[f64; 3]| Pair {
            measurements: systems
                .iter()
                .zip(figures)
                .map(|(system, figure)| measurement(*system, *figure))
                .collect(),
        };
        let options = CompareOptions { scenario, ..CompareOptions::default() };
        Report::new(options, figures.iter().map(pair).collect(), None)
    }

    /// The machine was slow in the second pair, for all: a ratio is one within a pair, then comes the median.
    #[test]
    fn ratios_are_those_within_a_pair() {
        let report =
            report(Scenario::Broadcast, &[[100.0, 96.0, 90.0], [10.0, 9.7, 9.0], [50.0, 30.0, 40.0]]);
        let medians: Vec<_> = report.ratios.iter().map(|ratio| format!("{:.3}", ratio.median)).collect();
        assert_eq!(medians, ["0.960", "0.900", "1.067"]);
        let text = report.to_string();
        assert!(text.contains("GATE passed: 0.960 x floor, limit 0.95"), "{text}");
        assert!(text.contains("tidegate = 0.960 x floor  (pairs: 0.960 0.970 0.600)"), "{text}");
    }

    #[test]
    fn the_gate_is_the_floor_itself_when_saturated_and_nothing_may_be_lost() {
        let stands = |report: &Report| report.gate.as_ref().is_some_and(|gate| gate.passed);
        assert!(!stands(&report(Scenario::Broadcast, &[[100.0, 94.0, 90.0]])));
        assert!(!stands(&report(Scenario::Saturated, &[[100.0, 96.0, 90.0]])));
        assert!(stands(&report(Scenario::Saturated, &[[100.0, 150.0, 90.0]])));
        let mut pairs = report(Scenario::Broadcast, &[[100.0, 99.0, 90.0]]).pairs;
        pairs[0].measurements[1].lost = 1;
        let report = Report::new(CompareOptions::default(), pairs, Some("no nchan".to_owned()));
        assert!(!stands(&report), "{report}");
        assert!(report.to_string().contains("not compared: no nchan"), "{report}");
    }
}
