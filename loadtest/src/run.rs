//! `loadtest run`: a scenario, from the first connection to the report.
//!
//! **Owns** the course of a run: connect at a set rate, let memory settle, publish at a set rate, drop and return where the
//! scenario says so, wait until everything has come, and count what has not. Receivers are a [`crate::fleet`], publishers
//! speak gRPC, and what the servers use is read from their `/proc` entries.

mod html;
mod publish;
mod report;
mod servers;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::Rng as _;
use tokio::time::sleep;

use crate::clock::now_us;
use crate::fleet::{Counts, Drop, Fleet, Group, Measure};
use crate::scenario::Scenario;
use publish::{Load, Published, publish};

pub use html::html;
pub use report::{GroupReport, RunReport, Second};
pub use servers::{Servers, Used};

/// Between the last connection and the first event.
const CALM_US: u64 = 1_000_000;
/// Time after the last event in which everything must have come.
const GRACE_US: u64 = 10_000_000;
/// What must not come after everything has come, a repeat for instance, has this long to come.
const AFTERMATH: Duration = Duration::from_millis(1_200);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Of each group, before memory is read for the first time.
const WARM_CONNECTIONS: u64 = 200;
/// Slots of the time line: one a second, or fewer when a run is long.
const SLOTS: u64 = 600;

/// What shall be run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// What the scenario is called.
    pub name: String,
    /// What happens.
    pub scenario: Scenario,
    /// Whom it happens to.
    pub servers: Servers,
    /// This program: it starts the receivers.
    pub loadtest: PathBuf,
    /// At least so many processes of receivers.
    pub least_workers: u64,
    /// Wait for memory to settle: otherwise the figures of memory mean little.
    pub settles: bool,
    /// A fault for tests: this event is said to be published, and is not.
    pub planted_drop: Option<u64>,
}

/// Runs it.
///
/// # Errors
/// When a limit binds, a server is gone or refuses, or connections do not open.
pub async fn run(options: &RunOptions, progress: impl Fn(&str)) -> anyhow::Result<RunReport> {
    let RunOptions { scenario, servers, .. } = options;
    let prefix = format!("load-{:08x}", rand::rng().random::<u32>());
    let groups = groups(scenario, servers, &prefix);
    let mut fleet = Fleet::start(&options.loadtest, groups.clone(), options.least_workers)?;
    progress(&format!("{}\n", fleet.spread()));
    if options.settles {
        warm(options).await?;
    }
    let memory_before = servers.memory(options.settles).await?;
    let wanted = scenario.connections();
    fleet
        .open(scenario.ramp_rate, |counts| progress(&format!("{} of {wanted} connections open", counts.open)))
        .await?;
    progress(&format!("all {wanted} are open\n"));
    let memory_open = servers.memory(options.settles).await?;
    let times = Times::new(scenario);
    fleet.measure(times.measure)?;
    let publishing = tokio::spawn(publish(Load {
        routers: servers.api.clone(),
        follow: scenario.follow(&prefix),
        targets: scenario.targets(),
        kind: scenario.publish.kind,
        rate: scenario.publish.rate,
        bytes: scenario.publish.bytes,
        begin_us: times.measure.begin_us,
        end_us: times.end_us,
        planted_drop: options.planted_drop,
    }));
    let cpu = course(scenario, &times, servers, &mut fleet, &progress).await?;
    let published = publishing.await.context("the publisher's task ended")??;
    let expected: Vec<_> = groups.iter().map(|group| expected(group, &published)).collect();
    let counts = wait_for(expected.iter().sum(), &fleet, &times).await?;
    let tallies = fleet.collect().await?;
    let used = servers.used((&memory_before, &memory_open), (&cpu.0, &cpu.1));
    let spread = fleet.spread();
    Ok(RunReport::new(options, &published, &expected, &tallies, used, spread, counts.last_problem))
}

/// Opens a few connections and drops them: what a server makes once is there then, and no connection is blamed for it.
async fn warm(options: &RunOptions) -> anyhow::Result<()> {
    let RunOptions { scenario, servers, .. } = options;
    let prefix = format!("warm-{:08x}", rand::rng().random::<u32>());
    let mut few = groups(scenario, servers, &prefix);
    few.iter_mut().for_each(|group| group.connections = group.connections.min(WARM_CONNECTIONS));
    Fleet::start(&options.loadtest, few, 1)?.open(scenario.ramp_rate, |_| ()).await
}

/// When what happens.
struct Times {
    measure: Measure,
    /// Nothing is published from then on.
    end_us: u64,
}

impl Times {
    fn new(scenario: &Scenario) -> Self {
        let begin_us = now_us() + CALM_US;
        let window_us = begin_us + scenario.warm_up_seconds * 1_000_000;
        let end_us = window_us + scenario.seconds * 1_000_000;
        let slot_us = slot_seconds(scenario) * 1_000_000;
        let measure = Measure { begin_us, slot_us, window_us: (window_us, end_us) };
        Self { measure, end_us }
    }
}

