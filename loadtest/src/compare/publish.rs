//! Publishing over HTTP, at a steady rate or as much as fits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::receive::Shared;
use super::schedule::Schedule;
use crate::clock::now_us;
use crate::mark::Mark;
use crate::publisher::{Pace, PublishConn, Queue};

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
        let count = LANES_LIMIT.min(load.in_flight as usize).max(1);
        let publishers = PublishConn::connect_all(&self.addresses, count).await?;
        let ((due, queue), bytes, mut lanes) = (Queue::new(), load.bytes, JoinSet::new());
        for publisher in publishers {
            lanes.spawn(lane(publisher, queue.clone(), Arc::clone(&self.request), bytes));
        }
        drop(queue);
        let pace = Pace::start(move |seq| load.due_us(seq, &shared), move |mark| due.send(mark).is_ok())?;
        while let Some(lane) = lanes.join_next().await {
            lane.context("a publisher's task ended")??;
        }
        pace.join()
    }
}

impl Load {
    /// When an event is due; waits until it fits when as many as fit are wanted.
    fn due_us(&self, seq: u64, shared: &Shared) -> Option<u64> {
        let Self { schedule, sockets, in_flight, .. } = self;
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
        (due_us < schedule.end_us()).then_some(due_us)
    }
}

async fn lane(
    mut publisher: PublishConn,
    queue: Queue<Mark>,
    request: Request,
    bytes: usize,
) -> anyhow::Result<()> {
    while let Some(mark) = queue.next().await {
        let (path, body) = request(mark.seq, mark.data(bytes));
        publisher.publish(&path, &body).await?;
    }
    Ok(())
}
