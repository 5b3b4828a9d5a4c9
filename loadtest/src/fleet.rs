//! A fleet of receivers: as many connections as are asked for, on any transport, at little cost.
//!
//! **Owns** worker processes of this same program, as many as the limit of open files asks for, each with source addresses
//! 127.0.1.1, 127.0.1.2, … of its own, as many as half the range of ports asks for. A worker is one thread with one epoll: no
//! runtime, no buffer per socket. They are told what to do, and say how things stand, in lines of JSON; what they counted is
//! merged as histograms. A connection that a server ends comes back, and is counted as closed. **Does not** publish.

mod conn;
mod count;
mod hearing;
mod order;
mod plan;
mod process;
mod reader;
mod share;
mod worker;

use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure};
use tokio::time::{Instant, sleep};

use order::{Open, Order};
use plan::{Limits, Plan};
use process::Process;

pub use count::Tally;
pub use order::{Channels, Counts, Drop, Follow, Group, Measure};
pub use worker::run as work;

/// The hidden subcommand of a worker.
pub const WORKER_COMMAND: &str = "fleet-worker";
/// Connections that open at the same time, of all workers together: where the machine takes longer, they open more slowly, and
/// what is open already goes on being answered.
const OPENING_LIMIT: u64 = 256;
/// So many workers open their connections at the same time, those of as many gateways or a few more: what a gateway says to
/// routers and registry of connections that come together it says at once, and 53 gateways with 11 a second each cost a
/// machine three times as much as 6 with 100.
const WORKERS_OPENING: usize = 8;
/// How often it is looked whether something has happened.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// [`Fleet::patience`], as a rule.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time for the workers to say what they counted.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Worker processes and their connections. They end when it is dropped.
pub struct Fleet {
    workers: Vec<Process>,
    groups: Vec<Group>,
    plan: Plan,
    /// Of the workers that open their connections, so many were told to.
    told: usize,
    /// Connections a second, of all together.
    rate: f64,
    collected: u64,
    /// Beyond what the rate asks for, this long may pass without one more connection opening.
    pub patience: Duration,
}

impl Fleet {
    /// Starts the workers, at least so many; opens nothing yet. `loadtest` is this program.
    ///
    /// # Errors
    /// When a limit of this machine binds: which, and what to do. When the program does not start.
    pub fn start(loadtest: &Path, groups: Vec<Group>, least_workers: u64) -> anyhow::Result<Self> {
        for group in &groups {
            ensure!(!group.gateways.is_empty(), "connections without a gateway to connect to");
        }
        let connections = groups.iter().map(|group| group.connections).sum();
        let plan = Limits::read()?.plan(connections, least_workers)?;
        let workers = (0..plan.processes).map(|_| Process::start(loadtest)).collect::<anyhow::Result<_>>()?;
        Ok(Self { workers, groups, plan, told: 0, rate: 0.0, collected: 0, patience: PATIENCE })
    }

    /// How the connections are spread, for people.
    #[must_use]
    pub fn spread(&self) -> String {
        let Plan { processes, sources_each, .. } = self.plan;
        let connections: u64 = self.groups.iter().map(|group| group.connections).sum();
        format!(
            "{connections} connections from {processes} processes and {} source addresses",
            processes * sources_each
        )
    }