/// How long a slot of the time line is.
fn slot_seconds(scenario: &Scenario) -> u64 {
    (scenario.warm_up_seconds + scenario.seconds).div_ceil(SLOTS).max(1)
}

/// The connections of a scenario. They are numbered through.
fn groups(scenario: &Scenario, servers: &Servers, prefix: &str) -> Vec<Group> {
    let mut first = 0;
    let group = |clients: &crate::scenario::Clients| {
        let group = Group {
            transport: clients.transport,
            connections: clients.connections,
            gateways: servers.public.clone(),
            follow: scenario.follow(prefix),
            first,
            poll_interval_ms: clients.poll_interval_ms,
            keeps_cursor: scenario.storm.as_ref().is_some_and(|storm| storm.clients == clients.name()),
            targets: Some(scenario.targets()),
        };
        first += clients.connections;
        group
    };
    scenario.clients.iter().map(group).collect()
}

/// Deliveries that are owed to a group.
fn expected(group: &Group, published: &Published) -> u64 {
    let of = |number| published.accepted.get(number as usize).copied().unwrap_or(0);
    let numbers = group.first..group.first + group.connections;
    numbers.flat_map(|number| group.follow.numbers(number)).map(of).sum()
}

/// Processor time of each server at the beginning and at the end of the window.
type CpuTimes = (Vec<Duration>, Vec<Duration>);

/// From now until nothing more is published; reads the servers' processor time on the way, and drops who is to be dropped.
async fn course(
    scenario: &Scenario,
    times: &Times,
    servers: &Servers,
    fleet: &mut Fleet,
    progress: &impl Fn(&str),
) -> anyhow::Result<CpuTimes> {
    let (from_us, to_us) = times.measure.window_us;
    let mut storm_at = scenario.storm.as_ref().map(|storm| (from_us + storm.at_second * 1_000_000, storm));
    let (mut cpu, mut next_us, mut last) = (None, times.measure.begin_us, Counts::default());
    while next_us < to_us {
        next_us = (next_us + 1_000_000).min(to_us);
        let wake_us = [Some(from_us).filter(|_| cpu.is_none()), storm_at.map(|(at_us, _)| at_us)];
        for at_us in wake_us.into_iter().flatten().filter(|at_us| *at_us <= next_us) {
            sleep_until(at_us).await;
            if storm_at.is_some_and(|(storm_us, _)| storm_us == at_us)
                && let Some((_, storm)) = storm_at.take()
            {
                let named = scenario.clients.iter().position(|clients| clients.name() == storm.clients);
                let group = named.context("no clients of the storm's name")?;
                fleet.drop_group(Drop { group, away_us: storm.away_ms * 1_000, rate: storm.return_rate })?;
                progress(&format!("{} drop\n", storm.clients));
            }
            if at_us == from_us && cpu.is_none() {
                cpu = Some(servers.cpu()?);
            }
        }
        sleep_until(next_us).await;
        let counts = fleet.counts()?;
        progress(&format!(
            "{:3} of {} s: {} deliveries/s, {} open, {} closed, {} twice",
            next_us.saturating_sub(times.measure.begin_us) / 1_000_000,
            scenario.warm_up_seconds + scenario.seconds,
            counts.received.saturating_sub(last.received),
            counts.open,
            counts.closed,
            counts.twice,
        ));
        last = counts;
    }
    let cpu = cpu.context("a run without a window")?;
    Ok((cpu, servers.cpu()?))
}

async fn sleep_until(at_us: u64) {
    sleep(Duration::from_micros(at_us.saturating_sub(now_us()))).await;
}

/// Until everything has come, and a little longer; or until it will not come any more.
async fn wait_for(owed: u64, fleet: &Fleet, times: &Times) -> anyhow::Result<Counts> {
    ensure!(owed > 0, "nothing was published: is the rate so low that nothing was due?");
    while fleet.counts()?.received < owed && now_us() < times.end_us + GRACE_US {
        sleep(LOOK_INTERVAL).await;
    }
    sleep(AFTERMATH).await;
    fleet.counts()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_to_a_group_are_the_events_of_what_its_connections_follow() {
        let text = "about = \"\"\nseconds = 1\n[channels]\nshape = \"some\"\nfollow = 2\nof = 4\n[[clients]]\n\
                    transport = \"ws\"\nconnections = 3\n[[clients]]\ntransport = \"sse\"\nconnections = 1\n[publish]\n\
                    rate = 1\nbytes = 32\n";
        let scenario = Scenario::parse(text).unwrap();
        let servers = Servers::alone(([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into(), None);
        let groups = groups(&scenario, &servers, "p");
        let published = Published { accepted: vec![1, 10, 100, 1_000], ..Published::default() };
        // 0 and 1; 2 and 3; 0 and 1 again; the other group's goes on with 2 and 3.
        assert_eq!(
            groups.iter().map(|group| expected(group, &published)).collect::<Vec<_>>(),
            [1_122, 1_100]
        );
    }
}
