//! How many processes a fleet takes, and which limit binds when it is too large.

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, getrlimit};

/// Files that a worker has open beside its connections.
const FILES_MARGIN: u64 = 256;
/// Ports of a source address, of half of them, that are left to others.
const PORTS_MARGIN: u64 = 512;
/// What a connection takes of this machine when both its ends are on it: two sockets in the kernel, what a server keeps of
/// it, and what a worker does; 12,461 bytes were measured.
const CONNECTION_BYTES: u64 = 13 * 1_024;

/// What this machine allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Files that one process may have open.
    files: u64,
    /// Ports that one source address has, which are quick to find.
    ports: u64,
    /// Memory that is free or can be freed.
    memory_bytes: u64,
    /// Files that all processes together may open yet.
    system_files: u64,
    /// Processes that this user may have.
    processes: u64,
}

/// How the connections are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Worker processes.
    pub(super) processes: u64,
    /// Source addresses that each of them uses.
    pub(super) sources_each: u64,
    /// Most connections from one source address.
    pub(super) ports_each: u64,
}

impl Limits {
    /// As they are now.
    pub(super) fn read() -> anyhow::Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
        let numbers = |text: &str| -> Vec<u64> {
            text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        let range = numbers(&read("/proc/sys/net/ipv4/ip_local_port_range")?);
        let [low, high] = range[..] else { anyhow::bail!("ip_local_port_range is no range") };
        let files = numbers(&read("/proc/sys/fs/file-nr")?);
        let [open, _, most] = files[..] else { anyhow::bail!("file-nr is not as proc(5) says") };
        let memory = read("/proc/meminfo")?;
        let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib = available.and_then(|rest| numbers(rest).first().copied()).context("no MemAvailable")?;
        let most_of = |resource| getrlimit(resource).maximum.unwrap_or(u64::MAX);
        Ok(Self {
            files: most_of(Resource::Nofile).saturating_sub(FILES_MARGIN),
            // bind(2) looks among every other port first. When those are taken each further one costs milliseconds of the
            // kernel's time (measured: 2,800 connections a second before, 100 after), so the next address begins there.
            ports: ((high - low).div_ceil(2)).saturating_sub(PORTS_MARGIN),
            memory_bytes: kib * 1_024,
            system_files: most.saturating_sub(open),
            processes: most_of(Resource::Nproc),
        })
    }

    /// Spreads so many connections over at least so many processes.
    pub(super) fn plan(&self, connections: u64, least_processes: u64) -> anyhow::Result<Plan> {
        ensure!(connections > 0, "a fleet without a connection");
        ensure!(
            self.files > 0 && self.ports > 0,
            "a process may not even open {FILES_MARGIN} files, or a source address has fewer than twice {PORTS_MARGIN} ports: \
             raise ulimit -n, or net.ipv4.ip_local_port_range"
        );
        let memory_bytes = connections.saturating_mul(CONNECTION_BYTES);
        ensure!(
            memory_bytes <= self.memory_bytes,
            "memory binds: {connections} connections take about {} MiB of this machine, both ends together, and {} MiB are \
             available: ask for at most {} connections",
            memory_bytes >> 20,
            self.memory_bytes >> 20,
            self.memory_bytes / CONNECTION_BYTES
        );
        let files = connections.saturating_mul(2);
        ensure!(
            files <= self.system_files,
            "files of the whole system bind: {connections} connections take {files}, both ends together, and {} are left: as \
             root, sysctl fs.file-max={}",
            self.system_files,
            files.saturating_mul(2)
        );
        let processes = connections.div_ceil(self.files).max(least_processes.min(connections)).max(1);
        ensure!(
            processes < self.processes,
            "processes bind: {connections} connections take {processes} processes of {} files each, and this user may have \
             {}: raise ulimit -n or ulimit -u",
            self.files,
            self.processes
        );
        let each = connections.div_ceil(processes);
        let sources_each = each.div_ceil(self.ports);
        Ok(Plan { processes, sources_each, ports_each: each.div_ceil(sources_each) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Limits = Limits {
        files: 19_744,
        ports: 13_600,
        memory_bytes: 20 << 30,
        system_files: 10_000_000,
        processes: 10_000,
    };

    #[test]
    fn files_and_ports_decide_over_processes_and_addresses() {
        let plan = |limits: Limits, connections, least| limits.plan(connections, least).unwrap();
        assert_eq!(plan(ROOMY, 1_000_000, 1), Plan { processes: 51, sources_each: 2, ports_each: 9_804 });
        let files = Limits { files: 1_000_000, ..ROOMY };
        assert_eq!(plan(files, 1_000_000, 1), Plan { processes: 1, sources_each: 74, ports_each: 13_514 });
        assert_eq!(plan(ROOMY, 3, 2).processes, 2);
        assert_eq!(plan(ROOMY, 1, 8).processes, 1, "no process without a connection");
    }

    #[test]
    fn the_limit_that_binds_is_named_with_what_to_do() {
        let cases = [
            (Limits { memory_bytes: 1 << 30, ..ROOMY }, "memory binds", "at most 80659"),
            (Limits { system_files: 1_000, ..ROOMY }, "whole system", "fs.file-max"),
            (Limits { processes: 50, ..ROOMY }, "processes bind", "ulimit -u"),
            (Limits { files: 0, ..ROOMY }, "may not even open", "ulimit -n"),
        ];
        for (limits, what, advice) in cases {
            let error = limits.plan(1_000_000, 1).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains(advice), "{error}");
        }
        Limits::read().unwrap().plan(10, 1).unwrap();
    }
}
