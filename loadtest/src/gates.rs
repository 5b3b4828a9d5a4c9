//! `loadtest compare --all-gates`: every gate that a cluster can be held to, one after the other, and one table of how they
//! stand.
//!
//! **Owns** their order and the table. What a gate measures, and when it is passed, is said where it is measured. One that cannot
//! be measured is not passed, the reason is said, and the others are measured nevertheless.

mod html;
mod memory;
mod report;

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use tokio::time::Instant;

use crate::compare::{self, CompareOptions, Scenario, compare};
use crate::fleet::{Channels, Follow};
use crate::idle::{IdleOptions, IdleReport, idle_minute};
use crate::latency::{self, KafkaOptions, beside_kafka};
use crate::polls::{self, PollsOptions, polls};
use crate::stalled::{self, StalledOptions, stalled};
use crate::storm::{self, StormOptions, storm};
use crate::verify::{Cluster, Faults};
use crate::{Transport, make_room};
use report::Stand;

pub use html::html;
pub use report::{Report, Standing};

/// `limits.ping_interval`, over which idle connections are opened.
const PING_SECONDS: u64 = 25;
/// Pings are few: they are counted for so many times as long as the rest.
const IDLE_TIMES: u64 = 5;
/// A delivery's cost varies by a tenth from second to second on a machine that is shared, and at a steady rate little is counted in
/// each: it is measured for so many times as long as the rest.
const STEADY_TIMES: u64 = 3;
/// For so long a process is looked at without connections.
const EMPTY_SECONDS: u64 = 10;
/// Idle connections whose processor time is counted, for each socket of a broadcast: a process should hold many.
const IDLE_FOR_EACH: f64 = 3.6;
/// Of the bare probe and the cluster, in turn.
const LATENCY_ROUNDS: usize = 3;

/// What the gates are measured with; each gate's limit is its own.
#[derive(Debug, Clone, Serialize)]
pub struct GatesOptions {
    /// Receivers of a broadcast, idle connections whose memory is read, clients of a storm.
    pub sockets: usize,
    /// Seconds of each measurement; twice that for latency, three times for deliveries at a steady rate, five times for idle processor
    /// time. A storm lasts as long as it does.
    pub seconds: u64,
    /// How often each side of a ratio is measured.
    pub pairs: usize,
    /// Show nchan beside the floor.
    pub with_nchan: bool,
    /// This program, of which receivers are further processes.
    #[serde(skip)]
    pub loadtest: PathBuf,
}

/// Measures every gate. `faults` starts gateways anew where memory is read.
///
/// # Errors
/// When a limit of the machine binds, or it is interrupted.
pub async fn gates(
    options: &GatesOptions,
    cluster: &Cluster,
    faults: &impl Faults,
    progress: impl Fn(&str),
) -> anyhow::Result<Report> {
    make_room(options.sockets)?;
    let course = Course { options, cluster, progress: &progress };
    tokio::select! {
        report = course.run(faults) => report,
        // Those who have something to clear away hear of it too, and are given the time.
        () = interrupted() => bail!("interrupted"),
    }
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
}

struct Course<'a, P: Fn(&str)> {
    options: &'a GatesOptions,
    cluster: &'a Cluster,
    progress: &'a P,
}

