//! The figures, and where they stand.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::KafkaOptions;
use super::tidegate::{Class, Measured};
use crate::latency::Latencies;
use crate::median::median;

/// What Tidegate may add to the floor's median.
const P50_GOAL_MS: f64 = 1.5;
/// And to its 99th percentile.
const P99_GOAL_MS: f64 = 8.0;
/// What a direct message may take, whatever the probe does.
const DIRECT_P50_GOAL_MS: f64 = 1.5;
/// And at its 99th percentile.
const DIRECT_P99_GOAL_MS: f64 = 4.0;

/// Of one measurement, in milliseconds; or differences of two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
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
    /// One of each class.
    pub(super) classes: Vec<Measured>,
}

/// What was to be reached: beside the probe it is a gate, by itself it judges nothing, since on another machine the same
/// program may miss it.
#[derive(Debug, Clone, Serialize)]
struct Goal {
    class: &'static str,
    quantile: &'static str,
    beside_probe: bool,
    limit_ms: f64,
    is_ms: f64,
    met: bool,
}

/// Of a goal beside the probe: what a quantile of durable events is above the probe's.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    /// `p50` or `p99`.
    pub quantile: &'static str,
    /// At most this.
    pub limit_ms: f64,
    /// It is this.
    pub is_ms: f64,
    /// The limit is kept.
    pub met: bool,
}

/// The result of a run: each round, and medians over them.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    options: KafkaOptions,
    median: Round,
    /// What the cluster adds to the floor: the median of each round's difference.
    added: Quantiles,
    added_ack: Quantiles,
    goals: Vec<Goal>,
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

impl Round {
    fn of(&self, class: Class) -> Option<&Measured> {
        self.classes.iter().find(|measured| measured.class == class)
    }

    /// What the cluster added to the probe in this round.
    fn added(&self, to: fn(&Self) -> Quantiles, of: fn(&Measured) -> Quantiles) -> Option<Quantiles> {
        self.of(Class::Durable).map(|durable| of(durable).minus(to(self)))
    }
}

impl Measured {
    /// Medians over the rounds; of what was lost, all.
    fn median(class: Class, rounds: &[Round]) -> Self {
        let all = rounds.iter().filter_map(|round| round.of(class));
        Self {
            class,
            arrived: Quantiles::median(all.clone().map(|one| one.arrived)),
            acked: Quantiles::median(all.clone().map(|one| one.acked)),
            lost: all.map(|one| one.lost).sum(),
        }
    }
}

impl Report {
    pub(super) fn new(options: KafkaOptions, rounds: Vec<Round>) -> Self {
        let over = |of: fn(&Round) -> Quantiles| Quantiles::median(rounds.iter().map(of));
        let added = |to, of| Quantiles::median(rounds.iter().filter_map(move |round| round.added(to, of)));
        let (added, added_ack) =
            (added(|round| round.probe, |one| one.arrived), added(|round| round.probe_ack, |one| one.acked));
        let median = Round {
            probe: over(|round| round.probe),
            probe_ack: over(|round| round.probe_ack),
            classes: Class::ALL.map(|class| Measured::median(class, &rounds)).to_vec(),
        };
        let direct = median.of(Class::Direct).map(|one| one.arrived).unwrap_or_default();
        let goal = |class: Class, quantile, limit_ms, is_ms| Goal {
            class: class.name(),
            quantile,
            beside_probe: class == Class::Durable,
            limit_ms,
            is_ms,
            met: is_ms <= limit_ms,
        };
        let goals = vec![
            goal(Class::Durable, "p50", P50_GOAL_MS, added.p50_ms),
            goal(Class::Durable, "p99", P99_GOAL_MS, added.p99_ms),
            goal(Class::Direct, "p50", DIRECT_P50_GOAL_MS, direct.p50_ms),
            goal(Class::Direct, "p99", DIRECT_P99_GOAL_MS, direct.p99_ms),
        ];
        Self { median, added, added_ack, goals, options, rounds }
    }

