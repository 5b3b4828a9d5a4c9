//! The figures, and where they stand.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::KafkaOptions;
use crate::latency::Latencies;
use crate::median::median;

/// What Tidegate may add to the floor's median.
const P50_GOAL_MS: f64 = 1.5;
/// And to its 99th percentile.
const P99_GOAL_MS: f64 = 8.0;

/// Of one measurement, in milliseconds; or differences of two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Quantiles {
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// One pair of measurements.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Round {
    pub(super) probe: Quantiles,
    pub(super) probe_ack: Quantiles,
    pub(super) tidegate: Quantiles,
    pub(super) tidegate_ack: Quantiles,
}

/// What was to be reached. It judges nothing: on another machine the same program may miss it.
#[derive(Debug, Clone, Serialize)]
struct Goal {
    quantile: &'static str,
    limit_ms: f64,
    is_ms: f64,
    met: bool,
}

/// The result of a run: each round, and medians over them.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    options: KafkaOptions,
    median: Round,
    /// What the cluster adds to the floor: the median of each round's difference.
    added: Quantiles,
    added_ack: Quantiles,
    goals: [Goal; 2],
    rounds: Vec<Round>,
}

impl Quantiles {
    /// Of these latencies.
    pub(super) fn of(latencies: Vec<Duration>) -> Self {
        let latencies = Latencies::of(latencies);
        let ms = |share| latencies.quantile(share).as_secs_f64() * 1_000.0;
        Self { p50_ms: ms(0.5), p99_ms: ms(0.99), max_ms: ms(1.0) }
    }

    fn minus(self, floor: Self) -> Self {
        Self {
            p50_ms: self.p50_ms - floor.p50_ms,
            p99_ms: self.p99_ms - floor.p99_ms,
            max_ms: self.max_ms - floor.max_ms,
        }
    }

    /// The median of each quantile by itself.
    fn median(all: impl Iterator<Item = Self> + Clone) -> Self {
        Self {
            p50_ms: median(all.clone().map(|one| one.p50_ms)),
            p99_ms: median(all.clone().map(|one| one.p99_ms)),
            max_ms: median(all.map(|one| one.max_ms)),
        }
    }
}

impl Report {
    pub(super) fn new(options: KafkaOptions, rounds: Vec<Round>) -> Self {
        let over = |of: fn(&Round) -> Quantiles| Quantiles::median(rounds.iter().map(of));
        let added = over(|round| round.tidegate.minus(round.probe));
        let goal = |quantile, limit_ms, is_ms| Goal { quantile, limit_ms, is_ms, met: is_ms <= limit_ms };
        Self {
            median: Round {
                probe: over(|round| round.probe),
                probe_ack: over(|round| round.probe_ack),
                tidegate: over(|round| round.tidegate),
                tidegate_ack: over(|round| round.tidegate_ack),
            },
            added_ack: over(|round| round.tidegate_ack.minus(round.probe_ack)),
            goals: [goal("p50", P50_GOAL_MS, added.p50_ms), goal("p99", P99_GOAL_MS, added.p99_ms)],
            added,
            options,
            rounds,
        }
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.2} ms  p99 {:.2} ms  max {:.2} ms", self.p50_ms, self.p99_ms, self.max_ms)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KafkaOptions { seconds, rate, receivers, bytes, .. } = self.options;
        let rounds = self.rounds.len();
        writeln!(
            f,
            "{rate}/s of {bytes} bytes to {receivers} receivers, {seconds} s each; ms, medians of {rounds}"
        )?;
        writeln!(f, "{:20}{:>10}{:>10}{:>10}", "", "p50", "p99", "max")?;
        let plain = [
            ("probe", self.median.probe),
            ("tidegate durable", self.median.tidegate),
            ("probe ack", self.median.probe_ack),
            ("tidegate ack", self.median.tidegate_ack),
        ];
        for (name, of) in plain {
            writeln!(f, "{name:20}{:>10.2}{:>10.2}{:>10.2}", of.p50_ms, of.p99_ms, of.max_ms)?;
        }
        for (name, of) in [("durable - probe", self.added), ("ack - probe ack", self.added_ack)] {
            writeln!(f, "{name:20}{:>+10.2}{:>+10.2}{:>+10.2}", of.p50_ms, of.p99_ms, of.max_ms)?;
        }
        for Goal { quantile, limit_ms, is_ms, met } in &self.goals {
            let stands = if *met { "met" } else { "missed" };
            write!(f, "\ngoal: {quantile} <= probe + {limit_ms} ms: {stands} ({is_ms:+.2})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(p50_ms: f64, p99_ms: f64, max_ms: f64) -> Quantiles {
        Quantiles { p50_ms, p99_ms, max_ms }
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_latencies() {
        let latencies = (1..=1_000).rev().map(Duration::from_millis).collect();
        assert_eq!(Quantiles::of(latencies), of(501.0, 991.0, 1_000.0));
        assert_eq!(Quantiles::of(vec![Duration::from_millis(3)]), of(3.0, 3.0, 3.0));
    }

    /// The machine was slow in the second round, for both: differences are taken within a round, then their median.
    #[test]
    fn differences_are_those_within_a_round() {
        let round = |probe: f64, tidegate: f64| Round {
            probe: of(probe, probe * 2.0, probe * 3.0),
            probe_ack: of(1.0, 1.0, 1.0),
            tidegate: of(tidegate, tidegate * 2.0, tidegate * 3.0),
            tidegate_ack: of(0.5, 3.0, 1.0),
        };
        let options = KafkaOptions { seconds: 1, rate: 1, receivers: 1, rounds: 3, bytes: 16 };
        let report = Report::new(options, vec![round(1.0, 3.0), round(50.0, 51.0), round(2.0, 7.0)]);
        assert_eq!(report.added, of(2.0, 4.0, 6.0));
        assert_eq!(report.added_ack, of(-0.5, 2.0, 0.0));
        assert_eq!(report.median.tidegate.p50_ms, 7.0);
        assert_eq!(report.goals.each_ref().map(|goal| goal.met), [false, true]);
        let text = report.to_string();
        assert!(text.contains("p50 <= probe + 1.5 ms: missed (+2.00)"), "{text}");
    }
}