    /// The workers' process ids.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.workers.iter().map(Process::pid).collect()
    }

    /// Opens all, so many a second, eight workers' at a time; waits until all follow. `progress` hears how things stand.
    ///
    /// # Errors
    /// When a worker has a problem, or for too long no more connections open: with what the last one heard.
    pub async fn open(&mut self, rate: f64, mut progress: impl FnMut(&Counts)) -> anyhow::Result<()> {
        let wanted: u64 = self.groups.iter().map(|group| group.connections).sum();
        self.rate = rate;
        self.wait_for_open(wanted, Duration::from_secs_f64(1.0 / rate.max(0.001)), &mut progress).await
    }

    /// Tells further workers to open their connections while fewer than may are about it.
    fn open_further(&mut self) -> anyhow::Result<()> {
        let (parts, together) = (self.workers.len(), self.workers.len().min(WORKERS_OPENING));
        while self.told < parts {
            let mut opening = 0;
            for (worker, part) in self.workers[..self.told].iter().zip(0..) {
                opening += usize::from(worker.counts()?.open < self.share(part));
            }
            if opening >= together {
                break;
            }
            let part = self.told as u64;
            self.workers[self.told].tell(&Order::Open(Open {
                groups: self.groups.clone(),
                part,
                parts: parts as u64,
                source: part * self.plan.sources_each,
                ports_each: self.plan.ports_each,
                rate: (self.rate / together as f64).max(0.001),
                at_once: OPENING_LIMIT / together as u64,
            }))?;
            self.told += 1;
        }
        Ok(())
    }

    /// How many connections a worker has.
    fn share(&self, part: u64) -> u64 {
        let sizes = self.groups.iter().map(|group| {
            let places = share::places(group.connections, part, self.workers.len() as u64);
            places.end - places.start
        });
        sizes.sum()
    }

    /// Waits until so many follow.
    ///
    /// # Errors
    /// As [`Fleet::open`].
    pub async fn wait_for_open(
        &mut self,
        wanted: u64,
        between: Duration,
        progress: &mut impl FnMut(&Counts),
    ) -> anyhow::Result<()> {
        let (mut best, mut deadline) = (0, Instant::now() + self.patience + between);
        let mut shown = Instant::now();
        loop {
            self.open_further()?;
            let counts = self.counts()?;
            if shown.elapsed() >= Duration::from_secs(1) || counts.open >= wanted {
                progress(&counts);
                shown = Instant::now();
            }
            if counts.open >= wanted {
                return Ok(());
            }
            if counts.open > best {
                (best, deadline) = (counts.open, Instant::now() + self.patience + between);
            }
            if Instant::now() > deadline {
                let Counts { open, refused, closed, last_problem, .. } = counts;
                let said = last_problem.unwrap_or_else(|| "nothing".to_owned());
                bail!(
                    "{open} of {wanted} connections are open and for {} s no more came; {refused} refused, {closed} closed; \
                     the last one heard: {said}",
                    self.patience.as_secs()
                );
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// How things stand, not older than a second.
    ///
    /// # Errors
    /// When a worker has a problem or is gone.
    pub fn counts(&self) -> anyhow::Result<Counts> {
        let mut all = Counts::default();
        for worker in &self.workers {
            all.add(&worker.counts()?);
        }
        Ok(all)
    }

    /// Forgets what was counted, and counts this from now on.
    ///
    /// # Errors
    /// When a worker is gone.
    pub fn measure(&mut self, measure: Measure) -> anyhow::Result<()> {
        self.tell_all(&Order::Measure(measure))
    }

    /// Drops the connections of a group; they come back. `rate` is of the whole fleet.
    ///
    /// # Errors
    /// When a worker is gone.
    pub fn drop_group(&mut self, storm: Drop) -> anyhow::Result<()> {
        let rate = storm.rate / self.workers.len() as f64;
        self.tell_all(&Order::Drop(Drop { rate, ..storm }))
    }

    fn tell_all(&mut self, order: &Order) -> anyhow::Result<()> {
        self.workers.iter_mut().try_for_each(|worker| worker.tell(order))
    }

    /// What was counted since measuring began, by group.
    ///
    /// # Errors
    /// When a worker has a problem, is gone, or does not answer in a minute.
    pub async fn collect(&mut self) -> anyhow::Result<Vec<Tally>> {
        self.collected += 1;
        self.tell_all(&Order::Collect(self.collected))?;
        let deadline = Instant::now() + COLLECT_TIMEOUT;
        let mut all = vec![Tally::default(); self.groups.len()];
        for worker in &self.workers {
            let tallies = loop {
                worker.counts()?;
                if let Some(tallies) = worker.take_tallies(self.collected) {
                    break tallies;
                }
                ensure!(Instant::now() < deadline, "a worker does not say what it counted");
                sleep(LOOK_INTERVAL).await;
            };
            all.iter_mut().zip(&tallies).for_each(|(own, others)| own.merge(others));
        }
        Ok(all)
    }
}

impl std::ops::Drop for Fleet {
    /// All at once: the kernel takes a while for each worker's sockets.
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(Process::end);
    }
}
