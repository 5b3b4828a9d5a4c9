//! A shard with clients and without routers: what a delivery costs it.
//!
//! For benchmarks, for counts of instructions and for tests. Not an API.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_tenure::{Outcome, WantFrom};
use tidegate_vocab::{
    Channel, Event, EventName, Incarnation, LogEpoch, Offset, PartitionCounts, PartitionId, Payload, limits,
};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use super::item::{NodeCommand, ShardItem, SharedEvent};
use super::{Shard, Takeover};
use crate::auth::Identity;
use crate::config::{AdmissionConfig, AuthConfig, DrainConfig, GatewayConfig, PresenceConfig, SlowConfig};
use crate::metrics::Metrics;
use crate::request::{CursorParam, EventsRequest, Transport};
use crate::shared::{Parts, Shared};
use crate::socket::ClientSocket;
use crate::upstream_route::UpstreamRoute;

const EPOCH: LogEpoch = LogEpoch(1);
const PARTITIONS: u32 = 16;

/// Some WebSockets that all follow the same channels, and the shard that holds them.
pub struct FanOut {
    runtime: Runtime,
    _local: LocalSet,
    shard: Rc<Shard>,
    clients: Vec<TcpStream>,
    channels: Vec<(Channel, PartitionId)>,
    next: u64,
    _kept: (watch::Sender<bool>, watch::Sender<Option<Duration>>),
}

impl std::fmt::Debug for FanOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FanOut").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}

/// Events that come to the shard together.
#[derive(Debug)]
pub struct Batch(Vec<ShardItem>);

impl FanOut {
    /// Opens the sockets, over loopback, and makes them live.
    ///
    /// # Errors
    /// When a socket cannot be had: each takes two files.
    pub fn open(sockets: usize, channels: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = LocalSet::new();
        let counts = PartitionCounts::same(PARTITIONS);
        let names = (0..channels).filter_map(|number| Channel::parse(&format!("score:{number}")).ok());
        let names: Vec<Channel> = names.collect();
        let (accepting, is_accepting) = watch::channel(true);
        let (draining, is_draining) = watch::channel(None);
        let (to_node, mut commands) = mpsc::channel(limits::NODE_QUEUE_LIMIT);
        let (shard, clients) = local.block_on(&runtime, async {
            let shard = Shard::new(0, shared(counts)?, to_node, is_accepting, is_draining);
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let marks = counts.followed().map(|partition| {
                let next = Offset(1);
                ShardItem::Mark { partition, epoch: EPOCH, next }
            });
            shard.state.borrow_mut().deliver(marks.collect());
            let mut clients = Vec::with_capacity(sockets);
            for _ in 0..sockets {
                clients.push(join(&shard, &listener, &names)?);
                while let Ok(batch) = commands.try_recv() {
                    establish(&shard, batch);
                }
            }
            io::Result::Ok((shard, clients))
        })?;
        let channels = names.into_iter().map(|name| (name.clone(), counts.partition_of(&name))).collect();
        let kept = (accepting, draining);
        let mut fan_out = Self { runtime, _local: local, shard, clients, channels, next: 1, _kept: kept };
        fan_out.drain()?;
        Ok(fan_out)
    }

    /// Events of 100 bytes, one channel after the other.
    pub fn batch(&mut self, events: usize) -> Batch {
        let items = (0..events).map(|_| {
            let (channel, partition) = &self.channels[self.next as usize % self.channels.len()];
            let event = Event {
                channel: channel.clone(),
                name: EventName::MESSAGE,
                payload: Payload::Json(Bytes::from(format!("\"{}\"", "x".repeat(98)))),
                time_ms: crate::clock::unix_ms(),
                offset: Some(Offset(self.next)),
                expires_ms: None,
                trace: None,
            };
            self.next += 1;
            ShardItem::Event(Arc::new(SharedEvent::new(Arc::new(event), *partition, EPOCH)))
        });
        Batch(items.collect())
    }

    /// What is measured: all of the batch to every socket.
    #[inline(never)]
    pub fn deliver(&mut self, batch: Batch) {
        let _context = self.runtime.enter();
        self.shard.state.borrow_mut().deliver(batch.0);
    }

    /// For tests of what else the shard does.
    #[cfg(test)]
    pub(super) fn with_state<T>(&self, look: impl FnOnce(&mut super::State) -> T) -> T {
        let _context = self.runtime.enter();
        look(&mut self.shard.state.borrow_mut())
    }

