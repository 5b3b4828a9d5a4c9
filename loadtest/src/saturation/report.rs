//! The result: the rate, and the steps that led to it.

use std::fmt;

use serde::Serialize;

use super::SaturationOptions;
use super::step::{P99_LIMIT_MS, Step};

/// The result of a search.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked for.
    pub options: SaturationOptions,
    /// The highest rate of a full step that was kept up with, events a second; none if none was.
    pub rate: Option<f64>,
    /// In the order in which they were tried.
    pub steps: Vec<Step>,
}

impl Report {
    pub(super) fn new(options: SaturationOptions, steps: Vec<Step>) -> Self {
        let good = steps.iter().filter(|step| step.is_full && step.good());
        let rate = good.map(|step| step.rate).max_by(f64::total_cmp);
        Self { options, rate, steps }
    }

    /// What was asked for, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        let SaturationOptions { step_seconds, receivers, bytes, .. } = self.options;
        format!("durable events of {bytes} B to {receivers} WebSockets, steps of {step_seconds} s")
    }

    /// The verdict, in one line.
    #[must_use]
    pub fn verdict(&self) -> String {
        let Some(rate) = self.rate else { return "no rate was kept up with".to_owned() };
        let is_limit = rate * 1.1 > self.options.rate_limit;
        let more = if is_limit { "; --rate-limit ended the search" } else { "" };
        format!(
            "{rate:.0} events/s, {:.0} deliveries/s, with a flat lag and p99 below {P99_LIMIT_MS:.0} ms{more}",
            rate * self.options.receivers as f64
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title())?;
        writeln!(f, "{:>9} {:>9} {:>9} {:>9} {:>9}  ", "rate/s", "p50 ms", "p99 ms", "lag grew", "wrong")?;
        for step in &self.steps {
            let stands = match (step.good(), step.is_full) {
                (true, true) => "kept up",
                (false, true) => "too much",
                (true, false) => "kept up (short)",
                (false, false) => "too much (short)",
            };
            writeln!(
                f,
                "{:>9.0} {:>9.2} {:>9.2} {:>9.0} {:>9}  {stands}",
                step.rate, step.latency.p50_ms, step.latency.p99_ms, step.growth, step.wrong
            )?;
        }
        write!(f, "\nSATURATION {}", self.verdict())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::histogram::Quantiles;

    /// Rates, whether in full steps, and whether flat.
    pub(in crate::saturation) fn report(steps: &[(f64, bool, bool)]) -> Report {
        let latency = Quantiles { p50_ms: 1.0, p99_ms: 5.0, ..Quantiles::default() };
        let step = |(rate, is_full, is_flat): &(f64, bool, bool)| Step {
            rate: *rate,
            is_full: *is_full,
            growth: 0.0,
            is_flat: *is_flat,
            latency,
            wrong: 0,
            lags: vec![0.0, 1.0, *rate],
        };
        let options = SaturationOptions {
            step_seconds: 20.0,
            start_rate: 100.0,
            rate_limit: 1_000.0,
            receivers: 10,
            bytes: 100,
            planted: None,
        };
        Report::new(options, steps.iter().map(step).collect())
    }

    #[test]
    fn the_rate_is_the_highest_of_a_full_step_that_was_good() {
        let found =
            report(&[(400.0, false, true), (200.0, true, true), (220.0, true, true), (242.0, true, false)]);
        assert_eq!(found.rate, Some(220.0));
        assert!(found.to_string().contains("SATURATION 220 events/s, 2200 deliveries/s"), "{found}");
        assert_eq!(report(&[(400.0, false, true), (200.0, true, false)]).rate, None);
        assert!(report(&[(950.0, true, true)]).verdict().contains("--rate-limit"));
    }
}
