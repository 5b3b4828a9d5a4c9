//! One measurement of one system.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::time::sleep;

use super::CompareOptions;
use super::open::open_all;
use super::publish::Load;
use super::receive::{self, Shared, Tally};
use super::schedule::Schedule;
use super::system::{FloorProcess, Sender, System, Target};
use crate::clock::now_us;
use crate::cpu::cpu_time_of_all;
use crate::histogram::{Histogram, Quantiles};

/// Between the last socket that is open and the first event: what opening has left behind is done by then.
const CALM_US: u64 = 1_000_000;
/// Time after the last event in which everything must have come.
const GRACE: Duration = Duration::from_secs(10);
/// What must not come after everything has come, a repeat for instance, has this long to come.
const AFTERMATH: Duration = Duration::from_millis(300);
/// How often it is looked whether everything has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What one system did within one window.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// Which.
    pub system: System,
    /// Events that were sent to every socket, before and after the window too.
    pub events: u64,
    /// Deliveries that came within the window.
    pub deliveries: u64,
    /// Length of the window.
    pub seconds: f64,
    /// Processor time of the server's processes within it.
    pub cpu_seconds: f64,
    /// What it is all about.
    pub deliveries_per_cpu_second: f64,
    /// How busy they were kept.
    pub deliveries_per_second: f64,
    /// On the wire above TCP, within the window.
    pub bytes_per_delivery: f64,
    /// From when an event was meant to be sent until a receiver had read it.
    pub latency: Quantiles,
    /// Deliveries that never came.
    pub lost: u64,
    /// That came again.
    pub duplicated: u64,
    /// Sockets that the server closed.
    pub closed: u64,
    /// Times that the floor found a socket's buffer full.
    pub floor_waits: u64,
    /// Deliveries by the time they came, in slices of 250 ms since the first event was due.
    pub slices: Vec<u64>,
    #[serde(skip)]
    pub(super) latencies: Histogram,
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deliveries, cpu_seconds, lost, duplicated, closed, latency, .. } = self;
        write!(
            f,
            "{:7.0} deliveries per CPU-second ({deliveries} in {cpu_seconds:.2} s), {:.0}/s, p50 {:.1} ms, p99 {:.1} ms, \
             lost {lost}, twice {duplicated}",
            self.deliveries_per_cpu_second, self.deliveries_per_second, latency.p50_ms, latency.p99_ms
        )?;
        if *closed > 0 {
            write!(f, ", closed {closed}")?;
        }
        Ok(())
    }
}

/// Opens the sockets, lets events come, and counts.
pub(super) async fn measure(
    system: System,
    options: &CompareOptions,
    target: Target,
    progress: impl Fn(&str),
) -> anyhow::Result<Measurement> {
    progress("opening");
    let sockets = open_all(&target.door, options.sockets).await?;
    let schedule = Schedule {
        begin_us: now_us() + CALM_US,
        rate: options.rate(),
        warm_seconds: options.warm_seconds,
        seconds: options.seconds,
    };
    let shared = Arc::new(Shared::default());
    let _receivers_end = StopOnDrop(Arc::clone(&shared));
    let receivers = receive::spawn(sockets, options.receiver_threads, schedule, &shared)?;
    let load = Load {
        schedule,
        sockets: options.sockets as u64,
        bytes: options.bytes,
        in_flight: options.in_flight,
    };
    let (sent, cpu) = tokio::try_join!(
        send(target.sender, load, Arc::clone(&shared)),
        processor_time(&target.pids, schedule, &shared, &progress),
    )?;
    let owed = sent.events * options.sockets as u64;
    wait_for(owed, &shared).await;
    shared.stop.store(true, Ordering::Relaxed);
    let mut tally = Tally::default();
    for receiver in receivers {
        tally.merge(&receiver.join().map_err(|_| anyhow::anyhow!("a receiver's thread ended"))??);
    }
    ensure!(
        cpu > Duration::ZERO,
        "the server used no processor time that could be counted: measure for longer"
    );
    let (window_us, cpu_seconds) = (schedule.window_us(), cpu.as_secs_f64());
    let seconds = (window_us.1 - window_us.0) as f64 / 1e6;
    let deliveries = tally.in_window;
    Ok(Measurement {
        system,
        events: sent.events,
        deliveries,
        seconds,
        cpu_seconds,
        deliveries_per_cpu_second: deliveries as f64 / cpu_seconds,
        deliveries_per_second: deliveries as f64 / seconds,
        bytes_per_delivery: tally.window_bytes as f64 / deliveries.max(1) as f64,
        latency: tally.latencies.quantiles(),
        lost: owed.saturating_sub(tally.received),
        duplicated: tally.duplicated,
        closed: tally.closed,
        floor_waits: sent.floor_waits,
        slices: tally.slices,
        latencies: tally.latencies,
    })
}

/// Whatever ends a measurement: its receivers do not go on.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

struct Sent {
    events: u64,
    floor_waits: u64,
    /// It keeps its sockets open while it lives.
    _floor: Option<FloorProcess>,
}

async fn send(sender: Sender, load: Load, shared: Arc<Shared>) -> anyhow::Result<Sent> {
    match sender {
        Sender::Publisher(publisher) => {
            Ok(Sent { events: publisher.run(load, shared).await?, floor_waits: 0, _floor: None })
        }
        Sender::Floor(mut floor) => {
            let begin_us = load.schedule.begin_us;
            let run = move || -> anyhow::Result<Sent> {
                floor.begin(begin_us)?;
                let sent = floor.sent()?;
                Ok(Sent { events: sent.broadcasts, floor_waits: sent.waits, _floor: Some(floor) })
            };
            tokio::task::spawn_blocking(run).await.context("waiting for the floor")?
        }
    }
}

/// Of these processes within the window. Once a second it says how far things are.
async fn processor_time(
    pids: &[u32],
    schedule: Schedule,
    shared: &Shared,
    progress: &impl Fn(&str),
) -> anyhow::Result<Duration> {
    let (from_us, to_us) = schedule.window_us();
    sleep_until(from_us).await;
    let before = cpu_time_of_all(pids)?;
    let mut last = shared.received.load(Ordering::Relaxed);
    for second in 1..=schedule.seconds {
        sleep_until((from_us + second * 1_000_000).min(to_us)).await;
        let received = shared.received.load(Ordering::Relaxed);
        progress(&format!("{second} of {} s: {} deliveries/s", schedule.seconds, received - last));
        last = received;
    }
    Ok(cpu_time_of_all(pids)? - before)
}

async fn sleep_until(at_us: u64) {
    sleep(Duration::from_micros(at_us.saturating_sub(now_us()))).await;
}

/// Until everything has come, and a little longer; or until it will not come any more.
async fn wait_for(owed: u64, shared: &Shared) {
    let deadline = now_us() + GRACE.as_micros() as u64;
    while shared.received.load(Ordering::Relaxed) < owed && now_us() < deadline {
        sleep(LOOK_INTERVAL).await;
    }
    sleep(AFTERMATH).await;
}
