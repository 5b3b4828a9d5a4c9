//! Publishers: each sends one event after the other at its pace, and retries what is not answered, with its key, at another
//! router, until it is acked.

use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::cluster::{Cluster, Router};
use super::progress::Progress;
use crate::history::{PublishLine, Run, Writers};
use crate::http::{HttpConn, Response, post};

/// Events a second that one publisher sends at most: it waits for each ack.
const EVENTS_OF_A_LANE: u64 = 20;
/// Time for one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest wait before the next attempt.
const BACKOFF_MS: u64 = 200;

/// One publisher of one channel. Not `publisher`'s: it changes routers with an event under way, and slows down for acks.
pub(super) struct Lane {
    channel: String,
    run: String,
    number: u64,
    pace: Duration,
    routers: Vec<Router>,
    /// Where the next event goes; a router that did not answer is left.
    at: usize,
    conn: Option<HttpConn>,
    writers: Writers,
    progress: Progress,
}

/// What became of an attempt.
enum Outcome {
    Acked(String),
    /// Final.
    Refused(u16, String),
    /// Not answered, or not now: to be sent again with its key.
    Again,
}

/// The publishers of a run, which together keep its rate.
pub(super) fn lanes(run: &Run, cluster: &Cluster, writers: &Writers, progress: &Progress) -> Vec<Lane> {
    let channels = run.channels.len() as u64;
    let each = run.rate.div_ceil(channels * EVENTS_OF_A_LANE).max(1);
    let count = channels * each;
    let pace = Duration::from_secs_f64(count as f64 / run.rate.max(1) as f64);
    let lane = |number: u64| Lane {
        channel: run.channels[(number % channels) as usize].clone(),
        run: run.run.clone(),
        number,
        pace,
        routers: cluster.routers.clone(),
        at: number as usize % cluster.routers.len(),
        conn: None,
        writers: writers.clone(),
        progress: progress.clone(),
    };
    (0..count).map(lane).collect()
}

impl Lane {
    /// Publishes until `until`; what is under way then is retried until `give_up`.
    pub(super) async fn run(mut self, until: Instant, give_up: Instant) {
        let mut due = Instant::now() + self.pace.mul_f64(rand::rng().random());
        for seq in 0.. {
            sleep_until(due).await;
            let sent = Instant::now();
            if sent >= until {
                return;
            }
            // What a pause held back follows at twice the rate: all at once would be a load that no backend makes.
            due = (due + self.pace).max(sent + self.pace / 2);
            let key = format!("{}-{}-{seq}", self.run, self.number);
            self.publish(key, seq, give_up).await;
        }
    }

    async fn publish(&mut self, key: String, seq: u64, give_up: Instant) {
        let channel = self.channel.clone();
        let body = json!({"channel": channel, "data": {"key": key}, "idempotency_key": key}).to_string();
        for attempt in 1.. {
            let router = self.routers[self.at].clone();
            let t_us = self.writers.now_us();
            let (key, channel) = (key.clone(), channel.clone());
            let line = PublishLine::Publish {
                t_us,
                key: key.clone(),
                channel: channel.clone(),
                seq,
                attempt,
                router: router.name,
            };
            self.writers.publishes.write(&line).await;
            let outcome = self.attempt(router.api, &body).await;
            let t_us = self.writers.now_us();
            match outcome {
                Outcome::Acked(pos) => {
                    self.progress.acked(&channel, &pos);
                    return self
                        .writers
                        .publishes
                        .write(&PublishLine::Ack { t_us, key, channel, seq, pos })
                        .await;
                }
                Outcome::Refused(status, detail) => {
                    let line = PublishLine::Refused { t_us, key, channel, seq, status, detail };
                    return self.writers.publishes.write(&line).await;
                }
                Outcome::Again if Instant::now() >= give_up => return,
                Outcome::Again => {
                    self.progress.retried();
                    (self.conn, self.at) = (None, (self.at + 1) % self.routers.len());
                    let backoff_ms = rand::rng().random_range(0..BACKOFF_MS);
                    sleep(Duration::from_millis(backoff_ms)).await;
                }
            }
        }
    }

    async fn attempt(&mut self, api: SocketAddr, body: &str) -> Outcome {
        let asking = async {
            let mut conn = match self.conn.take() {
                Some(conn) => conn,
                None => HttpConn::connect(api).await?,
            };
            let response = conn.exchange(&post("/v1/publish", body)).await?;
            if !response.is_last() {
                self.conn = Some(conn);
            }
            std::io::Result::Ok(response)
        };
        match timeout(ATTEMPT_TIMEOUT, asking).await {
            Ok(Ok(response)) => judge(&response),
            Ok(Err(_)) | Err(_) => Outcome::Again,
        }
    }
}

fn judge(response: &Response) -> Outcome {
    let answer: Option<Value> = serde_json::from_slice(&response.body).ok();
    let pos = answer.as_ref().and_then(|answer| answer["pos"].as_str());
    match (response.head.status, pos) {
        (200, Some(pos)) => Outcome::Acked(pos.to_owned()),
        (408 | 429 | 500.., _) => Outcome::Again,
        (status, _) => Outcome::Refused(status, response.text()),
    }
}
