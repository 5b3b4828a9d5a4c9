//! The bound, the ratios, the gates, and the table.

use std::fmt;

use serde::Serialize;

use super::StalledOptions;
use crate::histogram::Quantiles;
use crate::median::median;

/// By how much a healthy neighbour's p99 may be longer.
const RATIO_LIMIT: f64 = 1.2;
const MIB: f64 = 1_048_576.0;

impl StalledOptions {
    /// Of channels that nobody used before.
    pub(super) fn namespace_prefix(&self) -> String {
        format!("{}:{:08x}", self.namespace, rand::random::<u32>())
    }

    /// What the gateway's memory may grow by: every outbox full, and room for the allocator, which rounds up each frame.
    #[must_use]
    pub fn memory_limit(&self) -> u64 {
        self.readers as u64 * self.outbox_bytes / 4 * 5
    }
}

/// Without, and with.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// Of the healthy neighbours.
    pub without: Quantiles,
    /// Of the healthy neighbours, while readers stall.
    pub with: Quantiles,
    /// p99 with, divided by p99 without.
    pub ratio: f64,
    /// By how much the gateway's private memory was above what it was before the first pair, at most.
    pub grown_bytes: u64,
    /// What waited for slow sockets, at most.
    pub outbox_bytes: u64,
    /// Readers that were closed for their slowness, and replaced.
    pub closed: u64,
    /// Events that were left out for them.
    pub dropped: u64,
}

impl Pair {
    pub(super) fn new(
        without: Quantiles,
        with: Quantiles,
        grown_bytes: u64,
        outbox_bytes: u64,
        (closed, dropped): (u64, u64),
    ) -> Self {
        // Without a figure on both sides there is no ratio, and none that passes.
        let has_both = without.p99_ms > 0.0 && with.p99_ms > 0.0;
        let ratio = if has_both { with.p99_ms / without.p99_ms } else { f64::MAX };
        Self { without, with, ratio, grown_bytes, outbox_bytes, closed, dropped }
    }
}

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked for.
    pub options: StalledOptions,
    /// Median of the pairs' ratios.
    pub ratio: f64,
    /// At most this.
    pub ratio_limit: f64,
    /// The gateway's private memory before the first pair.
    pub memory_before: u64,
    /// The most that it grew by.
    pub grown_bytes: u64,
    /// At most this.
    pub grown_limit: u64,
    /// Readers did stall: something waited for them.
    pub is_stalled: bool,
    /// Both limits are kept.
    pub passed: bool,
    /// Each.
    pub pairs: Vec<Pair>,
}

impl Report {
    pub(super) fn new(options: StalledOptions, memory_before: u64, pairs: Vec<Pair>) -> Self {
        let ratio = median(pairs.iter().map(|pair| pair.ratio));
        let grown_bytes = pairs.iter().map(|pair| pair.grown_bytes).max().unwrap_or_default();
        let grown_limit = options.memory_limit();
        let waited = |pair: &Pair| pair.outbox_bytes > 0 || pair.closed > 0 || pair.dropped > 0;
        let is_stalled = pairs.len() == options.pairs && !pairs.is_empty() && pairs.iter().all(waited);
        let passed = is_stalled && ratio <= RATIO_LIMIT && grown_bytes <= grown_limit;
        Self {
            options,
            ratio,
            ratio_limit: RATIO_LIMIT,
            memory_before,
            grown_bytes,
            grown_limit,
            is_stalled,
            passed,
            pairs,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StalledOptions { readers, busy_rate, busy_bytes, receivers, rate, outbox_bytes, .. } =
            &self.options;
        let own = if self.options.own { " (and one of their own each)" } else { "" };
        writeln!(
            f,
            "{readers} readers that never read a channel with {busy_rate}/s of {busy_bytes} B{own}; {receivers} healthy neighbours \
             hear {rate}/s\n"
        )?;
        let heads =
            ["p50", "p99", "with p50", "with p99", "ratio", "grew MiB", "waits MiB", "closed", "left out"];
        writeln!(f, "{:5}{}", "pair", heads.map(|head| format!("{head:>11}")).concat())?;
        for (number, pair) in self.pairs.iter().enumerate() {
            writeln!(
                f,
                "{:<5}{:>11.2}{:>11.2}{:>11.2}{:>11.2}{:>11.2}{:>11.1}{:>11.1}{:>11}{:>11}",
                number + 1,
                pair.without.p50_ms,
                pair.without.p99_ms,
                pair.with.p50_ms,
                pair.with.p99_ms,
                pair.ratio,
                pair.grown_bytes as f64 / MIB,
                pair.outbox_bytes as f64 / MIB,
                pair.closed,
                pair.dropped
            )?;
        }
        if !self.is_stalled {
            writeln!(
                f,
                "\nin some pair nothing waited for a reader: they did not stall (publish more, or for longer)"
            )?;
        }
        let stands = if self.passed { "passed" } else { "missed" };
        write!(
            f,
            "\nGATE {stands}: memory grew by {:.1} MiB, limit {:.1} MiB ({readers} outboxes of {outbox_bytes} B and a quarter for \
             the allocator); a healthy neighbour's p99 {:.2} x (median), limit {RATIO_LIMIT}",
            self.grown_bytes as f64 / MIB,
            self.grown_limit as f64 / MIB,
            self.ratio
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: usize) -> StalledOptions {
        StalledOptions {
            readers: 10,
            namespace: "stalled".to_owned(),
            own: false,
            busy_rate: 20.0,
            busy_bytes: 100,
            outbox_bytes: 1_000,
            receivers: 1,
            rate: 10.0,
            seconds: 1.0,
            pairs,
            gateway: None,
        }
    }

    fn report(pairs: &[(f64, f64, u64, u64)]) -> Report {
        let of = |p99_ms| Quantiles { p99_ms, ..Quantiles::default() };
        let pair = |(without, with, grown, waits): &(f64, f64, u64, u64)| {
            Pair::new(of(*without), of(*with), *grown, *waits, (0, 0))
        };
        Report::new(options(pairs.len()), 0, pairs.iter().map(pair).collect())
    }

    #[test]
    fn both_limits_must_be_kept_and_readers_must_have_stalled() {
        assert!(report(&[(5.0, 5.9, 12_500, 1), (5.0, 50.0, 0, 1), (5.0, 5.0, 0, 1)]).passed);
        assert!(!report(&[(5.0, 6.1, 0, 1)]).passed, "a neighbour suffers");
        assert!(!report(&[(5.0, 5.0, 12_501, 1)]).passed, "memory is beyond its bound");
        assert!(!report(&[(5.0, 5.0, 0, 0)]).passed, "nobody stalled");
        assert!(!report(&[(0.0, 0.0, 0, 1)]).passed, "nothing was heard");
        assert!(!report(&[]).passed, "nothing was measured");
        let text = report(&[(5.0, 7.0, 0, 1)]).to_string();
        assert!(text.contains("GATE missed") && text.contains("1.40 x (median), limit 1.2"), "{text}");
    }
}
