//! `loadtest compare`: what a delivery costs here, and what the least is that it can cost.
//!
//! **Owns** one load put to several systems in turn: ours, the floor ([`crate::floor`]) and nchan. Each is measured the same
//! way: the same receivers count what comes, the same clock says how late, and the kernel says how much processor time the
//! server's processes used meanwhile. Deliveries per CPU-second survive a noisy machine; ratios between two systems are
//! medians over pairs that were measured one right after the other, in alternating order.

mod html;
mod measure;
mod open;
mod publish;
mod receive;
mod report;
mod schedule;
pub(crate) mod system;

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use crate::files::make_room;
use crate::verify::Cluster;
use measure::{Measurement, measure};
use system::Nchan;

pub use crate::histogram::Quantiles;
pub use html::html;
pub(crate) use html::plots;
pub use report::{Gate, Report};
pub use system::System;

/// The shape of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// One channel that everyone follows, at a steady rate.
    Broadcast,
    /// Everyone follows 20 channels, which share the rate.
    Channels20,
    /// One channel, as many events as fit.
    Saturated,
}

/// What shall be compared.
#[derive(Debug, Clone, Serialize)]
pub struct CompareOptions {
    /// The shape of the load.
    pub scenario: Scenario,
    /// Receivers.
    pub sockets: usize,
    /// Events a second, each to every socket; not when saturated.
    pub rate: f64,
    /// That are measured.
    pub seconds: u64,
    /// That are not, before them.
    pub warm_seconds: u64,
    /// How often each system is measured.
    pub pairs: usize,
    /// Bytes of an event's data.
    pub bytes: usize,
    /// Bytes of the floor's event; nothing: as many.
    pub floor_bytes: Option<usize>,
    /// When saturated: events that are published and not with everybody yet.
    pub in_flight: u64,
    /// Threads of the receivers.
    pub receiver_threads: usize,
    /// Which gateway; nothing: the first.
    pub gateway: Option<String>,
    /// The program whose `floor` is started.
    #[serde(skip)]
    pub loadtest: PathBuf,
    /// A fault for tests: the floor leaves out this write.
    #[serde(skip)]
    pub planted_drop: Option<u64>,
}

impl Default for CompareOptions {
    fn default() -> Self {
        Self {
            scenario: Scenario::Broadcast,
            sockets: 5_000,
            rate: 8.0,
            seconds: 20,
            warm_seconds: 2,
            pairs: 5,
            bytes: 100,
            floor_bytes: None,
            in_flight: 32,
            receiver_threads: 1,
            gateway: None,
            loadtest: PathBuf::from("loadtest"),
            planted_drop: None,
        }
    }
}

impl CompareOptions {
    /// Events a second; nothing when as many as fit.
    fn rate(&self) -> Option<f64> {
        (self.scenario != Scenario::Saturated).then_some(self.rate)
    }

    /// That each connection follows.
    fn channels(&self) -> usize {
        if self.scenario == Scenario::Channels20 { 20 } else { 1 }
    }
}

/// Every system once.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// In the order in which they were measured.
    pub measurements: Vec<Measurement>,
}

/// Measures every system, `pairs` times. Without a cluster, only what needs none.
///
/// # Errors
/// When a limit binds, a system cannot be reached or refuses.
pub async fn compare(
    options: &CompareOptions,
    cluster: Option<&Cluster>,
    with_nchan: bool,
    progress: impl Fn(&str),
) -> anyhow::Result<Report> {
    make_room(options.sockets)?;
    let nchan = if with_nchan { Nchan::start(options.sockets) } else { Err("nchan was left out".to_owned()) };
    let mut systems = vec![System::Floor];
    systems.extend(cluster.map(|_| System::Tidegate));
    systems.extend(nchan.as_ref().ok().map(|_| System::Nchan));
    let left_out = nchan.as_ref().err().cloned();
    if let Some(reason) = &left_out {
        progress(&format!("{reason}\n"));
    }
    let mut pairs = Vec::new();
    for number in 0..options.pairs {
        let mut measurements = Vec::new();
        for system in in_turn(&systems, number) {
            let title = format!("pair {}/{} {:8}", number + 1, options.pairs, system.name());
            let target = system::target(system, options, cluster, &nchan)?;
            let measured = measure(system, options, target, |line| progress(&format!("{title}  {line}")));
            let measurement = measured.await.with_context(|| system.name().to_owned())?;
            progress(&format!("{title}  {measurement}\n"));
            measurements.push(measurement);
        }
        pairs.push(Pair { measurements });
    }
    Ok(Report::new(options.clone(), pairs, left_out))
}

/// Every other pair the other way round: what a system leaves behind meets each of the others.
fn in_turn(systems: &[System], number: usize) -> Vec<System> {
    let mut order = systems.to_vec();
    if number % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_alternates() {
        let systems = [System::Floor, System::Tidegate, System::Nchan];
        assert_eq!(in_turn(&systems, 0), systems);
        assert_eq!(in_turn(&systems, 1), [System::Nchan, System::Tidegate, System::Floor]);
    }
}
