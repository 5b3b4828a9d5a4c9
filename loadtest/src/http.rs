//! HTTP/1.1 as a client that keeps its connection, over a plain socket: what is read is what was sent.

use std::io;
use std::net::SocketAddr;

use tidegate_wire::chunked;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A socket, and what was read from it and not used yet.
#[derive(Debug)]
pub(crate) struct HttpConn {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Head {
    /// The value of a header; names in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.header("transfer-encoding") == Some("chunked")
    }

    fn parse(text: &str) -> io::Result<Self> {
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Self { status: status.ok_or_else(|| invalid("no status line"))?, headers })
    }
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// No other request may follow on this connection.
    pub(crate) fn is_last(&self) -> bool {
        self.head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl HttpConn {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub(crate) async fn send(&mut self, request: &str) -> io::Result<()> {
        self.stream.write_all(request.as_bytes()).await
    }

    /// Reads more, or fails at the end.
    pub(crate) async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Takes what was read and not used.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// The socket, and what was read and not used.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.buffer)
    }

    /// The head of the next answer.
    pub(crate) async fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                let head = std::mem::replace(&mut self.buffer, rest);
                return Head::parse(&String::from_utf8_lossy(&head[..end]));
            }
            self.read_more().await?;
        }
    }

    /// The next answer.
    pub(crate) async fn response(&mut self) -> io::Result<Response> {
        let head = self.head().await?;
        let body = if matches!(head.status, 100..=199 | 204 | 304) {
            Vec::new()
        } else if head.is_chunked() {
            self.chunked_body().await?
        } else {
            let length: Option<usize> = head.header("content-length").and_then(|length| length.parse().ok());
            let length = length.ok_or_else(|| invalid("an answer without a length"))?;
            while self.buffer.len() < length {
                self.read_more().await?;
            }
            let rest = self.buffer.split_off(length);
            std::mem::replace(&mut self.buffer, rest)
        };
        Ok(Response { head, body })
    }

    async fn chunked_body(&mut self) -> io::Result<Vec<u8>> {
        let (mut decoder, mut body) = (chunked::Decoder::new(), Vec::new());
        loop {
            let bytes = self.take_buffer();
            let used = decoder.feed(&bytes, &mut body).map_err(|error| invalid(&error.to_string()))?;
            if decoder.is_finished() {
                self.buffer = bytes.get(used..).unwrap_or_default().to_vec();
                return Ok(body);
            }
            self.read_more().await?;
        }
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn exchange(&mut self, request: &str) -> io::Result<Response> {
        self.send(request).await?;
        self.response().await
    }
}

/// A `POST` of JSON.
pub(crate) fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// A `GET`.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}
