//! One measurement: polls that go on, events now and then, and the server's processor time within the window.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::Rng as _;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};

use super::PollsOptions;
use super::client::{self, Shared};
use super::report::Report;
use crate::clock::now_us;
use crate::cpu::cpu_time;
use crate::files::make_room;
use crate::mark::Mark;
use crate::publisher::PublishConn;

/// Time for every connection to have its first answer, and at the end for every event to be found.
const PATIENCE: Duration = Duration::from_secs(20);
/// What must not come, a repeat for instance, has this long to come.
const AFTERMATH: Duration = Duration::from_millis(300);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Bytes of an event's data.
const EVENT_BYTES: usize = 100;

/// Polls, and counts.
///
/// # Errors
/// When the server cannot be reached, refuses, or answers with anything but 200 and 304.
pub async fn polls(options: &PollsOptions, progress: impl Fn(&str)) -> anyhow::Result<Report> {
    make_room(options.connections)?;
    let prefix = format!("load:polls-{:08x}", rand::rng().random::<u32>());
    let channels: Vec<_> = (0..options.channels.max(1)).map(|number| format!("{prefix}-{number}")).collect();
    let query: Vec<_> = channels.iter().map(|channel| format!("channel={channel}")).collect();
    let path = format!("/v1/events?{}", query.join("&"));
    let shared = Arc::new(Shared::default());
    let _pollers_end = StopOnDrop(Arc::clone(&shared));
    let mut pollers = tokio::task::spawn_blocking({
        let (shared, server) = (Arc::clone(&shared), options.public);
        let (connections, planted_repeat) = (options.connections, options.planted_repeat);
        move || client::run(server, &path, connections, planted_repeat, &shared)
    });
    let measured = tokio::select! {
        ended = &mut pollers => {
            ended.context("the polling thread ended")??;
            anyhow::bail!("the polling thread ended too early")
        }
        measured = measure(options, channels[0].clone(), &shared, &progress) => measured?,
    };
    shared.stop.store(true, Ordering::Relaxed);
    pollers.await.context("the polling thread ended")??;
    Ok(measured)
}

/// Whatever ends a measurement: its pollers do not go on.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

async fn measure(
    options: &PollsOptions,
    channel: String,
    shared: &Arc<Shared>,
    progress: &impl Fn(&str),
) -> anyhow::Result<Report> {
    let connections = options.connections as u64;
    until(|| shared.changed.load(Ordering::Relaxed) >= connections)
        .await
        .with_context(|| format!("not every connection had an answer within {PATIENCE:?}"))?;
    let publisher = Publisher::spawn(options, channel);
    sleep(Duration::from_secs(options.warm_seconds)).await;
    let (from, cpu_before) = (Instant::now(), cpu_time(options.pid)?);
    let (unchanged_before, changed_before) = read(shared);
    let mut last = unchanged_before;
    for second in 1..=options.seconds {
        tokio::time::sleep_until(from + Duration::from_secs(second)).await;
        let now = shared.unchanged.load(Ordering::Relaxed);
        progress(&format!("{second} of {} s: {} answers 304 a second", options.seconds, now - last));
        last = now;
    }
    let (seconds, cpu) = (from.elapsed().as_secs_f64(), cpu_time(options.pid)? - cpu_before);
    let (unchanged, changed) = read(shared);
    let published = publisher.end().await?;
    let owed = published * connections;
    let _what_is_missing_is_lost = until(|| shared.events.load(Ordering::Relaxed) >= owed).await;
    sleep(AFTERMATH).await;
    ensure!(
        cpu > Duration::ZERO,
        "the server used no processor time that could be counted: measure for longer"
    );
    Ok(Report::new(
        options.clone(),
        seconds,
        cpu.as_secs_f64(),
        unchanged - unchanged_before,
        changed - changed_before,
        (published, owed.saturating_sub(shared.events.load(Ordering::Relaxed))),
        shared.repeated.load(Ordering::Relaxed),
    ))
}

fn read(shared: &Shared) -> (u64, u64) {
    (shared.unchanged.load(Ordering::Relaxed), shared.changed.load(Ordering::Relaxed))
}

async fn until(condition: impl Fn() -> bool) -> anyhow::Result<()> {
    let looking = async {
        while !condition() {
            sleep(LOOK_INTERVAL).await;
        }
    };
    Ok(timeout(PATIENCE, looking).await?)
}

/// Publishes an event now and then until it is told to end; without an API, none.
struct Publisher {
    task: Option<JoinHandle<anyhow::Result<u64>>>,
    stop: Arc<tokio::sync::Notify>,
}

impl Publisher {
    fn spawn(options: &PollsOptions, channel: String) -> Self {
        let stop = Arc::new(tokio::sync::Notify::new());
        let pace = Duration::from_millis(options.event_interval_ms.max(1));
        let task = options.apis.first().map(|api| {
            let (api, stop) = (*api, Arc::clone(&stop));
            tokio::spawn(publish(api, channel, pace, stop))
        });
        Self { task, stop }
    }

    /// How many events there were.
    async fn end(self) -> anyhow::Result<u64> {
        self.stop.notify_one();
        match self.task {
            Some(task) => task.await.context("the publisher's task ended")?,
            None => Ok(0),
        }
    }
}

async fn publish(
    api: SocketAddr,
    channel: String,
    pace: Duration,
    stop: Arc<tokio::sync::Notify>,
) -> anyhow::Result<u64> {
    let mut publisher = PublishConn::connect(api).await.context("the API")?;
    let mut due = interval(pace);
    for seq in 0.. {
        tokio::select! {
            _ = due.tick() => {}
            () = stop.notified() => return Ok(seq),
        }
        let data = Mark { due_us: now_us(), seq }.data(EVENT_BYTES);
        let body = json!({"channel": channel, "data": data}).to_string();
        publisher.publish("/v1/publish", &body).await?;
    }
    Ok(0)
}
