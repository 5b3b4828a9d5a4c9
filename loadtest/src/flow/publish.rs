//! The publishers: a thread that keeps the pace, and one with a runtime of its own whose connections have one event under
//! way each.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, anyhow};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{FlowOptions, GRACE, Shared};
use crate::mark::Mark;
use crate::publisher::{Pace, PublishConn, Queue, due_us};

/// Fewest connections that publish, and most.
const LANES_MIN: usize = 16;
const LANES_LIMIT: usize = 256;
/// Milliseconds that an ack may take before events wait for a connection.
const ACK_MS_FORESEEN: f64 = 100.0;

/// What became of the events.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) acked: u64,
    pub(super) refused: u64,
    pub(super) refusal: Option<String>,
}

/// Publishes until told to stop.
pub(super) fn run(options: &FlowOptions, begin_us: u64, shared: &Arc<Shared>) -> anyhow::Result<Published> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(publish(options, begin_us, shared))
}

async fn publish(options: &FlowOptions, begin_us: u64, shared: &Arc<Shared>) -> anyhow::Result<Published> {
    let count = ((options.rate * ACK_MS_FORESEEN / 1_000.0) as usize).clamp(LANES_MIN, LANES_LIMIT);
    let publishers = PublishConn::connect_all(&options.apis, count).await?;
    let (due, queue) = Queue::new(); // Whoever is too slow is stopped for what is overdue.
    let (rate, own) = (options.rate, Arc::clone(shared));
    let due_at = move |seq| (!own.no_more.load(Ordering::Relaxed)).then(|| due_us(begin_us, rate, seq));
    let pace = Pace::start(due_at, move |mark| due.send(mark).is_ok())?;
    let mut lanes = JoinSet::new();
    let channels: Arc<[String]> = options.channels.clone().into();
    for publisher in publishers {
        let (channels, shared) = (Arc::clone(&channels), Arc::clone(shared));
        let lane = Lane { publisher, channels, bytes: options.bytes, shared };
        lanes.spawn(lane.run(queue.clone()));
    }
    let mut all = Published::default();
    while let Some(lane) = next_end(&mut lanes, shared).await {
        let one = lane?;
        all.acked += one.acked;
        all.refused += one.refused;
        all.refusal = all.refusal.or(one.refusal);
    }
    drop(queue); // Ends the pace, whatever ended the lanes.
    pace.join()?;
    Ok(all)
}

/// What the next lane that ends has done. What is under way when publishing shall end has a while.
async fn next_end(
    lanes: &mut JoinSet<anyhow::Result<Published>>,
    shared: &Shared,
) -> Option<anyhow::Result<Published>> {
    loop {
        match timeout(GRACE, lanes.join_next()).await {
            Ok(None) => return None,
            Ok(Some(ended)) => return Some(ended.context("a publisher's task ended").flatten()),
            Err(_) if shared.no_more.load(Ordering::Relaxed) => {
                return Some(Err(anyhow!("events were still waiting for their ack 10 s after the end")));
            }
            Err(_) => {}
        }
    }
}

/// A connection that publishes one event after the other.
struct Lane {
    publisher: PublishConn,
    channels: Arc<[String]>,
    bytes: usize,
    shared: Arc<Shared>,
}

impl Lane {
    async fn run(mut self, queue: Queue<Mark>) -> anyhow::Result<Published> {
        let mut published = Published::default();
        while let Some(mark) = queue.next().await {
            if self.shared.no_more.load(Ordering::Relaxed) {
                continue; // Overdue, and not wanted any more: it was never published.
            }
            let channel = &self.channels[mark.seq as usize % self.channels.len()];
            let body = json!({"channel": channel, "data": mark.data(self.bytes)}).to_string();
            let response = self.publisher.post("/v1/publish", &body).await?;
            if response.head.status == 200 {
                published.acked += 1;
            } else {
                published.refused += 1;
                published
                    .refusal
                    .get_or_insert_with(|| format!("{} {}", response.head.status, response.text()));
            }
        }
        Ok(published)
    }
}