    /// Reads what the clients were sent; says how many bytes that was.
    ///
    /// # Errors
    /// When one was closed.
    pub fn drain(&mut self) -> io::Result<usize> {
        let (mut total, mut buffer) = (0, vec![0; 64 * 1024]);
        for client in &mut self.clients {
            loop {
                match client.read(&mut buffer) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => total += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(total)
    }
}

/// One more client, in the shard's hands.
fn join(shard: &Rc<Shard>, listener: &TcpListener, names: &[Channel]) -> io::Result<TcpStream> {
    let client = TcpStream::connect(listener.local_addr()?)?;
    client.set_nonblocking(true)?;
    let (stream, from) = listener.accept()?;
    stream.set_nonblocking(true)?;
    let stream = ClientSocket::Plain(tokio::net::TcpStream::from_std(stream)?);
    let request = EventsRequest {
        transport: Transport::WebSocket,
        channels: names.to_vec(),
        cursor: CursorParam::None,
        fresh: WantFrom::Now,
        wait_ms: 0,
        if_none_match: None,
        http_10: false,
        keep_alive: true,
    };
    let (permit, _) = shard.shared.sockets.permit(from.ip()).ok_or(io::ErrorKind::QuotaExceeded)?;
    let takeover =
        Takeover { request, identity: Identity::default(), headers: Vec::new(), ws_head: Some(Vec::new()) };
    shard.adopt(stream, permit, takeover, Vec::new());
    Ok(client)
}

/// Answers what the shard asked of the node task.
fn establish(shard: &Rc<Shard>, commands: Vec<NodeCommand>) {
    let answers = commands.into_iter().filter_map(|command| match command {
        NodeCommand::Subscribe { want, .. } => {
            Some(ShardItem::Established { want, outcome: Outcome::Fresh, epoch: EPOCH, upto: Offset(1) })
        }
        NodeCommand::Cancel { .. } | NodeCommand::Release { .. } => None,
    });
    shard.state.borrow_mut().deliver(answers.collect());
}

/// A gateway's configuration on a port of its own, where no limit is in the way; tests change what they are about.
pub fn config() -> GatewayConfig {
    GatewayConfig {
        public: (Ipv4Addr::LOCALHOST, 0).into(),
        tls: None,
        shards: 1,
        ping_interval: Duration::from_secs(25),
        sse_retry: Duration::from_secs(1),
        connections_limit: usize::MAX,
        channels_limit: 1_000,
        outbox_bytes_limit: 1 << 20,
        outbox_age_limit: Duration::from_secs(10),
        slow_consumers: SlowConfig::default(),
        admission: AdmissionConfig::default(),
        message_bytes_limit: 64 * 1024,
        head_timeout: Duration::from_secs(10),
        cursor_interval: Duration::from_secs(60),
        auth: AuthConfig {
            hmac_secret: None,
            issuer: None,
            audience: None,
            anonymous: true,
            insecure: false,
        },
        allowed_origins: Vec::new(),
        drain: DrainConfig { wait: Duration::ZERO, window: Duration::ZERO, retry_window: Duration::ZERO },
        demo_page: false,
        registry: None,
        name: "measured".to_owned(),
        presence: PresenceConfig::default(),
    }
}

fn shared(counts: PartitionCounts) -> io::Result<Arc<Shared>> {
    let config = config();
    let metrics = Metrics::register(&prometheus::Registry::new()).map_err(io::Error::other)?;
    let (_, routers) = watch::channel(std::collections::BTreeMap::new());
    let parts = Parts {
        upstream: UpstreamRoute::start(routers, PARTITIONS, metrics.upstream_moves.clone()),
        config,
        counts,
        metrics,
        tls: None,
        demo_publish: None,
        incarnation: Incarnation::random(),
        sockets_limit: usize::MAX,
    };
    Ok(Arc::new(Shared::new(parts)))
}

#[cfg(test)]
mod tests {
    use tikv_jemalloc_ctl::thread;

    use super::*;

    /// Bytes that this thread allocates to deliver `rounds` batches to so many sockets, each of which gets all of it.
    fn allocated(sockets: usize, channels: usize, together: usize) -> u64 {
        let mut fan_out = FanOut::open(sockets, channels).expect("opens");
        let counter = thread::allocatedp::read().expect("jemalloc counts");
        let mut total = 0;
        for round in 0..12 {
            let batch = fan_out.batch(together);
            let before = counter.get();
            fan_out.deliver(batch);
            // The first rounds make room that is kept.
            total += if round < 4 { 0 } else { counter.get() - before };
            let bytes = fan_out.drain().expect("open");
            assert!(bytes >= sockets * together * 100, "{bytes} bytes to {sockets} sockets");
        }
        total
    }

    #[test]
    fn a_delivery_allocates_nothing() {
        for (channels, together) in [(1, 1), (1, 8), (20, 1), (20, 8)] {
            let (few, many) = (allocated(4, channels, together), allocated(64, channels, together));
            assert!(few > 0, "the frame itself, once for all, is counted");
            assert_eq!(few, many, "{together} events together, {channels} channels");
        }
    }
}
