//! `loadtest latency --cluster`: what Tidegate adds to the Kafka below it.
//!
//! **Owns** two measurements of the same load, made in turn so that both meet the same machine: the floor, which is
//! librdkafka and nothing of ours, and a cluster. Each latency counts from when an event was meant to be sent, not from
//! when it was: a stall delays all that was due meanwhile, and all of it is counted (no coordinated omission).
//! Beside durable events stand those that skip the log, ephemeral and direct ones.

mod arrivals;
mod pace;
mod probe;
mod report;
mod tidegate;

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::verify::Cluster;
use probe::Probe;
use report::Round;
use tidegate::Class;

pub use report::{Gate, Report};

/// What shall be measured.
#[derive(Debug, Clone, Serialize)]
pub struct KafkaOptions {
    /// How long each measurement lasts, a short warm-up apart.
    pub seconds: u64,
    /// Events a second.
    pub rate: u64,
    /// Sockets that each get every event.
    pub receivers: usize,
    /// How many pairs of measurements.
    pub rounds: usize,
    /// Bytes of an event's data.
    pub bytes: usize,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self { seconds: 20, rate: 500, receivers: 10, rounds: 3, bytes: 100 }
    }
}

/// What a task measured, in no order.
type Measured = anyhow::Result<Vec<Duration>>;

/// Measures the floor and the cluster in turn.
///
/// # Errors
/// When anything is refused, or an event does not come.
pub async fn beside_kafka(
    options: &KafkaOptions,
    cluster: &Cluster,
    progress: impl Fn(&str),
) -> anyhow::Result<Report> {
    let kafka =
        cluster.kafka.as_ref().context("cluster.json names no Kafka: start it with deploy/local/up")?;
    let probe = Probe::create(&kafka.bootstrap, cluster.partitions).await?;
    let measured = tokio::select! {
        measured = rounds(options, cluster, &probe, progress) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    // In any case: what the probe has made does not stay behind.
    let deleted = probe.delete().await;
    let report = Report::new(options.clone(), measured?);
    deleted?;
    Ok(report)
}

async fn rounds(
    options: &KafkaOptions,
    cluster: &Cluster,
    probe: &Probe,
    progress: impl Fn(&str),
) -> anyhow::Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let (probe, probe_ack) = probe.measure(options).await.context("the probe")?;
        progress(&format!("round {number}: probe     {probe}"));
        let mut classes = Vec::new();
        for class in Class::ALL {
            let name = class.name();
            let one = tidegate::measure(class, options, cluster).await;
            let one = one.with_context(|| format!("the cluster, {name} events"))?;
            progress(&format!("round {number}: {name:9} {}", one.arrived));
            classes.push(one);
        }
        rounds.push(Round { probe, probe_ack, classes });
    }
    Ok(rounds)
}

/// Waits until every receiver has everything; a worker that fails meanwhile ends it. What workers that are through
/// have measured goes to `acks`.
async fn arrived(
    receivers: &mut JoinSet<Measured>,
    workers: &mut JoinSet<Measured>,
    acks: &mut Vec<Duration>,
) -> Measured {
    let mut all = Vec::new();
    while !receivers.is_empty() {
        tokio::select! {
            Some(one) = receivers.join_next() => all.extend(one.context("a receiver's task ended")??),
            Some(one) = workers.join_next() => acks.extend(one.context("a worker's task ended")??),
        }
    }
    Ok(all)
}
