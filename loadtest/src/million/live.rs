//! Waiting until every channel of every connection is live. A first `state` may say that some are pending.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::http::{HttpConn, get};
use crate::verify::Cluster;

/// What each connection follows: its channel, its user's, and everyone's.
const CHANNELS_EACH: u64 = 3;
const INTERVAL: Duration = Duration::from_millis(500);
/// For so long the count may stand still.
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const METRIC: &str = "tidegate_gateway_subscriptions_total{";

/// Channels that became live on all gateways since they started.
pub(super) async fn established(cluster: &Cluster) -> anyhow::Result<u64> {
    let mut asking = JoinSet::new();
    for gateway in &cluster.gateways {
        let (name, admin) = (gateway.name.clone(), gateway.admin);
        asking.spawn(async move {
            let exchange = async { HttpConn::connect(admin).await?.exchange(&get("/metrics")).await };
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await;
            let answer = answer.context("no answer in time").and_then(|answer| answer.context("no answer"));
            let text = answer.with_context(|| format!("the metrics of {name}"))?.text();
            anyhow::Ok(sum(&text))
        });
    }
    let mut all = 0;
    while let Some(one) = asking.join_next().await {
        all += one.context("a task that asks ended")??;
    }
    Ok(all)
}

fn sum(text: &str) -> u64 {
    let values = text.lines().filter(|line| line.starts_with(METRIC));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Seconds until they all were.
pub(super) async fn wait(
    cluster: &Cluster,
    before: u64,
    connections: u64,
    progress: &impl Fn(&str),
) -> anyhow::Result<f64> {
    let (started, wanted) = (Instant::now(), connections * CHANNELS_EACH);
    let (mut best, mut deadline) = (0, Instant::now() + PATIENCE);
    loop {
        let live = established(cluster).await?.saturating_sub(before);
        progress(&format!("{live} of {wanted} channels are live"));
        if live >= wanted {
            progress("\n");
            return Ok(started.elapsed().as_secs_f64());
        }
        ensure!(live >= best, "a gateway has started anew: it counts from nothing");
        if live > best {
            (best, deadline) = (live, Instant::now() + PATIENCE);
        }
        if Instant::now() > deadline {
            bail!("{live} of {wanted} channels are live and no more came for {} s", PATIENCE.as_secs());
        }
        sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_summed() {
        let text = "# TYPE x counter\ntidegate_gateway_subscriptions_total{outcome=\"fresh\"} 5\n\
                    tidegate_gateway_subscriptions_total{outcome=\"recovered\"} 2\nother 7\n";
        assert_eq!(sum(text), 7);
    }
}
