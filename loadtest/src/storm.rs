//! `loadtest storm`: what live subscribers notice while thousands of clients come back at once.
//!
//! **Owns** the clients that go and come back. Each follows one channel; they are dropped by a reset, miss some events, and
//! all come at once, with their cursors. Each event of a channel has a number, so that a client knows what it must get next:
//! whatever it skips is lost, whatever it has already is there twice. Beside them the same few subscribers hear a steady flow;
//! their p99 while the clients come is judged against theirs shortly before.

mod client;
mod report;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::Rng as _;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::clock::now_us;
use crate::files::make_room;
use crate::flow::{Flow, FlowOptions};
use crate::histogram::Histogram;
use crate::http::{HttpConn, post};
use crate::mark::Mark;
use crate::verify::{Cluster, channels};
use client::{Client, Tally};

pub use report::{Pair, Report};

/// Bytes of an event that clients miss.
const MISSED_BYTES: usize = 100;
/// Opening for the first time is no storm: so many at once.
const OPENING_AT_ONCE: usize = 256;
/// Between two parts of a pair: what the one has left behind is done by then.
const CALM: Duration = Duration::from_secs(1);
/// Most events of one request.
const BATCH_LIMIT: usize = 500;

/// What shall be done.
#[derive(Debug, Clone, Serialize)]
pub struct StormOptions {
    /// That go and come back.
    pub clients: usize,
    /// Channels that they share: each follows one.
    pub channels: usize,
    /// Events of each channel that are published while they are away.
    pub missed: u64,
    /// Live subscribers, each of which gets every event of the flow.
    pub receivers: usize,
    /// Events a second of the flow.
    pub rate: f64,
    /// How long the quiet lasts in which the subscribers are measured.
    pub quiet_seconds: f64,
    /// Quiet and storm, so many times.
    pub pairs: usize,
    /// How long a client tries to come back.
    pub patience: Duration,
    /// A fault for tests, in the first client.
    #[serde(skip)]
    pub planted: Option<Planted>,
}

impl Default for StormOptions {
    fn default() -> Self {
        Self {
            clients: 5_000,
            channels: 100,
            missed: 5,
            receivers: 20,
            rate: 200.0,
            quiet_seconds: 5.0,
            pairs: 5,
            patience: Duration::from_secs(30),
            planted: None,
        }
    }
}

/// What a client may do wrong, to be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// It shows its first cursor again and again.
    OldCursor,
    /// It shows none.
    NoCursor,
}

/// Lets the clients go and come back. Calls `progress` with lines that end (they last) and lines that do not.
///
/// # Errors
/// When a limit binds, a process cannot be reached, or the flow is not complete.
pub async fn storm(
    options: &StormOptions,
    cluster: &Cluster,
    progress: impl Fn(&str),
) -> anyhow::Result<Report> {
    make_room(options.clients + options.receivers)?;
    let mut storm = Storm::new(options, cluster);
    let gateways: Vec<_> = cluster.gateways.iter().map(|gateway| gateway.public).collect();
    let flow = FlowOptions {
        receivers: options.receivers,
        rate: options.rate,
        ..FlowOptions::new(cluster, gateways, "storm-live")
    };
    tokio::select! {
        report = storm.run(&flow, &progress) => report,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    }
}

struct Storm<'a> {
    options: &'a StormOptions,
    apis: Vec<SocketAddr>,
    channels: Vec<String>,
    clients: Vec<Client>,
    /// Events that each channel has.
    published: u64,
}

/// When what was measured, on the shared clock.
struct Window {
    quiet: (u64, u64),
    storm: (u64, u64),
    /// How long each client took to come back and catch up.
    back: Histogram,
    refused: u64,
    late: u64,
}

impl<'a> Storm<'a> {
    fn new(options: &'a StormOptions, cluster: &Cluster) -> Self {
        let prefix = format!("storm:{:08x}", rand::rng().random::<u32>());
        let channels = channels(&prefix, options.channels.min(options.clients).max(1), cluster.partitions);
        let client = |number: usize| {
            let gateway = cluster.gateways[number % cluster.gateways.len()].public;
            let planted = options.planted.filter(|_| number == 0);
            // Neighbours in number are on other gateways and on the same channel.
            Client::new(gateway, &channels[number / cluster.gateways.len() % channels.len()], planted)
        };
        Self {
            options,
            apis: cluster.routers.iter().map(|router| router.api).collect(),
            clients: (0..options.clients).map(client).collect(),
            channels,
            published: 0,
        }
    }

