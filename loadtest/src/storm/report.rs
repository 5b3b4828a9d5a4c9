//! The ratios, the gate, and the table.

use std::fmt;

use serde::Serialize;

use super::StormOptions;
use super::client::Tally;
use crate::histogram::Quantiles;
use crate::median::median;

/// By how much the p99 may be longer in the storm.
const RATIO_LIMIT: f64 = 2.0;

/// Quiet, and the storm behind it.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// Of the live subscribers.
    pub quiet: Quantiles,
    /// Of the live subscribers, while the clients came.
    pub storm: Quantiles,
    /// p99 in the storm, divided by p99 in the quiet.
    pub ratio: f64,
    /// From the first client that comes to the last that has everything.
    pub storm_seconds: f64,
    /// How long each client took.
    pub back: Quantiles,
    /// Times that a client had to try again.
    pub refused: u64,
    /// Clients that did not manage in time.
    pub late: u64,
}

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked for.
    pub options: StormOptions,
    /// Median of the pairs' ratios.
    pub ratio: f64,
    /// At most this.
    pub ratio_limit: f64,
    /// What clients got.
    pub tally: Tally,
    /// The limit is kept, and nothing was lost or twice.
    pub passed: bool,
    /// Each.
    pub pairs: Vec<Pair>,
}

impl Pair {
    pub(super) fn new(
        quiet: Quantiles,
        storm: Quantiles,
        storm_seconds: f64,
        back: Quantiles,
        (refused, late): (u64, u64),
    ) -> Self {
        // Without a figure on both sides there is no ratio, and none that passes.
        let ratio =
            if quiet.p99_ms > 0.0 && storm.p99_ms > 0.0 { storm.p99_ms / quiet.p99_ms } else { f64::MAX };
        Self { quiet, storm, ratio, storm_seconds, back, refused, late }
    }
}

impl Report {
    pub(super) fn new(options: StormOptions, pairs: Vec<Pair>, tally: Tally) -> Self {
        let ratio = median(pairs.iter().map(|pair| pair.ratio));
        let late: u64 = pairs.iter().map(|pair| pair.late).sum();
        let is_whole = tally.lost + tally.twice + tally.told_lost + late == 0 && tally.came > 0;
        let is_run = !pairs.is_empty() && pairs.len() == options.pairs;
        Self {
            passed: is_whole && is_run && ratio <= RATIO_LIMIT,
            ratio,
            ratio_limit: RATIO_LIMIT,
            tally,
            options,
            pairs,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StormOptions { clients, missed, receivers, rate, .. } = &self.options;
        writeln!(
            f,
            "{clients} clients come back at once and catch up {missed} events each; {receivers} live subscribers hear {rate}/s\n"
        )?;
        let heads = [
            "quiet p50",
            "quiet p99",
            "storm p50",
            "storm p99",
            "ratio",
            "storm s",
            "back p50",
            "back p99",
            "refused",
        ];
        writeln!(f, "{:5}{}", "pair", heads.map(|head| format!("{head:>11}")).concat())?;
        for (number, pair) in self.pairs.iter().enumerate() {
            writeln!(
                f,
                "{:<5}{:>11.2}{:>11.2}{:>11.2}{:>11.2}{:>11.2}{:>11.2}{:>11.0}{:>11.0}{:>11}",
                number + 1,
                pair.quiet.p50_ms,
                pair.quiet.p99_ms,
                pair.storm.p50_ms,
                pair.storm.p99_ms,
                pair.ratio,
                pair.storm_seconds,
                pair.back.p50_ms,
                pair.back.p99_ms,
                pair.refused
            )?;
        }
        let Tally { came, lost, twice, told_lost } = self.tally;
        let late: u64 = self.pairs.iter().map(|pair| pair.late).sum();
        writeln!(
            f,
            "\nof the clients: {came} events came, {lost} lost, {twice} twice, {told_lost} times told lost, {late} not back in time"
        )?;
        let stands = if self.passed { "passed" } else { "missed" };
        write!(
            f,
            "GATE {stands}: p99 in the storm = {:.2} x p99 in the quiet (median), limit {RATIO_LIMIT}",
            self.ratio
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(p99s: &[(f64, f64)], tally: Tally) -> Report {
        let of = |p99_ms| Quantiles { p99_ms, ..Quantiles::default() };
        let pair = |(quiet, storm): &(f64, f64)| Pair::new(of(*quiet), of(*storm), 1.0, of(1.0), (0, 0));
        let options = StormOptions {
            clients: 10,
            channels: 1,
            missed: 1,
            receivers: 1,
            rate: 1.0,
            quiet_seconds: 1.0,
            pairs: p99s.len(),
            patience: std::time::Duration::from_secs(1),
            planted: None,
        };
        Report::new(options, p99s.iter().map(pair).collect(), tally)
    }

    #[test]
    fn the_gate_is_the_median_ratio_and_that_nothing_is_wrong() {
        let whole = Tally { came: 100, ..Tally::default() };
        assert!(report(&[(5.0, 9.0), (5.0, 500.0), (10.0, 11.0)], whole).passed);
        assert!(!report(&[(5.0, 11.0), (5.0, 5.0), (10.0, 21.0)], whole).passed);
        assert!(!report(&[], whole).passed, "nothing was measured");
        assert!(!report(&[(0.0, 0.0)], whole).passed, "nothing was heard");
        for tally in [
            Tally { lost: 1, ..whole },
            Tally { twice: 1, ..whole },
            Tally { told_lost: 1, ..whole },
            Tally::default(),
        ] {
            assert!(!report(&[(5.0, 5.0)], tally).passed, "{tally:?}");
        }
        let text = report(&[(5.0, 12.0)], whole).to_string();
        assert!(text.contains("GATE missed: p99 in the storm = 2.40 x"), "{text}");
    }
}
