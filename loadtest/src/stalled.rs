//! `loadtest stalled`: what clients that never read cost a gateway and their neighbours.
//!
//! **Owns** readers that ask for a busy channel with the smallest receive buffer there is and then read nothing, and a healthy
//! flow on the same gateway beside them. The busy channel is published to in both halves of a pair; what differs is only
//! whether the readers are there. Memory is the gateway's private memory; what the kernel holds for a socket is not in it.

mod readers;
mod report;

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::clock::now_us;
use crate::files::make_room;
use crate::flow::{Flow, FlowOptions, Heard};
use crate::memory::Memory;
use crate::verify::{Cluster, Gateway, channels};
use readers::{Gauges, Readers};

pub use report::{Pair, Report};

/// How often memory and what the gateway says are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Between two halves: what the one has left behind is done by then.
const CALM: Duration = Duration::from_secs(2);

/// What shall be done.
#[derive(Debug, Clone, Serialize)]
pub struct StalledOptions {
    /// That never read.
    pub readers: usize,
    /// Namespace of the channel that they follow, which decides on the gateway's policy.
    pub namespace: String,
    /// Each follows a channel of its own too, so that no two share a frame.
    pub own: bool,
    /// Events a second of that channel.
    pub busy_rate: f64,
    /// Bytes of each of these.
    pub busy_bytes: usize,
    /// `limits.outbox_size` of the gateway.
    pub outbox_bytes: u64,
    /// Healthy neighbours, each of which gets every event of the flow.
    pub receivers: usize,
    /// Events a second of the flow.
    pub rate: f64,
    /// How long each half lasts.
    pub seconds: f64,
    /// With and without, so many times.
    pub pairs: usize,
    /// Which gateway; nothing: the first.
    pub gateway: Option<String>,
}

impl Default for StalledOptions {
    fn default() -> Self {
        Self {
            readers: 1_000,
            namespace: "stalled".to_owned(),
            own: false,
            busy_rate: 20.0,
            busy_bytes: 4_096,
            outbox_bytes: 1 << 20,
            receivers: 10,
            rate: 200.0,
            seconds: 20.0,
            pairs: 5,
            gateway: None,
        }
    }
}

/// Measures in turn. Calls `progress` with lines that end (they last) and lines that do not.
///
/// # Errors
/// When a limit binds, a process cannot be reached, or the healthy flow is not complete.
pub async fn stalled(
    options: &StalledOptions,
    cluster: &Cluster,
    progress: impl Fn(&str),
) -> anyhow::Result<Report> {
    make_room(options.readers * 2 + options.receivers)?;
    let gateway = cluster.gateway(options.gateway.as_deref())?;
    let measuring = Measuring { options, cluster, gateway, pid: cluster.pid(&gateway.name)? };
    tokio::select! {
        report = measuring.run(&progress) => report,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    }
}

struct Measuring<'a> {
    options: &'a StalledOptions,
    cluster: &'a Cluster,
    gateway: &'a Gateway,
    pid: u32,
}

/// One half of a pair.
#[derive(Debug, Clone, Copy, Default)]
struct Half {
    window_us: (u64, u64),
    memory_max: u64,
    /// What the gateway says it holds for slow sockets, at most.
    outbox_max: u64,
    closed: u64,
    dropped: u64,
}

impl Measuring<'_> {
    async fn run(&self, progress: &impl Fn(&str)) -> anyhow::Result<Report> {
        let options = self.options;
        let healthy = FlowOptions {
            receivers: options.receivers,
            rate: options.rate,
            ..FlowOptions::new(self.cluster, vec![self.gateway.public], "stalled-healthy")
        };
        let busy = FlowOptions {
            receivers: 1, // Who reads shows that the channel is as busy as it shall be.
            rate: options.busy_rate,
            bytes: options.busy_bytes,
            ..FlowOptions::new(self.cluster, vec![self.gateway.public], &options.namespace)
        };
        let busy = FlowOptions {
            channels: channels(&options.namespace_prefix(), 1, self.cluster.partitions),
            ..busy
        };
        let path = format!("/v1/events?channel={}", busy.channels[0]);
        let (healthy, busy) = (Flow::start(&healthy).await?, Flow::start(&busy).await?);
        pause(CALM).await;
        let before = Memory::of(self.pid)?.0;
        let mut halves = Vec::new();
        for number in 0..options.pairs {
            // Every other pair the other way round: what one half leaves behind meets the other as often.
            let (mut without, mut with) = (Half::default(), Half::default());
            for has_readers in [number % 2 == 1, number % 2 == 0] {
                let title = format!("pair {}/{}", number + 1, options.pairs);
                match has_readers {
                    true => with = self.half(Some(&path), &title, progress).await?,
                    false => without = self.half(None, &title, progress).await?,
                }
                pause(CALM).await;
            }
            halves.push((without, with));
            if !healthy.is_running() || !busy.is_running() {
                break;
            }
        }
        let (heard, busy) = (healthy.stop().await.context("the healthy neighbours")?, busy.stop().await?);
        heard.complete()?;
        busy.complete().context("the one that reads the busy channel")?;
        let pairs = halves.into_iter().map(|(without, with)| pair(&heard, without, with, before));
        Ok(Report::new(options.clone(), before, pairs.collect()))
    }

    async fn half(&self, path: Option<&str>, title: &str, progress: &impl Fn(&str)) -> anyhow::Result<Half> {
        let mut readers = None;
        let before = Gauges::read(self.gateway.admin).await?;
        if let Some(path) = path {
            progress(&format!("{title}  opening {} readers that do not read", self.options.readers));
            readers = Some(Readers::open(self.gateway, path, self.options.own, self.options.readers).await?);
        }
        let kind = if readers.is_some() { "with" } else { "without" };
        let (begun, from_us) = (Instant::now(), now_us());
        let mut half = Half::default();
        while begun.elapsed().as_secs_f64() < self.options.seconds {
            pause(LOOK).await;
            let gauges = Gauges::read(self.gateway.admin).await?;
            half.memory_max = half.memory_max.max(Memory::of(self.pid)?.0);
            half.outbox_max = half.outbox_max.max(gauges.outbox_bytes);
            half.closed = gauges.closed.saturating_sub(before.closed);
            half.dropped = gauges.dropped.saturating_sub(before.dropped);
            if let Some(readers) = &mut readers {
                readers.replace(half.closed).await?;
            }
            progress(&format!(
                "{title}  {kind:7} {:.0} of {:.0} s: {:.1} MiB private, {:.1} MiB wait for slow sockets, {} closed",
                begun.elapsed().as_secs_f64(),
                self.options.seconds,
                half.memory_max as f64 / 1_048_576.0,
                gauges.outbox_bytes as f64 / 1_048_576.0,
                half.closed
            ));
        }
        half.window_us = (from_us, now_us());
        Ok(half)
    }
}

fn pair(heard: &Heard, without: Half, with: Half, before: u64) -> Pair {
    let latency = |half: Half| heard.between(half.window_us.0, half.window_us.1).quantiles();
    Pair::new(
        latency(without),
        latency(with),
        with.memory_max.saturating_sub(before),
        with.outbox_max,
        (with.closed, with.dropped),
    )
}

async fn pause(time: Duration) {
    sleep_until(Instant::now() + time).await;
}
