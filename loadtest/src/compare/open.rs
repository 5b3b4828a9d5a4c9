//! Opening the receivers' sockets.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::receive::Socket;
use crate::frames::Frames;

/// Sockets being opened at the same time.
const AT_ONCE: usize = 64;
/// Time for one.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where receivers connect.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    /// With its query.
    pub(super) path: String,
    /// Frames that the server sends before any event; only when they are there does the connection follow.
    pub(super) frames_first: usize,
}

/// Opens so many.
pub(super) async fn open_all(door: &Door, count: usize) -> anyhow::Result<Vec<Socket>> {
    let (mut opened, mut opening, mut begun) = (Vec::with_capacity(count), JoinSet::new(), 0);
    while opened.len() < count {
        while begun < count && opening.len() < AT_ONCE {
            let door = door.clone();
            opening.spawn(async move { timeout(TIMEOUT, open(&door)).await.context("not open after 30 s")? });
            begun += 1;
        }
        let Some(socket) = opening.join_next().await else { break };
        let number = opened.len() + 1;
        let socket = socket.context("a connection's task ended")?;
        opened.push(socket.with_context(|| format!("connection {number} of {count} to {}", door.address))?);
    }
    Ok(opened)
}

async fn open(door: &Door) -> anyhow::Result<Socket> {
    let mut stream = TcpStream::connect(door.address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        door.path
    );
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        read_more(&mut stream, &mut bytes).await?;
    };
    if !bytes.starts_with(b"HTTP/1.1 101") {
        bail!("no WebSocket: the server said {}", String::from_utf8_lossy(&bytes));
    }
    let (mut frames, mut seen) = (Frames::default(), 0);
    bytes.drain(..end);
    loop {
        frames.feed(&bytes, |_, _| seen += 1)?;
        if seen >= door.frames_first {
            let stream = mio::net::TcpStream::from_std(stream.into_std()?);
            return Ok(Socket { stream, frames });
        }
        bytes.clear();
        read_more(&mut stream, &mut bytes).await?;
    }
}

async fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
    match stream.read_buf(bytes).await? {
        0 => bail!("closed by the server; it said: {}", String::from_utf8_lossy(bytes)),
        _ => Ok(()),
    }
}
