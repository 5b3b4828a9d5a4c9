//! Does to processes what the plan says, and writes it down.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep_until};

use super::cluster::Cluster;
use super::metrics;
use super::plan::{Fault, Target};
use super::progress::Progress;
use crate::history::{Action, FaultLine, Sample, Writers};

/// Whatever can kill and start the processes of a cluster.
pub trait Faults: Send + Sync + 'static {
    /// Does it, and returns when it is done: a start, when the process listens.
    fn act(&self, action: Action, node: &str) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// `deploy/local/node`.
#[derive(Debug, Clone)]
pub struct NodeScript {
    /// The script.
    pub script: PathBuf,
    /// The cluster's directory.
    pub dir: PathBuf,
}

impl Faults for NodeScript {
    async fn act(&self, action: Action, node: &str) -> anyhow::Result<()> {
        let mut command = std::process::Command::new(&self.script);
        command.arg(action.as_str()).arg(node).arg("--dir").arg(&self.dir);
        let shown = format!("{command:?}");
        let output = tokio::task::spawn_blocking(move || command.output()).await?;
        let output =
            output.with_context(|| format!("{shown} cannot be run; is it the script deploy/local/node?"))?;
        if !output.status.success() {
            bail!("{shown} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

/// Two things that can be due.
enum Due<'a> {
    Go(&'a Fault),
    Back(&'a Fault),
}

/// Carries out the plan; `began` is when publishing did.
pub(super) async fn carry_out(
    faults: impl Faults,
    plan: Vec<Fault>,
    cluster: Cluster,
    writers: Writers,
    progress: Progress,
    began: Instant,
) -> anyhow::Result<()> {
    let mut due: Vec<(u64, Due<'_>)> = Vec::new();
    for fault in &plan {
        due.push((fault.at_ms, Due::Go(fault)));
        due.push((fault.back_ms, Due::Back(fault)));
    }
    due.sort_by_key(|(at_ms, _)| *at_ms);
    let mut away: Vec<(&Fault, String)> = Vec::new();
    for (at_ms, due) in due {
        sleep_until(began + Duration::from_millis(at_ms)).await;
        let (action, node, serving) = match due {
            Due::Go(fault) => {
                let (node, serving) = choose(&fault.target, &cluster).await?;
                away.push((fault, node.clone()));
                (fault.action, node, serving)
            }
            Due::Back(fault) => {
                let place = away.iter().position(|(other, _)| std::ptr::eq(*other, fault));
                let (_, node) = away.remove(place.context("invariant: it went before it comes back")?);
                (Action::Start, node, None)
            }
        };
        progress.set_fault(&format!("{} {node}", action.as_str()));
        let t_us = writers.now_us();
        faults.act(action, &node).await?;
        let done_us = writers.now_us();
        writers.faults.write(&FaultLine::Fault { t_us, done_us, action, node: node.clone(), serving }).await;
        progress.set_fault(&if away.is_empty() { "-".to_owned() } else { format!("{node} away") });
    }
    Ok(())
}

/// Which process, and how many partitions it serves, if it is a router.
async fn choose(target: &Target, cluster: &Cluster) -> anyhow::Result<(String, Option<u64>)> {
    let samples = metrics::read_all(cluster).await;
    let names = cluster.names();
    let most = |names: &[String], figure: fn(&Sample) -> u64| {
        let among = samples.iter().filter(|sample| names.contains(&sample.node));
        among.max_by_key(|sample| figure(sample)).map(|sample| sample.node.clone())
    };
    let node = match target {
        Target::FullestGateway => most(&names.gateways, |sample| sample.connections),
        Target::BusiestRouter => most(&names.routers, |sample| sample.serving),
        Target::Named(node) => {
            cluster.processes().into_iter().map(|(name, _)| name).find(|name| name == node)
        }
    };
    let node = node.with_context(|| format!("{target:?}: no such process answers on its admin port"))?;
    let serving = samples.iter().find(|sample| sample.node == node).map(|sample| sample.serving);
    let serving = serving.filter(|_| names.routers.contains(&node));
    Ok((node, serving))
}
