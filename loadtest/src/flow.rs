//! A steady flow of events to a few subscribers, and how late each came, while something else happens to the servers.
//!
//! **Owns** publishers and subscribers on threads of their own, so that thousands of clients of this same process, which run
//! on its other threads, do not delay what is measured more than they delay the servers. Latency counts from when an event
//! was due. It does not judge: it hands out what came, by the time at which it was due.

mod hear;
mod publish;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rand::Rng as _;
use tokio::time::{sleep, timeout};

use crate::clock::now_us;
use crate::histogram::Histogram;
use crate::verify::{Cluster, channels};
use crate::websocket::WebSocket;
use hear::{Listener, Tally};
use publish::Published;

/// Between the last socket that is open and the first event.
const CALM_US: u64 = 200_000;
/// Time after the last event in which everything must have come.
const GRACE: Duration = Duration::from_secs(10);
/// What must not come after everything has come, a repeat for instance, has this long to come.
const AFTERMATH: Duration = Duration::from_millis(200);
/// How often it is looked whether everything has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Time for one subscriber to have its first state.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Most channels of a flow over a whole cluster.
const CHANNELS_LIMIT: u32 = 64;

/// Who gets what, and how much of it.
#[derive(Debug, Clone)]
pub(crate) struct FlowOptions {
    /// Subscribers take turns.
    pub(crate) gateways: Vec<SocketAddr>,
    /// Publishers take turns.
    pub(crate) apis: Vec<SocketAddr>,
    /// Every subscriber follows all; events take turns.
    pub(crate) channels: Vec<String>,
    pub(crate) receivers: usize,
    /// Events a second.
    pub(crate) rate: f64,
    /// Of an event's data.
    pub(crate) bytes: usize,
    /// A fault for tests: the subscribers' thread sleeps so long for each delivery.
    pub(crate) planted_delay: Option<Duration>,
}

impl FlowOptions {
    /// To subscribers of these gateways, on channels that nobody used before, on every partition.
    pub(crate) fn new(cluster: &Cluster, gateways: Vec<SocketAddr>, prefix: &str) -> Self {
        let count = cluster.partitions.min(CHANNELS_LIMIT) as usize;
        let prefix = format!("{prefix}:{:08x}", rand::rng().random::<u32>());
        Self {
            gateways,
            apis: cluster.routers.iter().map(|router| router.api).collect(),
            channels: channels(&prefix, count, cluster.partitions),
            receivers: 10,
            rate: 100.0,
            bytes: 100,
            planted_delay: None,
        }
    }

    fn path(&self) -> String {
        let channels: Vec<_> = self.channels.iter().map(|channel| format!("channel={channel}")).collect();
        format!("/v1/events?{}", channels.join("&"))
    }
}

/// What the threads and their owner tell each other.
#[derive(Debug, Default)]
struct Shared {
    /// Deliveries, repeats apart.
    received: AtomicU64,
    no_more: AtomicBool,
    hear_no_more: AtomicBool,
}

/// A delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) due_us: u64,
    pub(crate) late_us: u64,
}

/// It flows until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Flow {
    begin_us: u64,
    rate: f64,
    receivers: u64,
    shared: Arc<Shared>,
    publisher: Option<JoinHandle<anyhow::Result<Published>>>,
    listener: Option<JoinHandle<anyhow::Result<Tally>>>,
}

/// What came of it all.
#[derive(Debug)]
pub(crate) struct Heard {
    samples: Vec<Sample>,
    /// Events that were published.
    pub(crate) events: u64,
    /// Deliveries that never came.
    pub(crate) lost: u64,
    /// That came again.
    pub(crate) twice: u64,
    /// Publishes that were not answered with success, and the first of these answers.
    pub(crate) refused: u64,
    pub(crate) refusal: Option<String>,
}

impl Heard {
    /// Latencies of what was due from this time, up to that.
    pub(crate) fn between(&self, from_us: u64, to_us: u64) -> Histogram {
        let mut histogram = Histogram::default();
        let within = self.samples.iter().filter(|sample| (from_us..to_us).contains(&sample.due_us));
        within.for_each(|sample| histogram.add(sample.late_us));
        histogram
    }

