//! `loadtest million`: as many idle WebSockets as asked for, each with a user and a channel of its own, over the gateways of
//! one cluster; one broadcast to all, unicasts to single users; and what each part of it takes of the machine's memory.
//!
//! **Owns** the course of it: open, wait until every channel is live, sit idle for a counted time, tell all, tell some, look at
//! the memory at each step. The connections are a [`fleet`](crate::fleet)'s. It watches the machine: when too little memory is
//! left it stops, before the kernel chooses whom to kill.

mod html;
mod live;
mod machine;
mod publish;
mod report;
mod up;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rand::Rng as _;
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};

use crate::clock::now_us;
use crate::fleet::{Channels, Counts, Fleet, Follow, Group, Measure, Tally};
use crate::history::Receiving;
use crate::verify::Cluster;
use machine::{Machine, Parts};
use publish::{Names, broadcast, unicasts};
use report::{Idle, Point, Told};

pub use html::html;
pub use report::Report;
pub use up::{Up, gateways_needed};

/// Between two looks at the memory that is left.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// Time for memory to settle after the last connection has opened.
const CALM: Duration = Duration::from_secs(5);
/// What must not come, a repeat for instance, has this long to come. Workers say once a second what they have.
const AFTERMATH: Duration = Duration::from_millis(1_500);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What shall be held and told.
#[derive(Debug, Clone, Serialize)]
pub struct MillionOptions {
    /// How many connections.
    pub connections: u64,
    /// How many open in a second.
    pub rate: f64,
    /// Events to one user each.
    pub unicasts: u64,
    /// How many of them in a second.
    pub unicast_rate: f64,
    /// Seconds for which processor time is counted while nothing happens; 0 for none.
    pub idle_seconds: u64,
    /// It stops when less memory than this is available, in bytes.
    pub least_memory_bytes: u64,
    /// Beyond what the rate asks for, events have so long to come.
    #[serde(skip)]
    pub patience: Duration,
    /// This program, whose processes hold the connections.
    #[serde(skip)]
    pub loadtest: PathBuf,
    /// A fault for tests: this many unicasts are not published.
    #[serde(skip)]
    pub planted_drops: u64,
}

/// Does it all.
///
/// # Errors
/// When a limit of the machine binds, memory runs out, a process is gone, or no more connections open.
pub async fn million(
    options: &MillionOptions,
    cluster: &Cluster,
    progress: impl Fn(&str),
) -> anyhow::Result<Report> {
    let stage = AtomicU64::new(0);
    tokio::select! {
        report = course(options, cluster, &stage, &progress) => report,
        left = memory_runs_out(options.least_memory_bytes) => {
            let (left, open) = (left?, stage.load(Ordering::Relaxed));
            bail!(
                "stopped: {} MiB of memory are available and {} MiB are to stay; {open} connections were open. Ask for fewer \
                 --connections, end what else uses memory, or lower --least-memory-mib",
                left >> 20,
                options.least_memory_bytes >> 20
            )
        }
    }
}

/// Completes when less than this is available; says how much is.
async fn memory_runs_out(least_bytes: u64) -> anyhow::Result<u64> {
    loop {
        let available = Machine::read()?.available_bytes;
        if available < least_bytes {
            return Ok(available);
        }
        sleep(WATCH_INTERVAL).await;
    }
}

