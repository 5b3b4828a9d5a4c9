//! Client connections on raw sockets, or on TLS over them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::tls::{Tls, TlsSocket};

/// How a connection receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// WebSocket.
    Ws,
    /// Server-Sent Events.
    Sse,
    /// HTTP streaming, one JSON object a line.
    Ndjson,
    /// A waiting long poll.
    Poll,
}

/// Connections being opened at the same time.
const OPENING_AT_ONCE: usize = 64;
/// Time for one connection to have its first `state`.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// One open connection.
#[derive(Debug)]
pub struct Connection<S = TcpStream> {
    stream: S,
    unread: Vec<u8>,
}

impl Connection {
    /// Connects and, for streams, waits for the first `state`.
    ///
    /// # Errors
    /// When the server refuses, closes, or says nothing for 20 s.
    pub async fn open(server: SocketAddr, transport: Transport, query: &str) -> anyhow::Result<Self> {
        Self::begin(connect(server).await?, transport, query).await
    }

    /// The socket, and what was read behind the last needle.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.unread)
    }
}

impl Connection<TlsSocket> {
    /// As [`Connection::open`], over TLS.
    ///
    /// # Errors
    /// As [`Connection::open`], and when there is no TLS with the server.
    pub async fn open_tls(
        server: SocketAddr,
        tls: &Tls,
        transport: Transport,
        query: &str,
    ) -> anyhow::Result<Self> {
        let stream = tls.connect(connect(server).await?).await?;
        Self::begin(stream, transport, query).await
    }
}

async fn connect(server: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(server).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn begin(stream: S, transport: Transport, query: &str) -> anyhow::Result<Self> {
        let mut connection = Self { stream, unread: Vec::new() };
        let headers = match transport {
            Transport::Ws => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
            Transport::Sse => "Accept: text/event-stream\r\n",
            Transport::Ndjson => "Accept: application/x-ndjson\r\n",
            Transport::Poll => "Accept: application/json\r\n",
        };
        let wait = if transport == Transport::Poll { "&wait=50s" } else { "" };
        let request = format!("GET /v1/events?{query}{wait} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        connection.stream.write_all(request.as_bytes()).await?;
        if transport != Transport::Poll {
            connection.wait_for(b"\"type\":\"state\"", OPEN_TIMEOUT).await.context("no state")?;
        }
        Ok(connection)
    }

    /// Reads until `needle` has come; what came before it is dropped.
    ///
    /// # Errors
    /// When the server closes or the time is up.
    pub async fn wait_for(&mut self, needle: &[u8], timeout: Duration) -> anyhow::Result<()> {
        tokio::time::timeout(timeout, async {
            loop {
                if let Some(at) = self.unread.windows(needle.len()).position(|window| window == needle) {
                    self.unread.drain(..at + needle.len());
                    self.unread.shrink_to_fit();
                    return Ok(());
                }
                let mut buffer = [0; 4096];
                let count = self.stream.read(&mut buffer).await?;
                if count == 0 {
                    bail!("closed by the server; it said: {}", String::from_utf8_lossy(&self.unread));
                }
                self.unread.extend_from_slice(&buffer[..count]);
            }
        })
        .await
        .context("timed out")?
    }

    /// Asks again on the same connection: for polls.
    ///
    /// # Errors
    /// When the server has closed.
    pub async fn poll_again(&mut self, query: &str) -> anyhow::Result<()> {
        let request = format!("GET /v1/events?{query}&wait=50s HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Ok(self.stream.write_all(request.as_bytes()).await?)
    }

    /// What was read behind the last needle, up to the end of a cursor member.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }
}

/// Opens `count` connections; `query(n)` says what the n-th asks for. Calls `progress` now and then.
///
/// # Errors
/// The first that does not open.
pub async fn open_all(
    server: SocketAddr,
    transport: Transport,
    count: usize,
    query: impl Fn(usize) -> String,
    progress: impl FnMut(usize),
) -> anyhow::Result<Vec<Connection>> {
    let open = move |query: String| async move { Connection::open(server, transport, &query).await };
    all(count, query, open, progress).await
}

/// As [`open_all`], over TLS.
///
/// # Errors
/// The first that does not open.
pub async fn open_all_tls(
    server: SocketAddr,
    tls: &Tls,
    transport: Transport,
    count: usize,
    query: impl Fn(usize) -> String,
    progress: impl FnMut(usize),
) -> anyhow::Result<Vec<Connection<TlsSocket>>> {
    let tls = tls.clone();
    let open = move |query: String| {
        let tls = tls.clone();
        async move { Connection::open_tls(server, &tls, transport, &query).await }
    };
    all(count, query, open, progress).await
}

async fn all<C: Send + 'static, F: Future<Output = anyhow::Result<C>> + Send + 'static>(
    count: usize,
    query: impl Fn(usize) -> String,
    open: impl Fn(String) -> F,
    mut progress: impl FnMut(usize),
) -> anyhow::Result<Vec<C>> {
    let (mut opened, mut opening, mut next) = (Vec::with_capacity(count), JoinSet::new(), 0);
    while opened.len() < count {
        while next < count && opening.len() < OPENING_AT_ONCE {
            opening.spawn(open(query(next)));
            next += 1;
        }
        let Some(connection) = opening.join_next().await else { break };
        opened.push(connection.context("a connection's task ended")??);
        if opened.len() % 1000 == 0 {
            progress(opened.len());
        }
    }
    Ok(opened)
}