    /// An event that is missing, there twice or refused makes every latency doubtful.
    pub(crate) fn complete(&self) -> anyhow::Result<()> {
        let Self { lost, twice, refused, refusal, events, .. } = self;
        let refusal = refusal.as_deref().unwrap_or("none");
        anyhow::ensure!(
            lost + twice + refused == 0,
            "of {events} events to the measured subscribers {lost} deliveries did not come, {twice} came twice, {refused} \
             publishes were refused (the first: {refusal})"
        );
        Ok(())
    }
}

impl Flow {
    /// Opens the subscribers and begins.
    pub(crate) async fn start(options: &FlowOptions) -> anyhow::Result<Self> {
        let (path, mut sockets) = (options.path(), Vec::new());
        for number in 0..options.receivers {
            let gateway = options.gateways[number % options.gateways.len()];
            let opening = timeout(OPEN_TIMEOUT, open(gateway, &path));
            let socket = opening.await.context("no state after 20 s")?;
            sockets.push(socket.with_context(|| format!("subscriber {number} at {gateway}"))?);
        }
        let shared = Arc::new(Shared::default());
        let begin_us = now_us() + CALM_US;
        let mut flow = Self {
            begin_us,
            rate: options.rate,
            receivers: options.receivers as u64,
            shared: Arc::clone(&shared),
            publisher: None,
            listener: None,
        };
        let listener = Listener::new(sockets, Arc::clone(&shared), options.planted_delay)?;
        flow.listener =
            Some(std::thread::Builder::new().name("listener".into()).spawn(move || listener.run())?);
        let options = options.clone();
        let publish = move || publish::run(&options, begin_us, &shared);
        flow.publisher = Some(std::thread::Builder::new().name("publisher".into()).spawn(publish)?);
        Ok(flow)
    }

    /// Events that were due by now and that subscribers do not have, on average.
    pub(crate) fn lag(&self) -> f64 {
        let due = (now_us().saturating_sub(self.begin_us) as f64 * self.rate / 1e6).floor();
        (due - self.shared.received.load(Ordering::Relaxed) as f64 / self.receivers as f64).max(0.0)
    }

    /// When the first event was due.
    pub(crate) fn begin_us(&self) -> u64 {
        self.begin_us
    }

    /// Whether it goes on by itself; if not, [`Self::stop`] says why.
    pub(crate) fn is_running(&self) -> bool {
        self.publisher.as_ref().is_some_and(|thread| !thread.is_finished())
            && self.listener.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Publishes nothing more and waits for what is on its way, 10 s at most.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Heard> {
        self.shared.no_more.store(true, Ordering::Relaxed);
        let published = joined(self.publisher.take()).await.context("the publishers")?;
        let owed = published.acked * self.receivers;
        let deadline = now_us() + GRACE.as_micros() as u64;
        while self.shared.received.load(Ordering::Relaxed) < owed && now_us() < deadline {
            sleep(LOOK_INTERVAL).await;
        }
        sleep(AFTERMATH).await;
        self.shared.hear_no_more.store(true, Ordering::Relaxed);
        let tally = joined(self.listener.take()).await.context("the subscribers")?;
        Ok(Heard {
            lost: owed.saturating_sub(tally.samples.len() as u64),
            twice: tally.twice,
            samples: tally.samples,
            events: published.acked,
            refused: published.refused,
            refusal: published.refusal,
        })
    }
}

/// Whatever ends it: its threads do not go on.
impl Drop for Flow {
    fn drop(&mut self) {
        self.shared.no_more.store(true, Ordering::Relaxed);
        self.shared.hear_no_more.store(true, Ordering::Relaxed);
    }
}

async fn open(gateway: SocketAddr, path: &str) -> anyhow::Result<WebSocket> {
    let (mut socket, mut has_state) = (WebSocket::open(gateway, path).await?, false);
    while !has_state {
        socket.read(|_| has_state = true).await?;
    }
    Ok(socket)
}

async fn joined<T: Send + 'static>(thread: Option<JoinHandle<anyhow::Result<T>>>) -> anyhow::Result<T> {
    let thread = thread.context("stopped before")?;
    tokio::task::spawn_blocking(move || thread.join().map_err(|_| anyhow!("the thread ended")))
        .await
        .context("waiting for the thread")??
}
