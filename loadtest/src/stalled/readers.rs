//! The clients that do not read, and what the gateway says of them.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use crate::http::{HttpConn, get};
use crate::verify::Gateway;
use crate::websocket::upgrade;

/// The kernel makes the smallest there is of it.
const RECEIVE_BYTES: usize = 1;
/// As over an Ethernet. With loopback's, 64 KiB, the gateway's kernel would take 2.6 MiB for a socket before any of it waits
/// in the gateway.
const SEGMENT_BYTES: u32 = 1_460;
/// Of those that were closed, at most this share is replaced at a time: coming is not what is measured.
const REPLACED_SHARE: usize = 20;
/// Time for all to be connections of the gateway.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the gateway is asked whether they are.
const LOOK: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub(super) struct Readers {
    address: SocketAddr,
    path: String,
    own: bool,
    /// So many were opened.
    count: usize,
    /// The oldest first: it is the first to be closed.
    open: VecDeque<TcpStream>,
    replaced: u64,
}

impl Readers {
    /// Opens them and waits until the gateway counts them.
    pub(super) async fn open(gateway: &Gateway, path: &str, own: bool, count: usize) -> anyhow::Result<Self> {
        let before = Gauges::read(gateway.admin).await?;
        let (address, path) = (gateway.public, path.to_owned());
        let mut readers = Self { address, path, own, count: 0, open: VecDeque::new(), replaced: 0 };
        readers.add(count).await?;
        let deadline = Instant::now() + OPEN_TIMEOUT;
        loop {
            let now = Gauges::read(gateway.admin).await?;
            if now.opened >= before.opened + count as u64 {
                return Ok(readers);
            }
            if Instant::now() >= deadline {
                let there = now.opened - before.opened;
                bail!(
                    "only {there} of {count} readers were let in within 30 s: does a limit of the gateway bind?"
                );
            }
            sleep_until(Instant::now() + LOOK).await;
        }
    }

    async fn add(&mut self, count: usize) -> anyhow::Result<()> {
        let path = |number: usize| match self.own {
            true => format!("{}&channel=stalled-own:{number}", self.path),
            false => self.path.clone(),
        };
        let requests: Vec<_> =
            (self.count..self.count + count).map(|number| upgrade(&path(number))).collect();
        self.count += count;
        let address = self.address;
        let opening =
            move || requests.iter().map(|request| open(address, request)).collect::<anyhow::Result<Vec<_>>>();
        self.open.extend(spawn_blocking(opening).await.context("opening readers")??);
        Ok(())
    }

    /// The gateway has closed so many since the beginning: new ones come, a few at a time. A client that reads nothing does not
    /// see that it is closed; who came first is the first to be.
    pub(super) async fn replace(&mut self, closed: u64) -> anyhow::Result<()> {
        let count = (closed - self.replaced).min((self.open.len() / REPLACED_SHARE).max(1) as u64);
        self.replaced += count;
        self.open.drain(..(count as usize).min(self.open.len()));
        self.add(count as usize).await
    }
}

/// Asks, and reads nothing, not even the answer.
fn open(address: SocketAddr, request: &str) -> anyhow::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    socket.set_tcp_mss(SEGMENT_BYTES)?;
    socket.connect(&address.into()).context("cannot connect")?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// What a gateway says in its metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gauges {
    pub(super) outbox_bytes: u64,
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) dropped: u64,
}

impl Gauges {
    pub(super) async fn read(admin: SocketAddr) -> anyhow::Result<Self> {
        let asking = async { HttpConn::connect(admin).await?.exchange(&get("/metrics")).await };
        let response = asking.await.with_context(|| format!("the gateway's admin port, {admin}"))?;
        Ok(Self::parse(&response.text()))
    }

    fn parse(text: &str) -> Self {
        let sum = |name: &str, label: &str| {
            let values = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
            let values = values.filter(|line| line[name.len()..].starts_with(['{', ' ']));
            values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
        };
        Self {
            outbox_bytes: sum("tidegate_gateway_outbox_bytes", ""),
            opened: sum("tidegate_gateway_connections_opened_total", ""),
            closed: sum("tidegate_gateway_connections_closed_total", "reason=\"slow_consumer\""),
            dropped: sum("tidegate_gateway_slow_dropped_total", ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_closed_for_slowness_counts_as_such() {
        let text = "tidegate_gateway_outbox_bytes 77\ntidegate_gateway_outbox_bytes_else 9\n\
                    tidegate_gateway_connections_closed_total{reason=\"slow_consumer\",transport=\"ws\"} 3\n\
                    tidegate_gateway_connections_closed_total{reason=\"client\",transport=\"ws\"} 5\n\
                    tidegate_gateway_connections_opened_total{transport=\"ws\"} 8\n\
                    tidegate_gateway_slow_dropped_total{policy=\"conflate\"} 4\n";
        assert_eq!(Gauges::parse(text), Gauges { outbox_bytes: 77, opened: 8, closed: 3, dropped: 4 });
    }
}