    async fn run(&mut self, flow: &FlowOptions, progress: &impl Fn(&str)) -> anyhow::Result<Report> {
        progress("opening");
        self.come(OPENING_AT_ONCE).await.context("opening")?;
        self.publish(1).await?;
        self.hear().await?;
        let flow = Flow::start(flow).await?;
        let mut windows = Vec::new();
        for number in 1..=self.options.pairs {
            let title = format!("pair {number}/{}", self.options.pairs);
            let window = self.pair(&title, progress).await?;
            let (back, seconds) = (window.back.quantiles(), (window.storm.1 - window.storm.0) as f64 / 1e6);
            progress(&format!(
                "{title}  {} clients came back within {seconds:.1} s (half of them within {:.0} ms), {} times refused\n",
                self.options.clients, back.p50_ms, window.refused
            ));
            windows.push(window);
            if !flow.is_running() {
                break;
            }
        }
        let heard = flow.stop().await?;
        heard.complete()?;
        let tallies = self.clients.iter().map(Client::tally);
        let tally = tallies.fold(Tally::default(), Tally::and);
        let pairs = windows.into_iter().map(|window| {
            let (quiet, storm) = (window.quiet, window.storm);
            Pair::new(
                heard.between(quiet.0, quiet.1).quantiles(),
                heard.between(storm.0, storm.1).quantiles(),
                (storm.1 - storm.0) as f64 / 1e6,
                window.back.quantiles(),
                (window.refused, window.late),
            )
        });
        Ok(Report::new(self.options.clone(), pairs.collect(), tally))
    }

    async fn pair(&mut self, title: &str, progress: &impl Fn(&str)) -> anyhow::Result<Window> {
        pause(CALM).await;
        progress(&format!("{title}  quiet"));
        let quiet_us = now_us();
        pause(Duration::from_secs_f64(self.options.quiet_seconds)).await;
        let quiet = (quiet_us, now_us());
        progress(&format!("{title}  all go, and miss {} events each", self.options.missed));
        for client in &mut self.clients {
            client.reset()?;
        }
        pause(CALM).await;
        self.publish(self.options.missed).await?;
        pause(CALM).await;
        progress(&format!("{title}  all come"));
        let storm_us = now_us();
        let (back, refused, late) = self.come(usize::MAX).await?;
        let storm = (storm_us, now_us());
        // What comes live behind what was missed: nothing may lie between them, nor come again.
        self.publish(1).await?;
        self.hear().await?;
        Ok(Window { quiet, storm, back, refused, late })
    }

    /// All clients connect and catch up, so many at once. How long each took, how often they were refused, and how many
    /// did not manage.
    async fn come(&mut self, at_once: usize) -> anyhow::Result<(Histogram, u64, u64)> {
        let (wanted, patience) = (self.published, self.options.patience);
        let (mut waiting, mut coming) = (std::mem::take(&mut self.clients), JoinSet::new());
        let (mut back, mut refused, mut late) = (Histogram::default(), 0, 0);
        loop {
            while coming.len() < at_once
                && let Some(mut client) = waiting.pop()
            {
                coming.spawn(async move {
                    let begun = Instant::now();
                    let came = client.come(wanted, begun + patience).await;
                    (client, came, begun.elapsed())
                });
            }
            let Some(ended) = coming.join_next().await else { return Ok((back, refused, late)) };
            let (client, came, took) = ended.context("a client's task ended")?;
            refused += came.refused;
            match came.is_back {
                true => back.add(took.as_micros() as u64),
                false => late += 1,
            }
            self.clients.push(client);
        }
    }

    /// All clients that are there get what was published last.
    async fn hear(&mut self) -> anyhow::Result<()> {
        let (wanted, deadline) = (self.published, Instant::now() + self.options.patience);
        let mut hearing = JoinSet::new();
        for mut client in std::mem::take(&mut self.clients) {
            hearing.spawn(async move {
                client.hear(wanted, deadline).await;
                client
            });
        }
        while let Some(client) = hearing.join_next().await {
            self.clients.push(client.context("a client's task ended")?);
        }
        Ok(())
    }

    /// So many further events on every channel.
    async fn publish(&mut self, count: u64) -> anyhow::Result<()> {
        let numbers = self.published..self.published + count;
        let event = |seq: u64, channel: &String| json!({"channel": channel, "data": Mark { due_us: now_us(), seq }.data(MISSED_BYTES)});
        let items: Vec<_> =
            numbers.flat_map(|seq| self.channels.iter().map(move |channel| event(seq, channel))).collect();
        let api = *self.apis.first().context("no router")?;
        let mut conn = HttpConn::connect(api).await.with_context(|| format!("cannot connect to {api}"))?;
        for batch in items.chunks(BATCH_LIMIT) {
            let response = conn.exchange(&post("/v1/publish/batch", &json!(batch).to_string())).await?;
            let status = response.head.status; // 207 when one of them was not accepted.
            ensure!(status == 200, "not all events were published: {status} {}", response.text());
        }
        self.published += count;
        Ok(())
    }
}

async fn pause(time: Duration) {
    sleep_until(Instant::now() + time).await;
}
