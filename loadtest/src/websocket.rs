//! A WebSocket of a measuring client: opened with the path that it is given, read frame by frame, dropped with a reset.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::frames::{self, Frames, pong};

/// What one read may bring.
const READ_BYTES: usize = 16 * 1_024;

/// The request for one.
pub(crate) fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// An open one.
#[derive(Debug)]
pub(crate) struct WebSocket {
    stream: TcpStream,
    frames: Frames,
    unread: Vec<u8>,
}

impl WebSocket {
    /// Connects and asks for this path.
    ///
    /// # Errors
    /// When the server refuses or closes.
    pub(crate) async fn open(server: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(server).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.write_all(upgrade(path).as_bytes()).await?;
        let mut unread = Vec::with_capacity(1_024);
        let end = loop {
            if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut unread).await? == 0 {
                bail!("closed by the server; it said: {}", String::from_utf8_lossy(&unread));
            }
        };
        if !unread.starts_with(b"HTTP/1.1 101") {
            bail!("no WebSocket: the server said {}", String::from_utf8_lossy(&unread));
        }
        unread.drain(..end);
        Ok(Self { stream, frames: Frames::default(), unread })
    }

    /// Waits for more; calls `on` with each message that is whole now. Pings are answered.
    ///
    /// # Errors
    /// When the server closes, or sends what is no frame.
    pub(crate) async fn read(&mut self, mut on: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let mut bytes = std::mem::take(&mut self.unread);
        if bytes.is_empty() {
            self.stream.readable().await?; // Who waits owns no buffer.
            bytes.reserve(READ_BYTES);
            if self.stream.read_buf(&mut bytes).await? == 0 {
                bail!("closed by the server");
            }
        }
        let (mut answers, mut closed) = (Vec::new(), None);
        self.frames.feed(&bytes, |opcode, payload| match opcode {
            frames::TEXT | frames::BINARY => on(payload),
            frames::PING => answers.extend(pong(payload)),
            frames::CLOSE => {
                closed = Some(String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned())
            }
            _ => {}
        })?;
        if let Some(reason) = closed {
            bail!("closed by the server: {reason}");
        }
        if !answers.is_empty() {
            self.stream.write_all(&answers).await?;
        }
        Ok(())
    }

    /// Goes without a word: the server meets a reset.
    pub(crate) fn reset(self) -> std::io::Result<()> {
        self.stream.set_zero_linger()
    }

    /// For a thread that waits for many; nothing of a message is lost.
    pub(crate) fn into_parts(self) -> std::io::Result<(mio::net::TcpStream, Frames, Vec<u8>)> {
        Ok((mio::net::TcpStream::from_std(self.stream.into_std()?), self.frames, self.unread))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers one connection with this, and returns what it was asked and what came behind that.
    async fn served(answer: Vec<u8>) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&answer).await.unwrap();
            let mut all = Vec::new();
            let _reset_is_an_end_too = stream.read_to_end(&mut all).await;
            String::from_utf8_lossy(&all).into_owned()
        });
        (address, serving)
    }

    #[tokio::test]
    async fn messages_come_whole_a_ping_is_answered_and_a_close_is_an_end() {
        let mut answer = b"HTTP/1.1 101 x\r\n\r\n".to_vec();
        answer.extend(frames::text_frame(b"one"));
        answer.extend([0x89, 2, b'h', b'i']);
        answer.extend(frames::text_frame(&[b'x'; 300]));
        answer.extend([0x88, 5, 3, 0xF4, b'b', b'y', b'e']);
        let (address, serving) = served(answer).await;
        let mut socket = WebSocket::open(address, "/v1/events?channel=a").await.unwrap();
        let mut lengths = Vec::new();
        let error = loop {
            if let Err(error) = socket.read(|message| lengths.push(message.len())).await {
                break error;
            }
        };
        assert!(error.to_string().contains("bye"), "{error}");
        assert_eq!(lengths, [3, 300]);
        socket.reset().unwrap();
        assert!(serving.await.unwrap().starts_with("GET /v1/events?channel=a HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn a_refusal_is_shown() {
        let (address, _serving) = served(b"HTTP/1.1 503 x\r\n\r\ntoo many".to_vec()).await;
        let error = WebSocket::open(address, "/").await.unwrap_err();
        assert!(error.to_string().contains("too many"), "{error}");
    }
}
