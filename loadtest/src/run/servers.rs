//! The servers under load: where they are, and what the kernel says they use.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::cpu::cpu_time;
use crate::memory::{Memory, settled_memory};
use crate::verify::Cluster;

/// Most time to wait for memory to settle.
const SETTLE_LIMIT: Duration = Duration::from_secs(15);

/// Where clients connect, where events are published, and whose processes these are.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Where clients connect.
    pub public: Vec<SocketAddr>,
    /// Where events are published.
    pub api: Vec<SocketAddr>,
    processes: Vec<ServerProcess>,
}

#[derive(Debug, Clone)]
struct ServerProcess {
    name: String,
    pid: u32,
    /// Clients connect to it.
    is_gateway: bool,
}

/// What a process used.
#[derive(Debug, Clone, Serialize)]
pub struct Used {
    /// Its name.
    pub name: String,
    /// Clients connect to it.
    pub is_gateway: bool,
    /// Processor time within the window.
    pub cpu_seconds: f64,
    /// User memory before anybody connected.
    pub memory_before_bytes: u64,
    /// User memory when all were connected and nothing was published yet.
    pub memory_open_bytes: u64,
}

impl Servers {
    /// The processes of a cluster on this machine.
    ///
    /// # Errors
    /// When one of them does not run.
    pub fn of_cluster(cluster: &Cluster) -> anyhow::Result<Self> {
        let process = |name: &str, is_gateway| -> anyhow::Result<_> {
            Ok(ServerProcess { name: name.to_owned(), pid: cluster.pid(name)?, is_gateway })
        };
        let gateways = cluster.gateways.iter().map(|gateway| process(&gateway.name, true));
        let routers = cluster.routers.iter().map(|router| process(&router.name, false));
        Ok(Self {
            public: cluster.gateways.iter().map(|gateway| gateway.public).collect(),
            api: cluster.routers.iter().map(|router| router.api).collect(),
            processes: gateways.chain(routers).collect::<anyhow::Result<_>>()?,
        })
    }

    /// One process that is everything, as `tidegate dev` is; nothing is read of it if its process is not known.
    #[must_use]
    pub fn alone(public: SocketAddr, api: SocketAddr, pid: Option<u32>) -> Self {
        let process = |pid| ServerProcess { name: "server".to_owned(), pid, is_gateway: true };
        Self { public: vec![public], api: vec![api], processes: pid.map(process).into_iter().collect() }
    }

    /// Only one of the gateways, counted around; the routers stay.
    #[must_use]
    pub fn with_gateway(mut self, number: usize) -> Self {
        let number = number % self.public.len().max(1);
        self.public = self.public.get(number).copied().into_iter().collect();
        let gateways = self.processes.iter().filter(|process| process.is_gateway).nth(number).cloned();
        self.processes.retain(|process| !process.is_gateway);
        self.processes.splice(0..0, gateways);
        self
    }

    /// User memory of each, when it has settled if that is wanted.
    pub(crate) async fn memory(&self, settles: bool) -> anyhow::Result<Vec<Memory>> {
        let reading = self.processes.iter().map(|process| async {
            let limit = if settles { SETTLE_LIMIT } else { Duration::ZERO };
            let settled = settled_memory(process.pid, limit).await;
            settled.with_context(|| format!("{}, process {}", process.name, process.pid))
        });
        futures::future::try_join_all(reading).await
    }

    /// Processor time of each so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Vec<Duration>> {
        self.processes.iter().map(|process| cpu_time(process.pid).context(process.name.clone())).collect()
    }

    /// Puts together what was read of each.
    pub(crate) fn used(&self, memory: (&[Memory], &[Memory]), cpu: (&[Duration], &[Duration])) -> Vec<Used> {
        let figures = memory.0.iter().zip(memory.1).zip(cpu.0.iter().zip(cpu.1));
        let used = self.processes.iter().zip(figures).map(|(process, ((before, open), (from, to)))| Used {
            name: process.name.clone(),
            is_gateway: process.is_gateway,
            cpu_seconds: to.saturating_sub(*from).as_secs_f64(),
            memory_before_bytes: before.0,
            memory_open_bytes: open.0,
        });
        used.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gateway_stays_with_its_process() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let process = |name: &str, is_gateway| ServerProcess { name: name.to_owned(), pid: 1, is_gateway };
        let processes = vec![process("g1", true), process("g2", true), process("r1", false)];
        let servers = Servers { public: vec![address(1), address(2)], api: vec![address(3)], processes };
        for (number, port, name) in [(0, 1, "g1"), (1, 2, "g2"), (2, 1, "g1")] {
            let one = servers.clone().with_gateway(number);
            let names: Vec<_> = one.processes.iter().map(|process| process.name.as_str()).collect();
            assert_eq!((one.public, names), (vec![address(port)], vec![name, "r1"]));
        }
    }
}
