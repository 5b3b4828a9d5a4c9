//! `loadtest verify`: publishers and subscribers on a cluster whose processes are killed, and their history.
//!
//! **Owns** the run: it writes the history and leaves judging to [`crate::judge`], which sees nothing but the files.
//! Everything is bounded in time: a cluster that does not answer ends the run with a reason, or with a verdict.

mod client;
mod cluster;
mod faults;
mod metrics;
mod plan;
mod progress;
mod publish;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

pub use cluster::{Cluster, Gateway, Kafka, Router};
pub use faults::{Faults, NodeScript};
pub(crate) use plan::channels;
pub use plan::{Fault, PlannedRestart, Target};

use crate::history::{HistoryWriter, Writers};
use client::Subscriber;
use progress::Progress;

/// Time in which every subscriber has to follow its channels, before anything is published.
const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after the last publish in which it must be acked, and everyone must have everything.
const GRACE: Duration = Duration::from_secs(30);
/// What must not come after everything has come, a repeat for instance, has this long to come.
const AFTERMATH: Duration = Duration::from_secs(1);

/// What a run shall be.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// How long events are published.
    pub seconds: u64,
    /// Durable events a second.
    pub rate: u64,
    /// Channels, spread evenly over the partitions.
    pub channels: usize,
    /// Subscribers, a fifth for each transport.
    pub subscribers: u32,
    /// Kill nothing.
    pub no_kill: bool,
    /// Processes to restart in good order.
    pub planned_restarts: Vec<PlannedRestart>,
    /// Where the history goes.
    pub history: PathBuf,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            seconds: 90,
            rate: 500,
            channels: 100,
            subscribers: 300,
            no_kill: false,
            planned_restarts: Vec::new(),
            history: PathBuf::from("history"),
        }
    }
}

/// Runs it and writes the history. `on_progress` is called once a second with a line for people.
///
/// # Errors
/// When the subscribers cannot begin, a fault cannot be done, or the history cannot be written.
pub async fn verify(
    options: &VerifyOptions,
    cluster: &Cluster,
    faults: impl Faults,
    on_progress: impl Fn(&str) + Send + 'static,
) -> anyhow::Result<()> {
    let plan = plan::faults(options);
    check(options, cluster, &plan)?;
    let run = plan::run(options, cluster);
    let (history, writers) = HistoryWriter::create(&options.history, &run)?;
    let progress = Progress::new(run.clients.iter().map(|client| client.channels.as_slice()));
    let (stop, stopped) = watch::channel(false);
    let mut watching = JoinSet::new();
    watching.spawn(metrics::sample_all(cluster.clone(), writers.clone(), stopped.clone()));
    let mut subscribers = JoinSet::new();
    for client in run.clients.clone() {
        let subscriber = Subscriber::new(client, cluster, writers.clone(), progress.clone());
        subscribers.spawn(subscriber.run(stopped.clone()));
    }
    let showing = tokio::spawn(show(progress.clone(), on_progress));
    let ended = async {
        establish(&progress).await?;
        let began = Instant::now();
        let until = began + Duration::from_secs(options.seconds);
        let mut publishers = JoinSet::new();
        for lane in publish::lanes(&run, cluster, &writers, &progress) {
            publishers.spawn(lane.run(until, until + GRACE));
        }
        let carried_out =
            faults::carry_out(faults, plan, cluster.clone(), writers.clone(), progress.clone(), began).await;
        carried_out.context("a fault could not be done")?;
        publishers.join_all().await;
        catch_up(&progress).await;
        anyhow::Ok(())
    }
    .await;
    stop.send_replace(true);
    subscribers.join_all().await;
    watching.join_all().await;
    showing.abort();
    drop::<Writers>(writers);
    // A history without what the run was about must not look whole: it is only finished when the run was.
    ended?;
    history.finish()
}

fn check(options: &VerifyOptions, cluster: &Cluster, plan: &[Fault]) -> anyhow::Result<()> {
    let VerifyOptions { seconds, rate, channels, subscribers, .. } = options;
    if [*seconds, *rate, *channels as u64, u64::from(*subscribers)].contains(&0) {
        bail!("--seconds, --rate, --channels and --subscribers must be at least 1");
    }
    let processes = cluster.processes();
    for fault in plan {
        if let Target::Named(node) = &fault.target
            && !processes.iter().any(|(name, _)| name == node)
        {
            let known: Vec<&str> = processes.iter().map(|(name, _)| name.as_str()).collect();
            bail!("no process is called {node}; there are {}", known.join(", "));
        }
        if fault.at_ms > seconds * 1_000 {
            bail!("a restart at second {} is after the end of the run", fault.at_ms / 1_000);
        }
    }
    Ok(())
}

async fn establish(progress: &Progress) -> anyhow::Result<()> {
    let deadline = Instant::now() + ESTABLISH_TIMEOUT;
    while progress.unestablished() > 0 {
        if Instant::now() > deadline {
            bail!(
                "{} subscribers do not follow their channels after {ESTABLISH_TIMEOUT:?}; clients.jsonl says why",
                progress.unestablished()
            );
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Waits until everyone has everything. Whoever does not get there is the judge's business.
async fn catch_up(progress: &Progress) {
    let deadline = Instant::now() + GRACE;
    while progress.behind() > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
    }
    sleep(AFTERMATH).await;
}

async fn show(progress: Progress, on_progress: impl Fn(&str)) {
    let began = Instant::now();
    loop {
        sleep(Duration::from_secs(1)).await;
        on_progress(&format!("{:>4} s  {}", began.elapsed().as_secs(), progress.line()));
    }
}

/// Reads a history, judges it and proves the judge on it.
///
/// # Errors
/// When the history cannot be read.
pub fn judge_directory(
    directory: &Path,
    limits: &crate::judge::Limits,
) -> Result<crate::judge::Verdict, crate::history::HistoryError> {
    let history = crate::history::History::read(directory)?;
    let mut verdict = crate::judge::judge(&history, limits);
    verdict.decide(crate::judge::prove(&history));
    Ok(verdict)
}
