//! What is published: one event to all, and events to one user each.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::clock::now_us;
use crate::http::{HttpConn, post};
use crate::mark::Mark;
use crate::verify::Cluster;

/// Connections that publish; each has one event under way.
const LANES: usize = 32;
const BYTES: usize = 100;

/// Names of this run's own, so that nothing of another one is met.
#[derive(Debug, Clone)]
pub(super) struct Names(String);

impl Names {
    pub(super) fn new(run: String) -> Self {
        Self(run)
    }

    pub(super) fn channel(&self, number: &str) -> String {
        format!("million:{}-{number}", self.0)
    }

    pub(super) fn user(&self, number: &str) -> String {
        format!("million-{}-{number}", self.0)
    }
}

/// So many different numbers below `all`.
pub(super) fn some_of(all: u64, count: u64) -> Vec<u64> {
    let mut numbers = BTreeSet::new();
    while (numbers.len() as u64) < count.min(all) {
        numbers.insert(rand::rng().random_range(0..all));
    }
    numbers.into_iter().collect()
}

async fn publish(connection: &mut HttpConn, target: Value, mark: Mark) -> anyhow::Result<()> {
    let mut body = target;
    body["data"] = mark.data(BYTES).into();
    let response = connection.exchange(&post("/v1/publish", &body.to_string())).await?;
    let status = response.head.status;
    ensure!((200..300).contains(&status), "a publish was answered with {status} {}", response.text());
    Ok(())
}

async fn connect(api: SocketAddr) -> anyhow::Result<HttpConn> {
    HttpConn::connect(api).await.with_context(|| format!("cannot connect to {api}"))
}

/// One event to everyone.
pub(super) async fn broadcast(cluster: &Cluster) -> anyhow::Result<()> {
    let mut connection = connect(cluster.routers[0].api).await?;
    publish(&mut connection, json!({"everyone": true}), Mark { due_us: now_us(), seq: 0 }).await
}

/// One event each to these, in turn to the user and to its own channel; but for the last few, which are left out.
pub(super) async fn unicasts(
    cluster: &Cluster,
    names: &Names,
    numbers: Vec<u64>,
    rate: f64,
    left_out: u64,
) -> anyhow::Result<()> {
    let (begin_us, next) = (now_us(), Arc::new(AtomicU64::new(0)));
    let upto = (numbers.len() as u64).saturating_sub(left_out);
    let (numbers, names) = (Arc::new(numbers), Arc::new(names.clone()));
    let mut lanes = JoinSet::new();
    for router in cluster.routers.iter().cycle().take(LANES) {
        let (numbers, names, next) = (Arc::clone(&numbers), Arc::clone(&names), Arc::clone(&next));
        let mut connection = connect(router.api).await?;
        lanes.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= upto {
                    return anyhow::Ok(());
                }
                let number = numbers[index as usize].to_string();
                let target = if index.is_multiple_of(2) {
                    json!({"user": names.user(&number)})
                } else {
                    json!({"channel": names.channel(&number)})
                };
                let due_us = begin_us + (index as f64 * 1e6 / rate) as u64;
                sleep(std::time::Duration::from_micros(due_us.saturating_sub(now_us()))).await;
                publish(&mut connection, target, Mark { due_us, seq: index }).await?;
            }
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane.context("a publisher's task ended")??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_different_and_no_more_than_there_are() {
        let numbers = some_of(1_000, 300);
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 300);
        assert!(numbers.iter().all(|number| *number < 1_000));
        assert_eq!(some_of(3, 10), [0, 1, 2]);
        let names = Names::new("ab".to_owned());
        assert_eq!((names.channel("7"), names.user("{n}")), ("million:ab-7".into(), "million-ab-{n}".into()));
    }
}
