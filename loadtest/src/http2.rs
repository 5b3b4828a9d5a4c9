//! Connections as streams of HTTP/2 sockets.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::connection::{OPEN_TIMEOUT, Transport};
use crate::tls::Tls;

/// A socket whose streams are connections. Dropped, it is closed.
#[derive(Debug)]
pub struct Http2Socket {
    client: SendRequest<Bytes>,
    running: JoinHandle<()>,
}

/// One connection: an open stream, or a poll that waits.
#[derive(Debug)]
pub struct Http2Stream {
    _send: SendStream<Bytes>,
    _receive: Result<RecvStream, ResponseFuture>,
}

impl Http2Socket {
    async fn connect(server: SocketAddr, tls: &Tls) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(server).await.context("cannot connect")?;
        tcp.set_nodelay(true)?;
        let (client, connection) = h2::client::handshake(tls.connect(tcp).await?).await?;
        let running = tokio::spawn(async move {
            let _ = connection.await; // What ends it, its streams say.
        });
        Ok(Self { client, running })
    }

    /// Opens a stream and waits for its first `state`; a poll is only asked for.
    async fn open(
        &self,
        server: SocketAddr,
        transport: Transport,
        query: &str,
    ) -> anyhow::Result<Http2Stream> {
        let mut client = self.client.clone().ready().await?;
        let wait = if transport == Transport::Poll { "&wait=50s" } else { "" };
        let mut request = Request::get(format!("https://{server}/v1/events?{query}{wait}"));
        match transport {
            Transport::Ws => {
                request = request.method(Method::CONNECT).extension(Protocol::from_static("websocket"));
                request = request.header("sec-websocket-version", "13");
            }
            Transport::Sse => request = request.header("accept", "text/event-stream"),
            Transport::Ndjson => request = request.header("accept", "application/x-ndjson"),
            Transport::Poll => {}
        }
        let is_whole = transport != Transport::Ws;
        let (response, send) = client.send_request(request.body(())?, is_whole)?;
        if transport == Transport::Poll {
            return Ok(Http2Stream { _send: send, _receive: Err(response) });
        }
        let opening = async {
            let response = response.await?;
            if response.status() != 200 {
                bail!("refused with {}", response.status());
            }
            let mut receive = response.into_body();
            let mut read = Vec::new();
            while !String::from_utf8_lossy(&read).contains("\"type\":\"state\"") {
                let data = receive.data().await.context("ended by the server")??;
                receive.flow_control().release_capacity(data.len())?;
                read.extend_from_slice(&data);
            }
            Ok(receive)
        };
        let receive = tokio::time::timeout(OPEN_TIMEOUT, opening).await.context("no state in time")??;
        Ok(Http2Stream { _send: send, _receive: Ok(receive) })
    }
}

impl Drop for Http2Socket {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Opens `count` connections, `streams` to a socket; `query(n)` says what the n-th asks for.
///
/// # Errors
/// The first that does not open.
pub async fn open_all_http2(
    server: SocketAddr,
    tls: &Tls,
    streams: usize,
    transport: Transport,
    count: usize,
    query: impl Fn(usize) -> String,
) -> anyhow::Result<(Vec<Http2Socket>, Vec<Http2Stream>)> {
    let (mut sockets, mut opened) = (Vec::new(), Vec::with_capacity(count));
    while opened.len() < count {
        let socket = Http2Socket::connect(server, tls).await?;
        if transport == Transport::Ws {
            // The first answer comes behind the server's settings, and those say whether WebSockets are offered.
            drop(socket.open(server, Transport::Sse, &query(opened.len())).await?);
        }
        let opening = (0..streams.min(count - opened.len())).map(|n| {
            let query = query(opened.len() + n);
            let socket = &socket;
            async move { socket.open(server, transport, &query).await }
        });
        let streams = futures::future::try_join_all(opening).await?;
        opened.extend(streams);
        sockets.push(socket);
    }
    Ok((sockets, opened))
}