impl<P: Fn(&str)> Course<'_, P> {
    async fn run(&self, faults: &impl Faults) -> anyhow::Result<Report> {
        let started = Instant::now();
        let mut report = Report::new(self.options.clone());
        let memory = memory::measure(self.options.sockets, self.cluster, faults, self.progress);
        self.step(&mut report, "memory", memory, memory::Report::stands).await;
        self.step(&mut report, "short polls", self.polls(), |report| {
            let is = format!("{:.0} answers 304 per CPU-second", report.unchanged_per_cpu_second);
            vec![Stand::of("short polls", is, format!("at least {:.0}", polls::GATE), report.passed)]
        })
        .await;
        for (title, scenario) in [
            ("broadcast", Scenario::Broadcast),
            ("20 channels", Scenario::Channels20),
            ("saturated", Scenario::Saturated),
        ] {
            let comparing = self.compare(scenario);
            if let Some(compared) =
                self.step(&mut report, title, comparing, |report| delivery(title, report)).await
            {
                report.compared.push(compared);
            }
        }
        self.step(&mut report, "idle", self.idle(), idle).await;
        self.step(&mut report, "latency", self.latency(), |report: &latency::Report| {
            let stand = |gate: latency::Gate| {
                let limit = format!("at most the probe's and {} ms", gate.limit_ms);
                Stand::of(
                    &format!("latency, {}", gate.quantile),
                    format!("{:+.2} ms", gate.is_ms),
                    limit,
                    gate.met,
                )
            };
            report.gates().map(stand).collect()
        })
        .await;
        self.step(&mut report, "reconnect storm", self.storm(), |report: &storm::Report| {
            let is = format!("p99 {:.2} x that of the quiet", report.ratio);
            vec![Stand::of("reconnect storm", is, format!("at most {}", report.ratio_limit), report.passed)]
        })
        .await;
        self.step(&mut report, "stalled readers", self.stalled(), |report: &stalled::Report| {
            let is = format!("p99 {:.2} x, {} MiB grown", report.ratio, report.grown_bytes >> 20);
            let limit = format!("at most {} x, {} MiB", report.ratio_limit, report.grown_limit >> 20);
            vec![Stand::of("stalled readers", is, limit, report.passed)]
        })
        .await;
        report.minutes = started.elapsed().as_secs_f64() / 60.0;
        Ok(report)
    }

    /// Measures one, shows it, and notes how it stands.
    async fn step<R: Serialize + Display>(
        &self,
        report: &mut Report,
        title: &str,
        measuring: impl Future<Output = anyhow::Result<R>>,
        stands: impl Fn(&R) -> Vec<Stand>,
    ) -> Option<R> {
        (self.progress)(&format!("\n== {title}\n"));
        match measuring.await {
            Ok(measured) => {
                (self.progress)(&format!("\n{measured}\n"));
                report.add(title, &measured, stands(&measured));
                Some(measured)
            }
            Err(error) => {
                (self.progress)(&format!("\nnot measured: {error:#}\n"));
                report.stands.push(Stand::unmeasured(title, format!("{error:#}")));
                None
            }
        }
    }

    async fn polls(&self) -> anyhow::Result<polls::Report> {
        let gateway = self.cluster.gateway(None)?;
        let options = PollsOptions {
            public: gateway.public,
            apis: self.cluster.routers.iter().map(|router| router.api).collect(),
            pid: self.cluster.pid(&gateway.name)?,
            connections: 64,
            channels: 1,
            seconds: self.options.seconds,
            warm_seconds: 2,
            event_interval_ms: 1_000,
            planted_repeat: false,
        };
        polls(&options, self.progress).await
    }

    async fn compare(&self, scenario: Scenario) -> anyhow::Result<compare::Report> {
        let GatesOptions { sockets, seconds, pairs, loadtest, with_nchan } = self.options.clone();
        let seconds = if scenario == Scenario::Saturated { seconds } else { STEADY_TIMES * seconds };
        let options =
            CompareOptions { scenario, sockets, seconds, pairs, loadtest, ..CompareOptions::default() };
        // That nchan does less is shown once.
        let with_nchan = with_nchan && scenario == Scenario::Broadcast;
        compare(&options, Some(self.cluster), with_nchan, self.progress).await
    }

    async fn idle(&self) -> anyhow::Result<IdleReport> {
        let gateway = self.cluster.gateway(None)?;
        let connections = (self.options.sockets as f64 * IDLE_FOR_EACH) as u64;
        let options = IdleOptions {
            public: gateway.public,
            pid: self.cluster.pid(&gateway.name)?,
            connections,
            transport: Transport::Ws,
            follow: Follow {
                channel: Some("load:idle-{c}".to_owned()),
                channels: Channels::Own,
                user: Some("load-{n}".to_owned()),
            },
            empty_seconds: EMPTY_SECONDS,
            open_seconds: PING_SECONDS,
            seconds: IDLE_TIMES * self.options.seconds,
        };
        idle_minute(&options, &self.options.loadtest, self.progress).await
    }

    async fn latency(&self) -> anyhow::Result<latency::Report> {
        let options = KafkaOptions {
            seconds: 2 * self.options.seconds,
            rounds: self.options.pairs.min(LATENCY_ROUNDS),
            ..KafkaOptions::default()
        };
        beside_kafka(&options, self.cluster, |line| (self.progress)(&format!("{line}\n"))).await
    }

    async fn storm(&self) -> anyhow::Result<storm::Report> {
        let GatesOptions { sockets: clients, pairs, .. } = *self.options;
        storm(&StormOptions { clients, pairs, ..StormOptions::default() }, self.cluster, self.progress).await
    }

    async fn stalled(&self) -> anyhow::Result<stalled::Report> {
        let GatesOptions { seconds, pairs, .. } = *self.options;
        let options = StalledOptions { seconds: seconds as f64, pairs, ..StalledOptions::default() };
        stalled(&options, self.cluster, self.progress).await
    }
}

fn delivery(title: &str, report: &compare::Report) -> Vec<Stand> {
    let stand = |gate: &compare::Gate| {
        let is = format!("deliveries per CPU-second {:.3} x the floor's, {} wrong", gate.ratio, gate.wrong);
        let word = if report.options.scenario == Scenario::Saturated { "above" } else { "at least" };
        Stand::of(title, is, format!("{word} {}, 0 wrong", gate.limit), gate.passed)
    };
    report.gate.iter().map(stand).collect()
}

fn idle(report: &IdleReport) -> Vec<Stand> {
    let is = format!("{:.3} cores for 1,000,000 connections", report.cores_per_million);
    vec![Stand::of("idle", is, format!("at most {}", crate::idle::CORES_PER_MILLION_GATE), report.passed)]
}
