//! What the parts of a cluster take of the machine: user memory by process, the kernel's for sockets, processor time.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::cpu::cpu_time_of_all;
use crate::memory::Memory;
use crate::verify::Cluster;

/// Pages of the kernel's socket statistics.
const PAGE_BYTES: u64 = 4_096;

/// The machine's memory, as its kernel says.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Machine {
    /// Free, or the page cache of files. Not `MemAvailable`, which counts the inodes of open sockets as if they could be given back.
    pub available_bytes: u64,
    /// What the kernel keeps of sockets, files and the like.
    pub slab_bytes: u64,
    /// What waits in TCP sockets.
    pub tcp_bytes: u64,
    /// TCP sockets that are in use, both ends of those on loopback.
    pub tcp_sockets: u64,
}

impl Machine {
    pub(super) fn read() -> anyhow::Result<Self> {
        let meminfo = read("/proc/meminfo")?;
        let sockstat = read("/proc/net/sockstat")?;
        Ok(Self {
            available_bytes: available(&meminfo).context("/proc/meminfo is not as proc(5) says")?,
            slab_bytes: bytes(&meminfo, "Slab").unwrap_or_default(),
            tcp_bytes: tcp(&sockstat, "mem").unwrap_or_default() * PAGE_BYTES,
            tcp_sockets: tcp(&sockstat, "inuse").unwrap_or_default(),
        })
    }
}

fn read(path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.to_owned())
}

fn available(meminfo: &str) -> Option<u64> {
    let [free, buffers, cached, shared] =
        ["MemFree", "Buffers", "Cached", "Shmem"].map(|name| bytes(meminfo, name));
    Some((free? + buffers? + cached?).saturating_sub(shared?))
}

fn bytes(meminfo: &str, name: &str) -> Option<u64> {
    number_behind(meminfo, name, ":").map(|kib| kib * 1_024)
}

fn number_behind(text: &str, name: &str, colon: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(colon));
    lines.next()?.split_ascii_whitespace().next()?.parse().ok()
}

/// A figure of the line `TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 2`.
fn tcp(sockstat: &str, name: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_ascii_whitespace().skip_while(|word| *word != name);
    words.nth(1)?.parse().ok()
}

/// Of each part, over all its processes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Of<T> {
    /// Gateways.
    pub gateways: T,
    /// Routers.
    pub routers: T,
    /// Members of the registry.
    pub registry: T,
    /// Kafka.
    pub kafka: T,
    /// The processes that hold the clients' end.
    pub clients: T,
}

/// User memory in bytes, and the machine's.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Sample {
    /// Gateways.
    pub gateways: u64,
    /// Routers.
    pub routers: u64,
    /// Members of the registry.
    pub registry: u64,
    /// Kafka.
    pub kafka: u64,
    /// The processes that hold the clients' end.
    pub clients: u64,
    /// The kernel's, and what is left.
    pub machine: Machine,
}

/// Processor time used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used(Of<Duration>);

impl Used {
    pub(super) fn cores_since(&self, before: &Self, elapsed: Duration) -> Of<f64> {
        let cores = |of: fn(&Of<Duration>) -> Duration| {
            of(&self.0).saturating_sub(of(&before.0)).as_secs_f64() / elapsed.as_secs_f64()
        };
        Of {
            gateways: cores(|of| of.gateways),
            routers: cores(|of| of.routers),
            registry: cores(|of| of.registry),
            kafka: cores(|of| of.kafka),
            clients: cores(|of| of.clients),
        }
    }
}

/// The processes of a cluster, by part.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts(Of<Vec<u32>>);

impl Parts {
    pub(super) fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let pids = |names: Vec<String>| -> anyhow::Result<Vec<u32>> {
            names.iter().map(|name| cluster.pid(name)).collect()
        };
        Ok(Self(Of {
            gateways: pids(cluster.gateways.iter().map(|gateway| gateway.name.clone()).collect())?,
            routers: pids(cluster.routers.iter().map(|router| router.name.clone()).collect())?,
            registry: pids(named(&cluster.dir, "registry-"))?,
            // A Kafka that was given has no directory here.
            kafka: named(&cluster.dir.join("kafka"), "broker-")
                .iter()
                .filter_map(|name| {
                    let file = cluster.dir.join("kafka").join(name).join("pid");
                    std::fs::read_to_string(file).ok()?.trim().parse().ok()
                })
                .collect(),
            clients: Vec::new(),
        }))
    }

    pub(super) fn read(&self, clients: &[u32]) -> anyhow::Result<Sample> {
        let sum = |pids: &[u32]| -> anyhow::Result<u64> {
            pids.iter().map(|pid| Ok(Memory::of(*pid).with_context(|| format!("process {pid}"))?.0)).sum()
        };
        let Self(parts) = self;
        Ok(Sample {
            gateways: sum(&parts.gateways).context("a gateway is gone")?,
            routers: sum(&parts.routers).context("a router is gone")?,
            registry: sum(&parts.registry).context("a member of the registry is gone")?,
            kafka: sum(&parts.kafka).context("Kafka is gone")?,
            clients: sum(clients).context("a worker is gone")?,
            machine: Machine::read()?,
        })
    }

    pub(super) fn processor_time(&self, clients: &[u32]) -> anyhow::Result<Used> {
        let sum = |pids: &[u32]| if pids.is_empty() { Ok(Duration::ZERO) } else { cpu_time_of_all(pids) };
        let Self(parts) = self;
        Ok(Used(Of {
            gateways: sum(&parts.gateways)?,
            routers: sum(&parts.routers)?,
            registry: sum(&parts.registry)?,
            kafka: sum(&parts.kafka)?,
            clients: sum(clients)?,
        }))
    }
}

/// What lies in a directory under names that begin so.
fn named(directory: &Path, begin: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(begin) && directory.join(name).join("pid").exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_found() {
        let sockstat = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 1 alloc 7 mem 2\nUDP: inuse 3 mem 4\n";
        assert_eq!((tcp(sockstat, "inuse"), tcp(sockstat, "mem"), tcp("", "mem")), (Some(5), Some(2), None));
        let meminfo = "MemTotal: 90 kB\nMemFree: 10 kB\nMemAvailable:   70 kB\nBuffers: 2 kB\nCached: 7 kB\nShmem: 4 kB\n";
        assert_eq!(available(meminfo), Some(15 * 1_024));
        assert_eq!(available("MemFree: 10 kB\n"), None);
        let machine = Machine::read().unwrap();
        assert!(machine.available_bytes > 0 && machine.slab_bytes > 0, "{machine:?}");
    }
}
