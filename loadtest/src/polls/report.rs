//! The figures, and the gate.

use std::fmt;

use serde::Serialize;

use super::PollsOptions;

/// Answers 304 that a second of the server's processor time must be good for.
pub const GATE: f64 = 40_000.0;

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked for.
    pub options: PollsOptions,
    /// Length of the window.
    pub seconds: f64,
    /// Processor time of the server within it.
    pub cpu_seconds: f64,
    /// Answers 304 within it.
    pub unchanged: u64,
    /// Other answers within it: a new cursor, or events.
    pub changed: u64,
    /// What it is all about: answers 304 per CPU-second. The others are not counted, though they cost too.
    pub unchanged_per_cpu_second: f64,
    /// Events published, in the window and around it.
    pub events: u64,
    /// Of every connection's events, those that it did not find.
    pub lost: u64,
    /// Those that it found again.
    pub repeated: u64,
    /// The gate is reached, and nothing is wrong.
    pub passed: bool,
}

impl Report {
    pub(super) fn new(
        options: PollsOptions,
        seconds: f64,
        cpu_seconds: f64,
        unchanged: u64,
        changed: u64,
        (events, lost): (u64, u64),
        repeated: u64,
    ) -> Self {
        let unchanged_per_cpu_second = unchanged as f64 / cpu_seconds;
        let passed = unchanged_per_cpu_second >= GATE && lost + repeated == 0;
        Self {
            options,
            seconds,
            cpu_seconds,
            unchanged,
            changed,
            unchanged_per_cpu_second,
            events,
            lost,
            repeated,
            passed,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unchanged, changed, seconds, cpu_seconds, events, lost, repeated, .. } = self;
        let PollsOptions { connections, channels, .. } = &self.options;
        writeln!(
            f,
            "{connections} connections that poll {channels} channel(s), {seconds:.0} s\n\n\
             answers 304               {unchanged:>10}  ({:.0}/s)\n\
             other answers             {changed:>10}  (a new cursor, or events)\n\
             processor time, s         {cpu_seconds:>10.2}\n\
             304 per CPU-second        {:>10.0}  ({:.1} µs each)\n\
             events published          {events:>10}  lost {lost}, twice {repeated}\n",
            *unchanged as f64 / seconds,
            self.unchanged_per_cpu_second,
            1e6 / self.unchanged_per_cpu_second,
        )?;
        let stands = if self.passed { "passed" } else { "missed" };
        write!(
            f,
            "GATE {stands}: {:.0} answers 304 per CPU-second, limit {GATE:.0}; {} events lost or twice",
            self.unchanged_per_cpu_second,
            lost + repeated
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quick_and_wrong_does_not_pass() {
        let options = PollsOptions {
            public: ([127, 0, 0, 1], 1).into(),
            apis: Vec::new(),
            pid: 1,
            connections: 2,
            channels: 1,
            seconds: 1,
            warm_seconds: 0,
            event_interval_ms: 1_000,
            planted_repeat: false,
        };
        let report = |unchanged, lost, repeated| {
            Report::new(options.clone(), 1.0, 0.5, unchanged, 3, (4, lost), repeated)
        };
        let stands = [(20_000, 0, 0), (19_999, 0, 0), (90_000, 1, 0), (90_000, 0, 1)]
            .map(|(unchanged, lost, repeated)| report(unchanged, lost, repeated).passed);
        assert_eq!(stands, [true, false, false, false]);
        assert!(report(20_000, 0, 0).to_string().contains("GATE passed: 40000"), "{}", report(20_000, 0, 0));
    }
}
