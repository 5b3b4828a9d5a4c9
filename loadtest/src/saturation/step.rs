//! One step, and whether the cluster kept up with it.

use std::fmt;

use serde::Serialize;

use crate::flow::Heard;
use crate::histogram::Quantiles;
use crate::median::median;

/// What the 99th percentile may be.
pub(super) const P99_LIMIT_MS: f64 = 250.0;
/// Seconds' worth of events by which the lag may grow from the first third of a step to the last: over a step of 20 s that
/// is a rate of 0.4 % too much, which no noise of the machine hides for long.
const GROWTH_SECONDS_LIMIT: f64 = 0.05;
/// And events, where that is less.
const GROWTH_LIMIT: f64 = 5.0;

/// A rate, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Events a second.
    pub rate: f64,
    /// It lasted as long as a step shall, and not a quarter of it.
    pub is_full: bool,
    /// By how many events the lag grew, from the median of the first third to that of the last.
    pub growth: f64,
    /// The lag did not grow.
    pub is_flat: bool,
    /// From due to received.
    pub latency: Quantiles,
    /// Deliveries that never came, or came twice, and publishes that were refused.
    pub wrong: u64,
    /// Events that were due and not with the subscribers, ten times a second.
    pub lags: Vec<f64>,
}

/// Medians: one pause of the machine is neither growth nor the lack of it.
fn growth(lags: &[f64]) -> f64 {
    let third = lags.len() / 3;
    let (first, last) = (&lags[..third], &lags[lags.len() - third..]);
    median(last.iter().copied()) - median(first.iter().copied())
}

fn is_flat(rate: f64, lags: &[f64]) -> bool {
    lags.len() >= 3 && growth(lags) <= (rate * GROWTH_SECONDS_LIMIT).max(GROWTH_LIMIT)
}

impl Step {
    pub(super) fn new(rate: f64, lags: Vec<f64>, latency: Quantiles, heard: &Heard) -> Self {
        Self {
            rate,
            is_full: true,
            growth: growth(&lags),
            is_flat: is_flat(rate, &lags),
            latency,
            wrong: heard.lost + heard.twice + heard.refused,
            lags,
        }
    }

    /// Whether the cluster kept up.
    #[must_use]
    pub fn good(&self) -> bool {
        self.is_flat && self.wrong == 0 && self.latency.p99_ms > 0.0 && self.latency.p99_ms < P99_LIMIT_MS
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, growth, is_flat, latency, wrong, .. } = self;
        let flat = if *is_flat { "flat" } else { "growing" };
        write!(
            f,
            "{rate:7.0}/s  p50 {:8.2} ms  p99 {:8.2} ms  lag {flat} ({growth:+.0})  wrong {wrong}  {}",
            latency.p50_ms,
            latency.p99_ms,
            if self.good() { "kept up" } else { "too much" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(lag: impl Fn(f64) -> f64) -> Vec<f64> {
        (0..200).map(|look| lag(f64::from(look) / 10.0)).collect()
    }

    #[test]
    fn a_lag_that_grows_is_told_from_one_that_is_only_large_or_jumps() {
        let (rate, noise) = (1_000.0, |at: f64| (at * 7.0).sin().abs() * 40.0);
        assert!(is_flat(rate, &series(|_| 0.0)));
        assert!(is_flat(rate, &series(|at| 900.0 + noise(at))), "large, not growing");
        assert!(
            is_flat(rate, &series(|at| if (9.0..12.0).contains(&at) { 5_000.0 } else { noise(at) })),
            "one pause"
        );
        assert!(is_flat(rate, &series(|at| 500.0 - at * 20.0)), "what is caught up with");
        assert!(!is_flat(rate, &series(|at| noise(at) + at * rate * 0.01)), "one per cent too much");
        assert!(
            !is_flat(rate, &series(|at| if at < 15.0 { 0.0 } else { (at - 13.0) * 100.0 })),
            "at the end"
        );
        assert!(is_flat(10.0, &series(|at| if at < 15.0 { 0.0 } else { 4.0 })), "a few events are nothing");
        assert!(!is_flat(rate, &[]), "without a look at it nothing is known");
    }

    #[test]
    fn a_step_is_good_when_all_of_it_is() {
        let latency = Quantiles { p99_ms: 20.0, ..Quantiles::default() };
        let good = Step {
            rate: 100.0,
            is_full: true,
            growth: 0.0,
            is_flat: true,
            latency,
            wrong: 0,
            lags: Vec::new(),
        };
        assert!(good.good());
        assert!(!Step { is_flat: false, ..good.clone() }.good());
        assert!(!Step { wrong: 1, ..good.clone() }.good());
        for p99_ms in [0.0, P99_LIMIT_MS] {
            assert!(!Step { latency: Quantiles { p99_ms, ..latency }, ..good.clone() }.good(), "{p99_ms}");
        }
    }
}
