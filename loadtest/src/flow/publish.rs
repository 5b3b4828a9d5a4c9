//! The publishers: a thread that keeps the pace, and one with a runtime of its own whose connections have one event under
//! way each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, anyhow};
use serde_json::json;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{FlowOptions, GRACE, Shared};
use crate::clock::sleep_until_us;
use crate::http::{HttpConn, post};
use crate::mark::Mark;

/// Fewest connections that publish, and most.
const LANES_MIN: usize = 16;
const LANES_LIMIT: usize = 256;
/// Milliseconds that an ack may take before events wait for a connection.
const ACK_MS_FORESEEN: f64 = 100.0;

type Queue = Arc<Mutex<mpsc::UnboundedReceiver<Mark>>>;

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
    let mut connections = Vec::new();
    for address in options.apis.iter().cycle().take(count) {
        let connection = HttpConn::connect(*address).await;
        connections.push((*address, connection.with_context(|| format!("cannot connect to {address}"))?));
    }
    let (due, queue) = mpsc::unbounded_channel(); // Holds what is overdue; whoever is too slow is stopped for it.
    let queue = Arc::new(Mutex::new(queue));
    let (rate, own) = (options.rate, Arc::clone(shared));
    let pacing =
        std::thread::Builder::new().name("pace".into()).spawn(move || pace(rate, begin_us, &own, &due))?;
    let mut lanes = JoinSet::new();
    let channels: Arc<[String]> = options.channels.clone().into();
    for (address, conn) in connections {
        let (channels, shared) = (Arc::clone(&channels), Arc::clone(shared));
        let lane = Lane { address, conn, channels, bytes: options.bytes, shared };
        lanes.spawn(lane.run(Arc::clone(&queue)));
    }
    let mut all = Published::default();
    while let Some(lane) = next_end(&mut lanes, shared).await {
        let one = lane?;
        all.acked += one.acked;
        all.refused += one.refused;
        all.refusal = all.refusal.or(one.refusal);
    }
    drop(queue); // Ends the pace, whatever ended the lanes.
    pacing.join().map_err(|_| anyhow!("the pacing thread ended"))?;
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

/// Says each event when it is due. On a thread of its own: the runtime's timers are no finer than a millisecond.
fn pace(rate: f64, begin_us: u64, shared: &Shared, due: &mpsc::UnboundedSender<Mark>) {
    for seq in 0.. {
        let due_us = begin_us + (seq as f64 * 1e6 / rate) as u64;
        sleep_until_us(due_us);
        if shared.no_more.load(Ordering::Relaxed) || due.send(Mark { due_us, seq }).is_err() {
            return;
        }
    }
}

/// A connection that publishes one event after the other.
struct Lane {
    address: SocketAddr,
    conn: HttpConn,
    channels: Arc<[String]>,
    bytes: usize,
    shared: Arc<Shared>,
}

impl Lane {
    async fn run(mut self, queue: Queue) -> anyhow::Result<Published> {
        let mut published = Published::default();
        loop {
            let Some(mark) = queue.lock().await.recv().await else { return Ok(published) };
            if self.shared.no_more.load(Ordering::Relaxed) {
                continue; // Overdue, and not wanted any more: it was never published.
            }
            let channel = &self.channels[mark.seq as usize % self.channels.len()];
            let body = json!({"channel": channel, "data": mark.data(self.bytes)}).to_string();
            let response = self.conn.exchange(&post("/v1/publish", &body)).await.context("publish")?;
            if response.head.status == 200 {
                published.acked += 1;
            } else {
                published.refused += 1;
                published
                    .refusal
                    .get_or_insert_with(|| format!("{} {}", response.head.status, response.text()));
            }
            if response.is_last() {
                self.conn = HttpConn::connect(self.address).await?;
            }
        }
    }
}