async fn course(
    options: &MillionOptions,
    cluster: &Cluster,
    open_now: &AtomicU64,
    progress: &impl Fn(&str),
) -> anyhow::Result<Report> {
    let names = Names::new(format!("{:08x}", rand::rng().random::<u32>()));
    let parts = Parts::of(cluster)?;
    let mut fleet = Fleet::start(&options.loadtest, vec![group(options, cluster, &names)], 1)?;
    progress(&format!("{} to {} gateways\n", fleet.spread(), cluster.gateways.len()));
    let before = live::established(cluster).await?;
    let workers = fleet.pids();
    let empty = parts.read(&workers)?;
    let (started, mut last) = (Instant::now(), 0);
    let mut points = vec![Point { seconds: 0.0, open: 0, memory: empty }];
    let watching = |counts: &Counts| {
        open_now.store(counts.open, Ordering::Relaxed);
        let Ok(now) = parts.read(&workers) else { return };
        let seconds = started.elapsed().as_secs_f64();
        progress(&format!(
            "{} of {} open, {}/s; refused {}, closed {}; gateways {} MiB, {} MiB left",
            counts.open,
            options.connections,
            counts.open.saturating_sub(std::mem::replace(&mut last, counts.open)),
            counts.refused,
            counts.closed,
            now.gateways >> 20,
            now.machine.available_bytes >> 20
        ));
        points.push(Point { seconds, open: counts.open, memory: now });
    };
    fleet.open(options.rate, watching).await?;
    let open_seconds = started.elapsed().as_secs_f64();
    progress(&format!("\nall open after {open_seconds:.0} s\n"));
    let live_seconds = live::wait(cluster, before, options.connections, progress).await?;
    sleep(CALM).await;
    let open = parts.read(&workers)?;
    let idle = idle(options, &parts, &workers, progress).await?;
    progress("one event to all\n");
    let broadcast =
        tell(&mut fleet, options.connections, options.patience, progress, 1.0, broadcast(cluster)).await?;
    let told = parts.read(&workers)?;
    progress(&format!("{} events to one user each\n", options.unicasts));
    let numbers = publish::some_of(options.connections, options.unicasts);
    let publishing = unicasts(cluster, &names, numbers, options.unicast_rate, options.planted_drops);
    let unicasts =
        tell(&mut fleet, options.unicasts, options.patience, progress, options.unicast_rate, publishing)
            .await?;
    let counts = fleet.counts()?;
    progress("closing the connections\n");
    Ok(Report {
        options: options.clone(),
        gateways: cluster.gateways.len(),
        routers: cluster.routers.len(),
        workers: workers.len(),
        open_seconds,
        live_seconds,
        refused: counts.refused,
        closed: counts.closed,
        empty,
        open,
        told,
        idle,
        passed: broadcast.is_whole() && unicasts.is_whole() && counts.closed == 0,
        broadcast,
        unicasts,
        points,
    })
}

fn group(options: &MillionOptions, cluster: &Cluster, names: &Names) -> Group {
    Group {
        transport: Receiving::Ws,
        connections: options.connections,
        gateways: cluster.gateways.iter().map(|gateway| gateway.public).collect(),
        follow: Follow {
            channel: Some(names.channel("{c}")),
            channels: Channels::Own,
            user: Some(names.user("{n}")),
        },
        first: 0,
        poll_interval_ms: 0,
        keeps_cursor: false,
        targets: Some(1),
    }
}

/// Processor time of each part while nothing happens but pings.
async fn idle(
    options: &MillionOptions,
    parts: &Parts,
    workers: &[u32],
    progress: &impl Fn(&str),
) -> anyhow::Result<Option<Idle>> {
    let seconds = options.idle_seconds;
    if seconds == 0 {
        return Ok(None);
    }
    let (started, before) = (Instant::now(), parts.processor_time(workers)?);
    for second in 1..=seconds {
        sleep_until(started + Duration::from_secs(second)).await;
        progress(&format!("idle: {second} of {seconds} s"));
    }
    let cores = parts.processor_time(workers)?.cores_since(&before, started.elapsed());
    progress("\n");
    let cores_per_million = cores.gateways * 1e6 / options.connections as f64;
    Ok(Some(Idle { seconds, cores, cores_per_million }))
}

/// Publishes, waits until everything has come, and says what did.
async fn tell(
    fleet: &mut Fleet,
    owed: u64,
    patience: Duration,
    progress: &impl Fn(&str),
    rate: f64,
    publishing: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Told> {
    fleet.measure(Measure { begin_us: now_us(), slot_us: 1_000_000, window_us: (0, u64::MAX) })?;
    let started = Instant::now();
    publishing.await.context("publish")?;
    let deadline = Instant::now() + patience + Duration::from_secs_f64(owed as f64 / rate.max(50_000.0));
    loop {
        let counts = fleet.counts()?;
        progress(&format!("{} of {owed} have come", counts.received));
        if counts.received >= owed || Instant::now() > deadline {
            break;
        }
        sleep(LOOK_INTERVAL).await;
    }
    sleep(AFTERMATH).await;
    progress("\n");
    let tallies = fleet.collect().await?;
    let mut all = Tally::default();
    tallies.iter().for_each(|tally| all.merge(tally));
    let elapsed = started.elapsed().as_secs_f64();
    Ok(Told::new(owed, &all, elapsed))
}
