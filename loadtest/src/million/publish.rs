//! What is published: one event to all, and events to one user each.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::clock::now_us;
use crate::mark::Mark;
use crate::publisher::{Pace, PublishConn, Queue, due_us};
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

/// What is sent to publish this event to that target.
fn body(mut target: Value, mark: Mark) -> String {
    target["data"] = mark.data(BYTES).into();
    target.to_string()
}

/// One event to everyone.
pub(super) async fn broadcast(cluster: &Cluster) -> anyhow::Result<()> {
    let mut publisher = PublishConn::connect(cluster.routers[0].api).await?;
    let mark = Mark { due_us: now_us(), seq: 0 };
    publisher.publish("/v1/publish", &body(json!({"everyone": true}), mark)).await
}

/// One event each to these, in turn to the user and to its own channel; but for the last few, which are left out.
pub(super) async fn unicasts(
    cluster: &Cluster,
    names: &Names,
    numbers: Vec<u64>,
    rate: f64,
    left_out: u64,
) -> anyhow::Result<()> {
    let upto = (numbers.len() as u64).saturating_sub(left_out);
    let apis: Vec<_> = cluster.routers.iter().map(|router| router.api).collect();
    let publishers = PublishConn::connect_all(&apis, LANES).await?;
    let ((due, queue), begin_us) = (Queue::<Mark>::new(), now_us());
    let due_at = move |seq| (seq < upto).then(|| due_us(begin_us, rate, seq));
    let pace = Pace::start(due_at, move |mark| due.send(mark).is_ok())?;
    let (numbers, names, mut lanes) = (Arc::new(numbers), Arc::new(names.clone()), JoinSet::new());
    for mut publisher in publishers {
        let (numbers, names, queue) = (Arc::clone(&numbers), Arc::clone(&names), queue.clone());
        lanes.spawn(async move {
            while let Some(mark) = queue.next().await {
                let number = numbers[mark.seq as usize].to_string();
                let target = if mark.seq.is_multiple_of(2) {
                    json!({"user": names.user(&number)})
                } else {
                    json!({"channel": names.channel(&number)})
                };
                publisher.publish("/v1/publish", &body(target, mark)).await?;
            }
            anyhow::Ok(())
        });
    }
    drop(queue);
    while let Some(lane) = lanes.join_next().await {
        lane.context("a publisher's task ended")??;
    }
    pace.join().map(|_sent| ())
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
