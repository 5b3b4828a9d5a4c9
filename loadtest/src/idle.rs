//! `loadtest idle --minute`: processor time that idle connections take, of which there is little beside pings.
//!
//! **Owns** connections that are opened evenly over one ping interval, so that their pings are spread as those of clients
//! are that came one by one, and that do nothing but answer pings; and what the server's process uses meanwhile, beside
//! what it uses without any connection.

mod hold;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};

use crate::compare;
use crate::connection::{Transport, open_all};
use crate::cpu::cpu_time;
use crate::files::make_room;
use crate::memory::{Memory, settled_memory};
use hold::Held;

/// Cores that a million connections may take.
pub const CORES_PER_MILLION_GATE: f64 = 1.0;
/// What a WebSocket is sent before anything else: the state.
const FRAMES_FIRST: usize = 1;
/// Steps in which connections are opened.
const STEPS: usize = 25;
/// For how long the process without connections is looked at.
const EMPTY: Duration = Duration::from_secs(10);
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
    pub connections: usize,
    /// How they receive; not [`Transport::Poll`].
    pub transport: Transport,
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

/// Opens them, waits, and counts. `query(n)` says what the n-th asks for.
///
/// # Errors
/// When a limit binds, or the server refuses.
pub async fn idle_minute(
    options: &IdleOptions,
    query: impl Fn(usize) -> String,
    progress: impl Fn(&str),
) -> anyhow::Result<IdleReport> {
    let IdleOptions { public, pid, connections, transport, seconds, .. } = *options;
    ensure!(transport != Transport::Poll, "a poll is not idle: it ends after 50 s");
    make_room(connections)?;
    drop(open_all(public, transport, connections.min(500), &query, |_| ()).await?); // Warms what is there once.
    let before: Memory = settled_memory(pid, Duration::from_secs(30)).await?;
    progress(&format!("without connections: {} s are counted", EMPTY.as_secs()));
    let empty_cores = cores(pid, EMPTY).await?;
    let held = Held::new()?;
    open_evenly(options, &query, &held, &progress).await?;
    sleep(CALM).await;
    let after = Memory::of(pid)?;
    let (pings, started) = (held.pings(), Instant::now());
    let (cpu, mut last) = (cpu_time(pid)?, pings);
    for second in 1..=seconds {
        sleep_until(started + Duration::from_secs(second)).await;
        let now = held.pings();
        progress(&format!("{second} of {seconds} s: {} pings a second, {} closed", now - last, held.closed()));
        last = now;
    }
    let cores = (cpu_time(pid)? - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
    let (pings, closed) = (held.pings() - pings, held.closed());
    held.end()?;
    ensure!(pings > 0, "no ping came: count for longer than the server's limits.ping_interval");
    let per_million = 1e6 / connections as f64;
    let cores_per_million = cores * per_million;
    Ok(IdleReport {
        options: options.clone(),
        bytes_each: after.0.saturating_sub(before.0) / connections as u64,
        empty_cores,
        cores,
        pings,
        closed,
        cores_per_million,
        added_per_million: (cores - empty_cores).max(0.0) * per_million,
        passed: cores_per_million <= CORES_PER_MILLION_GATE && closed == 0,
    })
}

/// Processor time of a process for some time, in seconds per second.
async fn cores(pid: u32, time: Duration) -> anyhow::Result<f64> {
    let (started, before) = (Instant::now(), cpu_time(pid)?);
    sleep(time).await;
    Ok((cpu_time(pid)? - before).as_secs_f64() / started.elapsed().as_secs_f64())
}

async fn open_evenly(
    options: &IdleOptions,
    query: &impl Fn(usize) -> String,
    held: &Held,
    progress: &impl Fn(&str),
) -> anyhow::Result<()> {
    let IdleOptions { public, connections, transport, open_seconds, .. } = *options;
    let (started, mut opened) = (Instant::now(), 0);
    for step in 1..=STEPS {
        let upto = connections * step / STEPS;
        let (count, query) = (upto - opened, |number| query(opened + number));
        if transport == Transport::Ws {
            let path = |number| format!("/v1/events?{}", query(number));
            let more = compare::open_all(public, count, path, FRAMES_FIRST).await?;
            more.into_iter().try_for_each(|socket| held.add(socket.into()))?;
        } else {
            let more = open_all(public, transport, count, query, |_| ()).await?;
            more.into_iter().try_for_each(|connection| held.add(connection.try_into()?))?;
        }
        opened = upto;
        progress(&format!("{opened} of {connections} open"));
        let due = Duration::from_secs(open_seconds) * step as u32 / STEPS as u32;
        sleep_until(started + due).await;
    }
    Ok(())
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
