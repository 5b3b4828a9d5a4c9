//! What a run shall do: who follows what, and when which process is killed.

use anyhow::Context as _;
use rand::Rng as _;
use tidegate_vocab::partition_number;

use super::VerifyOptions;
use super::cluster::Cluster;
use crate::history::{Action, ClientPlan, Receiving, Run};

/// Most channels that one client follows.
const CHANNELS_OF_A_CLIENT_LIMIT: usize = 5;

/// Which process a fault hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The gateway with most connections.
    FullestGateway,
    /// The router that serves most partitions.
    BusiestRouter,
    /// This one.
    Named(String),
}

/// A process goes, and comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How it goes.
    pub action: Action,
    /// Which process.
    pub target: Target,
    /// When, in milliseconds since publishing began.
    pub at_ms: u64,
    /// When it is started again.
    pub back_ms: u64,
}

/// The faults of a run, in order. The killings are those of a 90 s run, at the same shares of another.
pub(super) fn faults(options: &VerifyOptions) -> Vec<Fault> {
    let share = |second: u64| second * 1_000 * options.seconds / 90;
    let mut faults = Vec::new();
    if !options.no_kill {
        let kill =
            |target, at, back| Fault { action: Action::Kill, target, at_ms: share(at), back_ms: share(back) };
        faults.push(kill(Target::FullestGateway, 15, 20));
        faults.push(kill(Target::BusiestRouter, 35, 55));
    }
    for PlannedRestart { node, second } in &options.planned_restarts {
        let (at_ms, target) = (second * 1_000, Target::Named(node.clone()));
        faults.push(Fault { action: Action::Term, target, at_ms, back_ms: at_ms });
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// `NAME@SECOND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRestart {
    /// Which process.
    pub node: String,
    /// When.
    pub second: u64,
}

impl std::str::FromStr for PlannedRestart {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let form = "must be NAME@SECOND, as in router-1@70";
        let (node, second) = text.split_once('@').context(form)?;
        Ok(Self { node: node.to_owned(), second: second.parse().context(form)? })
    }
}

/// Who follows what: two thirds of the clients one channel, the others 2 to 5 on several partitions.
pub(super) fn run(options: &VerifyOptions, cluster: &Cluster) -> Run {
    let run = format!("{:08x}", rand::rng().random::<u32>());
    let channels = channels(&format!("verify:{run}"), options.channels, cluster.partitions);
    let clients = (0..options.subscribers).map(|client| {
        let transport = Receiving::ALL[client as usize % Receiving::ALL.len()];
        // Every third of each transport, so that all transports have clients of both sorts.
        let round = client as usize / Receiving::ALL.len();
        let count = if round % 3 == 2 { 2 + round / 3 % (CHANNELS_OF_A_CLIENT_LIMIT - 1) } else { 1 };
        let from = client as usize;
        let mut own: Vec<String> =
            (0..count).filter_map(|n| channels.get((from + n * 7) % channels.len())).cloned().collect();
        own.sort();
        own.dedup();
        ClientPlan { client, transport, channels: own }
    });
    let clients = clients.collect();
    Run {
        run,
        seconds: options.seconds,
        rate: options.rate,
        partitions: cluster.partitions,
        channels,
        clients,
        cluster: cluster.names(),
    }
}

/// Names spread evenly over the partitions, so that every partition has events.
pub(crate) fn channels(prefix: &str, count: usize, partitions: u32) -> Vec<String> {
    let mut names = Vec::with_capacity(count);
    let mut number = 0_u64;
    while names.len() < count {
        let wanted = u32::try_from(names.len()).unwrap_or_default() % partitions;
        let name = format!("{prefix}:{number}");
        number += 1;
        if partition_number(name.as_bytes(), partitions) == wanted {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_on_all_partitions() {
        let names = channels("r", 100, 16);
        let on = |partition| names.iter().filter(|n| partition_number(n.as_bytes(), 16) == partition).count();
        assert!((0..16).all(|partition| on(partition) >= 6), "{names:?}");
    }

    #[test]
    fn a_planned_restart_is_read() {
        let restart: PlannedRestart = "router-1@70".parse().expect("well-formed");
        assert_eq!(restart, PlannedRestart { node: "router-1".into(), second: 70 });
        assert!("router-1".parse::<PlannedRestart>().is_err());
    }

    #[test]
    fn a_run_of_90_seconds_kills_at_15_and_35() {
        let options = VerifyOptions {
            planned_restarts: vec!["router-2@70".parse().expect("well-formed")],
            ..VerifyOptions::default()
        };
        let times: Vec<_> = faults(&options).iter().map(|fault| (fault.at_ms, fault.back_ms)).collect();
        assert_eq!(times, [(15_000, 20_000), (35_000, 55_000), (70_000, 70_000)]);
    }
}
