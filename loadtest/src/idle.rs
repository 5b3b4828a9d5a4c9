//! `loadtest idle --minute`: processor time that idle connections take, of which there is little beside pings.
//!
//! **Owns** connections that are opened evenly over one ping interval, so that their pings are spread as those of clients
//! are that came one by one, and that do nothing but answer pings; and what the server's process uses meanwhile, beside
//! what it uses without any connection.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};

use crate::connection::{Transport, open_all};
use crate::cpu::cpu_time;
use crate::fleet::{Fleet, Follow, Group};
use crate::history::Receiving;
use crate::memory::{Memory, settled_memory};

/// Cores that a million connections may take.
pub const CORES_PER_MILLION_GATE: f64 = 1.0;
/// Connections that come and go before anything is counted.
const WARMING: usize = 500;
/// Between the last connection that opens and the window: what opening has left behind is done by then.
const CALM: Duration = Duration::from_secs(3);

/// What shall be held.
#[derive(Debug, Clone, Serialize)]
pub struct IdleOptions {
    /// The server's public port.
    pub public: SocketAddr,
    /// The server's process.
    pub pid: u32,
    /// How many connections.
    pub connections: u64,
    /// How they receive; not [`Transport::Poll`].
    pub transport: Transport,
    /// What they follow.
    pub follow: Follow,
    /// Seconds for which the process is looked at before.
    pub empty_seconds: u64,
    /// Seconds over which they are opened: the server's ping interval.
    pub open_seconds: u64,
    /// Seconds that are counted.
    pub seconds: u64,
}

/// What it took.
#[derive(Debug, Clone, Serialize)]
pub struct IdleReport {
    /// What was asked for.
    pub options: IdleOptions,
    /// User memory of a connection, in bytes.
    pub bytes_each: u64,
    /// Processor time of the process without connections, in seconds per second.
    pub empty_cores: f64,
    /// The same with them.
    pub cores: f64,
    /// Pings that came in the window: WebSocket frames, or what stands for a ping on the other transports.
    pub pings: u64,
    /// Connections that the server closed.
    pub closed: u64,
    /// Processor time of a million connections on processes of this size, in cores: all of it, that of the empty process too.
    pub cores_per_million: f64,
    /// The same of what the connections add.
    pub added_per_million: f64,
    /// The gate is reached and none was closed.
    pub passed: bool,
}

/// Opens them, waits, and counts. `loadtest` is this program, whose processes hold the connections.
///
/// # Errors
/// When a limit binds, or the server refuses.
pub async fn idle_minute(
    options: &IdleOptions,
    loadtest: &Path,
    progress: impl Fn(&str),
) -> anyhow::Result<IdleReport> {
    let IdleOptions { public, pid, connections, seconds, .. } = *options;
    let mut fleet = Fleet::start(loadtest, vec![group(options)?], 1)?;
    let user = options.follow.user.is_some();
    let warming = |number| {
        let who = if user { format!("&user=load-warm-{number}") } else { String::new() };
        format!("channel=load:idle-warm{who}")
    };
    drop(open_all(public, Transport::Ws, WARMING, warming, |_| ()).await?); // Warms what is there once.
    let before: Memory = settled_memory(pid, Duration::from_secs(30)).await?;
    progress(&format!("without connections: {} s are counted", options.empty_seconds));
    let empty_cores = cores(pid, Duration::from_secs(options.empty_seconds)).await?;
    let rate = connections as f64 / options.open_seconds.max(1) as f64;
    fleet.open(rate, |counts| progress(&format!("{} of {connections} open", counts.open))).await?;
    sleep(CALM).await;
    let after = Memory::of(pid)?;
    let (first, started, cpu) = (fleet.counts()?, Instant::now(), cpu_time(pid)?);
    let mut last = first.clone();
    for second in 1..=seconds {
        sleep_until(started + Duration::from_secs(second)).await;
        let now = fleet.counts()?;
        let (pings, closed) = (now.pings - last.pings, now.closed);
        progress(&format!("{second} of {seconds} s: {pings} pings a second, {closed} closed"));
        last = now;
    }
    let cores = (cpu_time(pid)? - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
    let (pings, closed) = (last.pings - first.pings, last.closed);
    ensure!(pings > 0, "no ping came: count for longer than the server's limits.ping_interval");
    let per_million = 1e6 / connections as f64;
    let cores_per_million = cores * per_million;
    Ok(IdleReport {
        options: options.clone(),
        bytes_each: after.0.saturating_sub(before.0) / connections,
        empty_cores,
        cores,
        pings,
        closed,
        cores_per_million,
        added_per_million: (cores - empty_cores).max(0.0) * per_million,
        passed: cores_per_million <= CORES_PER_MILLION_GATE && closed == 0,
    })
}

fn group(options: &IdleOptions) -> anyhow::Result<Group> {
    let transport = match options.transport {
        Transport::Ws => Receiving::Ws,
        Transport::Sse => Receiving::Sse,
        Transport::Ndjson => Receiving::Ndjson,
        Transport::Poll => bail!("a poll is not idle: it ends after 50 s"),
    };
    Ok(Group {
        transport,
        connections: options.connections,
        gateways: vec![options.public],
        follow: options.follow.clone(),
        first: 0,
        poll_interval_ms: 0,
        keeps_cursor: false,
        targets: None,
    })
}

/// Processor time of a process for some time, in seconds per second.
async fn cores(pid: u32, time: Duration) -> anyhow::Result<f64> {
    let (started, before) = (Instant::now(), cpu_time(pid)?);
    sleep(time).await;
    Ok((cpu_time(pid)? - before).as_secs_f64() / started.elapsed().as_secs_f64())
}

impl fmt::Display for IdleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, bytes_each, empty_cores, cores, pings, closed, .. } = self;
        let IdleOptions { connections, transport, seconds, .. } = options;
        writeln!(
            f,
            "{connections} idle {transport:?} connections, {seconds} s counted\n\n\
             pings                                   {pings:>10}  ({:.2} each)\n\
             cores, without connections              {empty_cores:>10.4}\n\
             cores, with them                        {cores:>10.4}\n\
             µs for each ping that was answered      {:>10.1}\n\
             cores per 1,000,000 connections         {:>10.3}\n\
             of it what connections add              {:>10.3}\n\
             user memory each, bytes                 {bytes_each:>10}\n",
            *pings as f64 / *connections as f64,
            (cores - empty_cores).max(0.0) * *seconds as f64 * 1e6 / *pings as f64,
            self.cores_per_million,
            self.added_per_million,
        )?;
        let stands = if self.passed { "passed" } else { "missed" };
        write!(
            f,
            "GATE {stands}: {:.3} cores per 1,000,000 connections, limit {CORES_PER_MILLION_GATE:.0}; {closed} closed",
            self.cores_per_million
        )
    }
}
