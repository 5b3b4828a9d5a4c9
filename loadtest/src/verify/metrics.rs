//! Counters of the processes, read from their admin ports.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cluster::Cluster;
use crate::history::{Sample, SampleLine, Writers};
use crate::http::{HttpConn, get};

/// How often counters are read: what a killed router had counted since is lost.
const INTERVAL: Duration = Duration::from_millis(500);
/// Time for one process to answer.
const TIMEOUT: Duration = Duration::from_millis(900);

/// What a process says now; nothing if it does not answer.
async fn read(node: &str, admin: SocketAddr) -> Option<Sample> {
    let asking = async { HttpConn::connect(admin).await?.exchange(&get("/metrics")).await };
    let response = tokio::time::timeout(TIMEOUT, asking).await.ok()?.ok()?;
    (response.head.status == 200).then(|| parse(node, &response.text()))
}

/// What all processes say now, as far as they answer.
pub(super) async fn read_all(cluster: &Cluster) -> Vec<Sample> {
    let mut reading = JoinSet::new();
    for (node, admin) in cluster.processes() {
        reading.spawn(async move { read(&node, admin).await });
    }
    reading.join_all().await.into_iter().flatten().collect()
}

fn parse(node: &str, text: &str) -> Sample {
    let sum = |name: &str| {
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let is_whole_name = rest.starts_with(' ') || rest.starts_with('{');
            rest.rsplit(' ').next().filter(|_| is_whole_name)?.parse::<f64>().ok()
        });
        values.sum::<f64>() as u64
    };
    Sample {
        t_us: 0,
        node: node.to_owned(),
        pushes: sum("tidegate_router_pushes_total"),
        wanted: sum("tidegate_router_events_wanted_total"),
        serving: sum("tidegate_router_partitions_serving"),
        connections: sum("tidegate_gateway_connections"),
    }
}

/// Reads all processes until it is stopped, and once more then.
pub(super) async fn sample_all(cluster: Cluster, writers: Writers, mut stop: watch::Receiver<bool>) {
    let mut pace = tokio::time::interval(INTERVAL);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let is_last = *stop.borrow();
        for sample in read_all(&cluster).await {
            writers.samples.write(&SampleLine::Sample(Sample { t_us: writers.now_us(), ..sample })).await;
        }
        if is_last {
            return;
        }
        tokio::select! {
            _ = pace.tick() => {}
            _ = stop.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_summed_and_longer_names_are_others() {
        let text = "# HELP tidegate_gateway_connections Open.\ntidegate_gateway_connections{transport=\"ws\"} 3\n\
                    tidegate_gateway_connections{transport=\"sse\"} 4\ntidegate_gateway_connections_opened_total 99\n\
                    tidegate_router_partitions_serving 8\n";
        let sample = parse("g", text);
        assert_eq!((sample.connections, sample.serving, sample.pushes), (7, 8, 0));
    }
}
