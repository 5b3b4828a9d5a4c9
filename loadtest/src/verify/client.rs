//! Subscribers: each follows its channels over one transport, writes down what comes as it comes, and returns with its last
//! cursor, at a random gateway, whenever its connection ends.

mod object;
mod poll;
mod stream;

use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use tokio::sync::watch;

use super::cluster::{Cluster, Gateway};
use super::progress::Progress;
use crate::history::{ClientLine, ClientPlan, Delivery, Receiving, Writers};
use object::Object;

/// Longest wait before a client returns: full jitter.
const JITTER_MS: u64 = 1_000;
/// Time to connect, and again to the first answer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection ended.
type Ended = String;

/// One subscriber.
pub(super) struct Subscriber {
    plan: ClientPlan,
    gateways: Vec<Gateway>,
    writers: Writers,
    progress: Progress,
    /// As it last came on the wire.
    cursor: Option<String>,
    connection: u32,
    /// Channels that were said to be pending on this connection.
    pending: Vec<String>,
}

impl Subscriber {
    pub(super) fn new(plan: ClientPlan, cluster: &Cluster, writers: Writers, progress: Progress) -> Self {
        let gateways = cluster.gateways.clone();
        Self { plan, gateways, writers, progress, cursor: None, connection: 0, pending: Vec::new() }
    }

    /// Follows until it is told to stop.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow_for_ever() => {}
            _ = stop.wait_for(|is_stopped| *is_stopped) => {}
        }
    }

    async fn follow_for_ever(&mut self) {
        loop {
            // At the start as well: nobody's clients all come in one moment.
            let jitter_ms = rand::rng().random_range(0..JITTER_MS);
            tokio::time::sleep(Duration::from_millis(jitter_ms)).await;
            let Some(gateway) = self.gateways.choose(&mut rand::rng()).cloned() else { return };
            self.connection += 1;
            self.pending.clear();
            let line = ClientLine::Connect {
                t_us: self.writers.now_us(),
                client: self.plan.client,
                connection: self.connection,
                transport: self.plan.transport,
                gateway: gateway.name,
                cursor: self.cursor.clone(),
            };
            self.writers.clients.write(&line).await;
            self.progress.connected(1);
            let reason = match self.plan.transport {
                Receiving::Ws | Receiving::Sse | Receiving::Ndjson => {
                    stream::follow(self, gateway.public).await
                }
                Receiving::LongPoll | Receiving::ShortPoll => poll::follow(self, gateway.public).await,
            };
            self.progress.connected(-1);
            let (t_us, client, connection) = (self.writers.now_us(), self.plan.client, self.connection);
            self.writers.clients.write(&ClientLine::Cut { t_us, client, connection, reason }).await;
        }
    }

    /// The request line's target, with the cursor unless it goes into a header.
    fn target(&self, with_cursor: bool) -> String {
        // Channel names and cursors have no byte that a query would have to escape.
        let channels = self.plan.channels.iter().map(|channel| format!("channel={channel}"));
        let cursor = self.cursor.iter().filter(|_| with_cursor).map(|cursor| format!("cursor={cursor}"));
        format!("/v1/events?{}", channels.chain(cursor).collect::<Vec<_>>().join("&"))
    }

    /// Writes down one object; what ends the connection is returned.
    async fn take(&mut self, object: Object) -> Result<(), Ended> {
        let (t_us, client, connection) = (self.writers.now_us(), self.plan.client, self.connection);
        if let Some(cursor) = &object.cursor {
            self.cursor = Some(cursor.clone());
        }
        let line = match object.kind.as_str() {
            "event" => {
                let (channel, pos) = (object.channel, object.pos.unwrap_or_default());
                self.progress.received(client, &channel, &pos);
                let (key, cursor) = (object.key.unwrap_or_default(), object.cursor);
                ClientLine::Event(Delivery { t_us, client, connection, channel, key, pos, cursor })
            }
            "state" => {
                let cursor = object.cursor.unwrap_or_default();
                let [recovered, fresh, lost, pending] =
                    self.own([object.recovered, object.fresh, object.lost, object.pending]);
                self.progress.established(client, recovered.iter().chain(&fresh).chain(&lost));
                self.pending.extend(pending.iter().cloned());
                ClientLine::State { t_us, client, connection, cursor, recovered, fresh, lost, pending }
            }
            "gap" => {
                let (channel, reason) = (object.channel, object.reason);
                ClientLine::Gap { t_us, client, connection, channel, reason }
            }
            "close" => {
                let (code, reason) = (object.code, object.reason);
                let ended = Err(format!("closed: {code} {reason}"));
                self.writers
                    .clients
                    .write(&ClientLine::Close { t_us, client, connection, code, reason })
                    .await;
                return ended;
            }
            _ => return Ok(()),
        };
        self.writers.clients.write(&line).await;
        Ok(())
    }

    /// Without `everyone`, which every connection follows.
    fn own<const N: usize>(&self, lists: [Vec<String>; N]) -> [Vec<String>; N] {
        lists.map(|list| list.into_iter().filter(|name| self.plan.channels.contains(name)).collect())
    }
}

/// Within the time for it, or the reason why not.
async fn within<T>(
    time: Duration,
    what: &str,
    doing: impl Future<Output = std::io::Result<T>>,
) -> Result<T, Ended> {
    match tokio::time::timeout(time, doing).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: nothing for {time:?}")),
    }
}

/// Connects.
async fn open(address: SocketAddr) -> Result<crate::http::HttpConn, Ended> {
    within(OPEN_TIMEOUT, "connect", crate::http::HttpConn::connect(address)).await
}
