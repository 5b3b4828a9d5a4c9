//! Judges a history: what was acked and is missing, what came twice, what came out of order, how long it took.
//!
//! **Owns** the verdict, as pure functions over a [`History`]: no clock, no network, and nothing of the run but its files,
//! so an old history can be judged again. **Invariant:** a history from which nothing follows (no acks, a client that
//! never got through, counters that were never read) is not good. [`prove`] shows that the judge sees what it looks for.

mod amplification;
mod delivery;
mod index;
mod pause;
mod prove;
mod verdict;

use std::collections::BTreeSet;

pub use delivery::{Finding, Kind};
pub use index::Pos;
pub use pause::Pause;
pub use prove::prove;
pub use verdict::Verdict;

use crate::history::History;
use index::Index;

/// What a good verdict allows.
#[derive(Debug, Clone, Copy, PartialEq, clap::Args)]
pub struct Limits {
    /// Longest time in milliseconds from publishing to receiving where no fault explains it
    #[arg(long, default_value_t = 250)]
    pub elsewhere_ms_limit: u64,
    /// How long after the first publish the processes and the brokers may still be cold
    #[arg(long, default_value_t = 2_000)]
    pub warm_up_ms: u64,
    /// The longest time for what was published meanwhile
    #[arg(long, default_value_t = 1_000)]
    pub warm_up_ms_limit: u64,
    /// The same for clients of a gateway that was killed or restarted
    #[arg(long, default_value_t = 6_000)]
    pub gateway_ms_limit: u64,
    /// The same for partitions of a router that was killed
    #[arg(long, default_value_t = 8_000)]
    pub router_ms_limit: u64,
    /// The same for partitions that moved because a router was restarted in good order, or came back
    #[arg(long, default_value_t = 1_000)]
    pub planned_ms_limit: u64,
    /// Pushes per event over nodes that wanted it
    #[arg(long, default_value_t = 1.05)]
    pub amplification_limit: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            elsewhere_ms_limit: 250,
            warm_up_ms: 2_000,
            warm_up_ms_limit: 1_000,
            gateway_ms_limit: 6_000,
            router_ms_limit: 8_000,
            planned_ms_limit: 1_000,
            amplification_limit: 1.05,
        }
    }
}

/// Judges all of it.
#[must_use]
pub fn judge(history: &History, limits: &Limits) -> Verdict {
    let index = Index::of(history);
    let deliveries = delivery::check(&index);
    let pauses = pause::check(&index, limits);
    let amplification = amplification::of(&history.samples);
    let mut verdict = Verdict::new(&index, deliveries, pauses, amplification);
    verdict.problems.extend(emptiness(&index, &verdict));
    verdict.problems.extend(verdict.broken_promises(limits));
    verdict
}

/// What keeps a history from telling anything.
fn emptiness(index: &Index<'_>, verdict: &Verdict) -> Vec<String> {
    let mut problems = index.problems.clone();
    if verdict.acked == 0 {
        problems.push("no event was acked: is the routers' API reachable?".to_owned());
    }
    if verdict.expected == 0 {
        problems.push("no client had to receive anything: it proves nothing".to_owned());
    }
    let deaf: Vec<String> =
        index.clients.values().filter(|c| !c.is_established()).map(|c| c.name()).collect();
    if !deaf.is_empty() {
        problems.push(format!(
            "{} clients never followed all of their channels: {}",
            deaf.len(),
            first(&deaf)
        ));
    }
    let begun_us = index.events.values().map(|event| event.published_us).min().unwrap_or(u64::MAX);
    let late: Vec<String> =
        index.clients.values().filter(|c| c.is_later_than(begun_us)).map(|c| c.name()).collect();
    if !late.is_empty() {
        problems.push(format!(
            "{} clients followed later than the first publish: {}",
            late.len(),
            first(&late)
        ));
    }
    let epochs: BTreeSet<u64> = index.positions().map(|pos| pos.epoch).collect();
    if epochs.len() > 1 {
        problems.push(format!("the log changed during the run: {} epochs", epochs.len()));
    }
    let wanted = index.run.partitions.min(u32::try_from(index.run.channels.len()).unwrap_or(u32::MAX));
    if verdict.partitions < wanted as usize {
        problems.push(format!("events on {} of {} partitions", verdict.partitions, index.run.partitions));
    }
    if verdict.amplification.is_none() {
        problems.push("the routers counted no push: were their metrics read?".to_owned());
    }
    problems
}

/// The first few of a list.
fn first(names: &[String]) -> String {
    let shown = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown}, …") } else { shown }
}

#[cfg(test)]
mod tests;
