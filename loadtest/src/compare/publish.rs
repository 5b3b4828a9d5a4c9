//! Publishing over HTTP, at a steady rate or as much as fits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::receive::Shared;
use super::schedule::Schedule;
use crate::clock::{now_us, sleep_until_us};
use crate::http::{HttpConn, post};
use crate::mark::Mark;

/// Connections that publish, at most; each has one event under way.
const LANES_LIMIT: usize = 64;
/// How often it is looked whether another event fits.
const LOOK_INTERVAL: Duration = Duration::from_micros(200);

/// Makes a request's path and body of an event.
pub(super) type Request = Arc<dyn Fn(u64, String) -> (String, String) + Send + Sync>;

/// Where events go.
#[derive(Clone)]
pub(super) struct Publisher {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) request: Request,
}

/// What shall be published.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) schedule: Schedule,
    pub(super) sockets: u64,
    pub(super) bytes: usize,
    /// When as many as fit: events that are on their way at once.
    pub(super) in_flight: u64,
}

impl Publisher {
    /// Publishes until the schedule ends; returns how many, when all are acked.
    pub(super) async fn run(&self, load: Load, shared: Arc<Shared>) -> anyhow::Result<u64> {
        let mut connections = Vec::new();
        for address in self.addresses.iter().cycle().take(LANES_LIMIT.min(load.in_flight as usize).max(1)) {
            let connection = HttpConn::connect(*address).await;
            connections.push((*address, connection.with_context(|| format!("cannot connect to {address}"))?));
        }
        let (due, queue) = mpsc::unbounded_channel(); // Bounded by the schedule, which is at most an hour of events.
        let (queue, bytes) = (Arc::new(Mutex::new(queue)), load.bytes);
        let mut lanes = JoinSet::new();
        for (address, connection) in connections {
            lanes.spawn(lane(address, connection, Arc::clone(&queue), Arc::clone(&self.request), bytes));
        }
        let pace =
            std::thread::Builder::new().name("pace".into()).spawn(move || pace(&load, &shared, &due))?;
        while let Some(lane) = lanes.join_next().await {
            lane.context("a publisher's task ended")??;
        }
        pace.join().map_err(|_| anyhow::anyhow!("the pacing thread ended"))
    }
}

/// On a thread of its own: the runtime's timers are no finer than a millisecond.
fn pace(load: &Load, shared: &Shared, due: &mpsc::UnboundedSender<Mark>) -> u64 {
    let Load { schedule, sockets, in_flight, .. } = load;
    for seq in 0.. {
        let due_us = match schedule.rate {
            Some(rate) => schedule.due_us(seq, rate),
            None => {
                // Every socket on average is through with all but the last few.
                while seq >= shared.received.load(Ordering::Relaxed) / sockets + in_flight
                    && now_us() < schedule.end_us()
                {
                    std::thread::sleep(LOOK_INTERVAL);
                }
                now_us().max(schedule.begin_us)
            }
        };
        if due_us >= schedule.end_us() {
            return seq;
        }
        sleep_until_us(due_us);
        if due.send(Mark { due_us, seq }).is_err() {
            return seq;
        }
    }
    0
}

/// One connection, one event after the other.
async fn lane(
    address: SocketAddr,
    mut connection: HttpConn,
    queue: Arc<Mutex<mpsc::UnboundedReceiver<Mark>>>,
    request: Request,
    bytes: usize,
) -> anyhow::Result<()> {
    loop {
        let Some(mark) = queue.lock().await.recv().await else { return Ok(()) };
        let (path, body) = request(mark.seq, mark.data(bytes));
        let response = connection.exchange(&post(&path, &body)).await.context("publish")?;
        let status = response.head.status;
        ensure!((200..300).contains(&status), "a publish was answered with {status} {}", response.text());
        if response.is_last() {
            connection = HttpConn::connect(address).await?;
        }
    }
}
