//! The cluster: events go to the routers' API, and come out of the gateways' WebSockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rand::Rng as _;
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::arrivals::{Awaited, data, receive};
use super::pace::{Pace, Share};
use super::report::Quantiles;
use super::{KafkaOptions, arrived};
use crate::connection::{Connection, Transport};
use crate::publisher::{PublishConn, Queue};
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

/// How an event travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Class {
    /// Through the log, to every receiver.
    Durable,
    /// Past the log, to every receiver, at most once.
    Ephemeral,
    /// To one user's connection, at most once.
    Direct,
}

impl Class {
    pub(super) const ALL: [Self; 3] = [Self::Durable, Self::Ephemeral, Self::Direct];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Ephemeral => "ephemeral",
            Self::Direct => "direct",
        }
    }
}

/// Of one class in one round.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    pub(super) class: Class,
    /// From due to received.
    pub(super) arrived: Quantiles,
    /// From due to answered.
    pub(super) acked: Quantiles,
    /// Deliveries that never came; only what is sent at most once may have any.
    pub(super) lost: usize,
}

/// Who follows what, and where an event of this number goes.
struct Plan {
    class: Class,
    channels: Vec<String>,
    users: Vec<String>,
    bytes: usize,
}

impl Plan {
    fn new(class: Class, options: &KafkaOptions, partitions: u32) -> Self {
        let prefix = format!("latency:{:08x}", rand::rng().random::<u32>());
        let user = |number| format!("{}-{number}", prefix.replace(':', "-"));
        let count = partitions.min(CHANNELS_LIMIT) as usize;
        Self {
            class,
            channels: channels(&prefix, count, partitions),
            users: (0..options.receivers).map(user).collect(),
            bytes: options.bytes,
        }
    }

    /// What a receiver asks for.
    fn query(&self, number: usize) -> String {
        match self.class {
            Class::Direct => format!("channel={}&user={}", self.channels[0], self.users[number]),
            Class::Durable | Class::Ephemeral => {
                let query: Vec<_> =
                    self.channels.iter().map(|channel| format!("channel={channel}")).collect();
                query.join("&")
            }
        }
    }

    /// What a receiver is to get.
    fn awaited(&self, number: usize, pace: Pace) -> Awaited {
        let share = match self.class {
            Class::Direct => Share { number: number as u64, of: self.users.len() as u64 },
            Class::Durable | Class::Ephemeral => Share::ALL,
        };
        Awaited { pace, share, may_miss: self.class != Class::Durable }
    }

    /// The path and body that publish an event.
    fn request(&self, seq: u64) -> (&'static str, String) {
        let channel = &self.channels[seq as usize % self.channels.len()];
        let data = data(seq, self.bytes);
        let (path, body) = match self.class {
            Class::Durable => ("/v1/publish", json!({"channel": channel, "data": data})),
            Class::Ephemeral => ("/v1/publish", json!({"channel": channel, "data": data, "ephemeral": true})),
            Class::Direct => {
                let user = &self.users[seq as usize % self.users.len()];
                ("/v1/direct", json!({"user": user, "data": data}))
            }
        };
        (path, body.to_string())
    }
}

/// From due to arrived, and from due to acked.
pub(super) async fn measure(
    class: Class,
    options: &KafkaOptions,
    cluster: &Cluster,
) -> anyhow::Result<Measured> {
    let plan = Arc::new(Plan::new(class, options, cluster.partitions));
    let mut connections = Vec::new();
    for number in 0..options.receivers {
        let gateway = &cluster.gateways[number % cluster.gateways.len()];
        let connection = Connection::open(gateway.public, Transport::Ws, &plan.query(number)).await;
        connections.push(connection.with_context(|| gateway.name.clone())?.into_parts());
    }
    let apis: Vec<_> = cluster.routers.iter().map(|router| router.api).collect();
    let count = LANES_MIN.max(options.rate * ACK_MS_FORESEEN / 1_000);
    let publishers = PublishConn::connect_all(&apis, count as usize).await?;
    let pace = Pace::new(options.rate, options.seconds);
    let (mut receivers, mut pongs, mut lanes) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    let mut owed = 0;
    for (number, (stream, unread)) in connections.into_iter().enumerate() {
        let (read, write) = stream.into_split();
        let awaited = plan.awaited(number, pace);
        owed += pace.count_of(awaited.share);
        receivers.spawn(receive(read, unread, awaited));
        pongs.spawn(answer_pings(write));
    }
    let (due, queue) = Queue::new();
    for publisher in publishers {
        let lane = Lane { publisher, plan: Arc::clone(&plan), pace };
        lanes.spawn(lane.run(queue.clone()));
    }
    drop(queue);
    pace.spawn(move |seq| due.send(seq).is_ok())?;
    let mut acks = Vec::new();
    let came = arrived(&mut receivers, &mut lanes, &mut acks).await?;
    while let Some(lane) = timeout_at(pace.deadline().into(), lanes.join_next()).await.context("acks")? {
        acks.extend(lane.context("a publisher's task ended")??);
    }
    ensure!(acks.len() == pace.count(), "{} of {} events were acked", acks.len(), pace.count());
    let lost = owed - came.len();
    Ok(Measured { class, arrived: Quantiles::of(came), acked: Quantiles::of(acks), lost })
}

/// Until the gateway closes, or the task is aborted.
async fn answer_pings(mut write: OwnedWriteHalf) {
    while write.write_all(&PONG).await.is_ok() {
        tokio::time::sleep(PONG_INTERVAL).await;
    }
}

/// A connection that publishes one event after the other.
struct Lane {
    publisher: PublishConn,
    plan: Arc<Plan>,
    pace: Pace,
}

impl Lane {
    async fn run(mut self, queue: Queue<u64>) -> super::Measured {
        let mut acks = Vec::new();
        while let Some(seq) = queue.next().await {
            let (path, body) = self.plan.request(seq);
            self.publisher.publish(path, &body).await?;
            let now = Instant::now();
            if self.pace.place(seq).is_some() {
                acks.push(self.pace.since_due(seq, now));
            }
        }
        Ok(acks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_goes_its_way_and_a_direct_event_to_one_receiver() {
        let options = KafkaOptions { seconds: 1, rate: 100, receivers: 3, rounds: 1, bytes: 20 };
        let plan = |class| Plan::new(class, &options, 4);
        assert!(plan(Class::Ephemeral).request(1).1.contains("\"ephemeral\":true"));
        assert!(!plan(Class::Durable).request(1).1.contains("ephemeral"));
        let (direct, pace) = (plan(Class::Direct), Pace::new(100, 1));
        for seq in 200..210 {
            let is_for = |number: &usize| direct.awaited(*number, pace).share.has(seq);
            let number = (0..3).find(is_for).expect("somebody");
            let user = format!("\"user\":\"{}\"", direct.users[number]);
            assert!(direct.request(seq).1.contains(&user), "{seq}");
            assert!(direct.query(number).ends_with(&direct.users[number]), "{seq}");
        }
    }
}