    /// What Tidegate adds to the probe, and may add.
    pub fn gates(&self) -> impl Iterator<Item = Gate> {
        let gates = self.goals.iter().filter(|goal| goal.beside_probe);
        gates.map(|Goal { quantile, limit_ms, is_ms, met, .. }| Gate {
            quantile,
            limit_ms: *limit_ms,
            is_ms: *is_ms,
            met: *met,
        })
    }

    /// Whether what Tidegate adds to the probe is within its limits.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.gates().all(|gate| gate.met)
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
        writeln!(f, "{:22}{:>10}{:>10}{:>10}", "", "p50", "p99", "max")?;
        let plain = |f: &mut fmt::Formatter<'_>, name: &str, of: Quantiles| {
            writeln!(f, "{name:22}{:>10.2}{:>10.2}{:>10.2}", of.p50_ms, of.p99_ms, of.max_ms)
        };
        plain(f, "probe", self.median.probe)?;
        for one in &self.median.classes {
            plain(f, &format!("tidegate {}", one.class.name()), one.arrived)?;
        }
        plain(f, "probe ack", self.median.probe_ack)?;
        for one in &self.median.classes {
            plain(f, &format!("tidegate {} ack", one.class.name()), one.acked)?;
        }
        for (name, of) in [("durable - probe", self.added), ("ack - probe ack", self.added_ack)] {
            writeln!(f, "{name:22}{:>+10.2}{:>+10.2}{:>+10.2}", of.p50_ms, of.p99_ms, of.max_ms)?;
        }
        for one in self.median.classes.iter().filter(|one| one.lost > 0) {
            writeln!(f, "{}: {} deliveries did not come (at most once)", one.class.name(), one.lost)?;
        }
        for Goal { class, quantile, beside_probe, limit_ms, is_ms, met } in &self.goals {
            match (beside_probe, met) {
                (true, true) => write!(f, "\nGATE passed: ")?,
                (true, false) => write!(f, "\nGATE missed: ")?,
                (false, true) => write!(f, "\ngoal met: ")?,
                (false, false) => write!(f, "\ngoal missed: ")?,
            }
            let probe = if *beside_probe { "probe + " } else { "" };
            write!(f, "{class} {quantile} <= {probe}{limit_ms} ms ({is_ms:.2})")?;
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
        let report = report(&[(1.0, 3.0), (50.0, 51.0), (2.0, 7.0)]);
        assert_eq!(report.added, of(2.0, 4.0, 6.0));
        assert_eq!(report.added_ack, of(-0.5, 2.0, 0.0));
        assert_eq!(report.median.of(Class::Durable).map(|one| one.arrived.p50_ms), Some(7.0));
        assert_eq!(report.goals.iter().map(|goal| goal.met).collect::<Vec<_>>(), [false, true, false, false]);
        let text = report.to_string();
        assert!(text.contains("GATE missed: durable p50 <= probe + 1.5 ms (2.00)"), "{text}");
        assert!(text.contains("goal missed: direct p50 <= 1.5 ms (7.00)"), "{text}");
    }

    #[test]
    fn only_what_stands_beside_the_probe_is_a_gate() {
        assert!(report(&[(5.0, 6.0)]).passed(), "though no direct message is within its goal");
        assert!(!report(&[(5.0, 6.6)]).passed());
    }

    /// Rounds with these medians of the probe and of every class.
    fn report(rounds: &[(f64, f64)]) -> Report {
        let times = |ms: f64| of(ms, ms * 2.0, ms * 3.0);
        let round = |(probe, tidegate): &(f64, f64)| Round {
            probe: times(*probe),
            probe_ack: of(1.0, 1.0, 1.0),
            classes: Class::ALL
                .map(|class| Measured { class, arrived: times(*tidegate), acked: of(0.5, 3.0, 1.0), lost: 0 })
                .to_vec(),
        };
        let options = KafkaOptions { seconds: 1, rate: 1, receivers: 1, rounds: rounds.len(), bytes: 16 };
        Report::new(options, rounds.iter().map(round).collect())
    }
}
