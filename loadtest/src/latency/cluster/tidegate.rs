//! The cluster: events go to the routers' API, and come out of the gateways' WebSockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rand::Rng as _;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::arrivals::{data, receive};
use super::pace::Pace;
use super::report::Quantiles;
use super::{KafkaOptions, Measured, arrived};
use crate::connection::{Connection, Transport};
use crate::http::{HttpConn, post};
use crate::verify::{Cluster, channels};

/// Most channels: every receiver follows them all.
const CHANNELS_LIMIT: u32 = 64;
/// Fewest connections that publish.
const LANES_MIN: u64 = 32;
/// Milliseconds that an ack may take before events wait for a connection.
const ACK_MS_FORESEEN: u64 = 200;
/// A pong of a client without content; the mask is four zeros.
const PONG: [u8; 6] = [0x8A, 0x80, 0, 0, 0, 0];
/// How often a receiver sends one, unasked: sooner than the gateway would miss it.
const PONG_INTERVAL: Duration = Duration::from_secs(5);

/// The numbers of the events that are due, for whichever lane is free.
type Queue = Arc<Mutex<mpsc::UnboundedReceiver<u64>>>;

/// From due to arrived, and from due to acked.
pub(super) async fn measure(
    options: &KafkaOptions,
    cluster: &Cluster,
) -> anyhow::Result<(Quantiles, Quantiles)> {
    let prefix = format!("latency:{:08x}", rand::rng().random::<u32>());
    let channels = channels(&prefix, cluster.partitions.min(CHANNELS_LIMIT) as usize, cluster.partitions);
    let query: Vec<_> = channels.iter().map(|channel| format!("channel={channel}")).collect();
    let mut connections = Vec::new();
    for number in 0..options.receivers {
        let gateway = &cluster.gateways[number % cluster.gateways.len()];
        let connection = Connection::open(gateway.public, Transport::Ws, &query.join("&")).await;
        connections.push(connection.with_context(|| gateway.name.clone())?.into_parts());
    }
    let mut publishers = Vec::new();
    for number in 0..LANES_MIN.max(options.rate * ACK_MS_FORESEEN / 1_000) {
        let router = &cluster.routers[number as usize % cluster.routers.len()];
        publishers.push((router.api, HttpConn::connect(router.api).await.context(router.name.clone())?));
    }
    let pace = Pace::new(options.rate, options.seconds);
    let (mut receivers, mut pongs, mut lanes) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    for (stream, unread) in connections {
        let (read, write) = stream.into_split();
        receivers.spawn(receive(read, unread, pace));
        pongs.spawn(answer_pings(write));
    }
    let (due, queue) = mpsc::unbounded_channel();
    let (queue, channels) = (Arc::new(Mutex::new(queue)), Arc::new(channels));
    for (api, conn) in publishers {
        let lane = Lane { api, conn, channels: Arc::clone(&channels), bytes: options.bytes, pace };
        lanes.spawn(lane.run(Arc::clone(&queue)));
    }
    pace.spawn(move |seq| due.send(seq).is_ok())?;
    let mut acks = Vec::new();
    let durable = arrived(&mut receivers, &mut lanes, &mut acks).await?;
    while let Some(lane) = timeout_at(pace.deadline().into(), lanes.join_next()).await.context("acks")? {
        acks.extend(lane.context("a publisher's task ended")??);
    }
    ensure!(acks.len() == pace.count(), "{} of {} events were acked", acks.len(), pace.count());
    Ok((durable, Quantiles::of(acks)))
}

/// Until the gateway closes, or the task is aborted.
async fn answer_pings(mut write: OwnedWriteHalf) {
    while write.write_all(&PONG).await.is_ok() {
        tokio::time::sleep(PONG_INTERVAL).await;
    }
}

/// A connection that publishes one event after the other.
struct Lane {
    api: SocketAddr,
    conn: HttpConn,
    channels: Arc<Vec<String>>,
    bytes: usize,
    pace: Pace,
}

impl Lane {
    async fn run(mut self, queue: Queue) -> Measured {
        let mut acks = Vec::new();
        loop {
            let Some(seq) = queue.lock().await.recv().await else { return Ok(acks) };
            let channel = &self.channels[seq as usize % self.channels.len()];
            let body = json!({"channel": channel, "data": data(seq, self.bytes)}).to_string();
            let response = self.conn.exchange(&post("/v1/publish", &body)).await.context("publish")?;
            let now = Instant::now();
            ensure!(response.head.status == 200, "publish: {} {}", response.head.status, response.text());
            if self.pace.place(seq).is_some() {
                acks.push(self.pace.since_due(seq, now));
            }
            if response.is_last() {
                self.conn = HttpConn::connect(self.api).await?;
            }
        }
    }
}
