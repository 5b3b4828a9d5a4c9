//! HTTP/1 over a plain socket, so that a test decides about every byte.

use std::io;
use std::net::SocketAddr;

use tidegate_wire::chunked;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::eventually::{PATIENCE, QUIET};

/// A socket and what was read from it and not used yet. Reading is cancel-safe: nothing is used before it is whole.
#[derive(Debug)]
pub struct HttpConn {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// All header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The status line says HTTP/1.0.
    pub is_http_10: bool,
}

impl Head {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self {
            status: status.unwrap_or_else(|| panic!("no status line: {status_line:?}")),
            headers,
            is_http_10: status_line.starts_with("HTTP/1.0"),
        }
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its head.
    pub head: Head,
    /// Its body without framing.
    pub body: Vec<u8>,
}

impl Response {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The kind of a problem document.
    ///
    /// # Panics
    /// When the answer is none, or says another status in its body.
    #[must_use]
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status(), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        let title = problem["title"].as_str().expect("a title").to_owned();
        assert_eq!(problem["type"], format!("/errors#{title}"), "{problem}");
        title
    }
}

impl HttpConn {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// As [`HttpConn::connect`], with a small receive buffer, for a client that shall be slow.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect_slow(address: SocketAddr) -> io::Result<Self> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        Ok(Self { stream: socket.connect(address).await?, buffer: Vec::new() })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the socket is broken.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Reads more; false at the end.
    ///
    /// # Errors
    /// When the socket is broken.
    pub async fn read_more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// Takes what was read and not used.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// The socket and what was read and not used.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.buffer)
    }

    /// The head of the next answer.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some((head, len)) = self.whole_head() {
                self.buffer.drain(..len);
                return Ok(head);
            }
            self.read_on().await?;
        }
    }

    /// The rest of the answer whose head this is.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn rest_of(&mut self, head: Head) -> io::Result<Response> {
        let mut at_end = false;
        loop {
            if let Some((body, used)) = body(&head, &self.buffer, at_end) {
                self.buffer.drain(..used);
                return Ok(Response { head, body });
            }
            if at_end {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at_end = !self.read_more().await?;
        }
    }

    /// The next answer.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn response(&mut self) -> io::Result<Response> {
        let mut at_end = false;
        loop {
            if let Some((head, start)) = self.whole_head()
                && let Some((body, used)) = body(&head, &self.buffer[start..], at_end)
            {
                self.buffer.drain(..start + used);
                return Ok(Response { head, body });
            }
            if at_end {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at_end = !self.read_more().await?;
        }
    }

    /// Reads until the server closes; what came.
    ///
    /// # Panics
    /// When it does not close within [`PATIENCE`].
    pub async fn until_closed(&mut self) -> Vec<u8> {
        let reading = async { while matches!(self.read_more().await, Ok(true)) {} };
        tokio::time::timeout(PATIENCE, reading).await.expect("the server closes the connection");
        self.take_buffer()
    }

    /// Reads until the server closes, or stays silent after so many answers.
    ///
    /// # Panics
    /// When neither is so within [`PATIENCE`].
    pub async fn until_closed_or_answered(&mut self, answers: usize) -> Vec<u8> {
        let begun = std::time::Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "{:?}", String::from_utf8_lossy(&self.buffer));
            match tokio::time::timeout(QUIET, self.read_more()).await {
                Ok(Ok(true)) => {}
                Ok(_) => return self.take_buffer(),
                Err(_) => {
                    let count = self.buffer.windows(9).filter(|window| window == b"HTTP/1.1 ").count();
                    if count >= answers {
                        return self.take_buffer();
                    }
                }
            }
        }
    }

    async fn read_on(&mut self) -> io::Result<()> {
        if self.read_more().await? { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn whole_head(&self) -> Option<(Head, usize)> {
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")?;
        Some((Head::parse(&String::from_utf8_lossy(&self.buffer[..end])), end + 4))
    }
}

/// The body, once it is whole, and how many bytes it took.
fn body(head: &Head, rest: &[u8], at_end: bool) -> Option<(Vec<u8>, usize)> {
    if matches!(head.status, 100..=199 | 204 | 304) {
        return Some((Vec::new(), 0));
    }
    if head.header("transfer-encoding") == Some("chunked") {
        let (mut decoder, mut out) = (chunked::Decoder::new(), Vec::new());
        let used = decoder.feed(rest, &mut out).expect("a chunked body");
        return decoder.is_finished().then_some((out, used));
    }
    match head.header("content-length") {
        Some(length) => {
            let length: usize = length.parse().expect("a length");
            (rest.len() >= length).then(|| (rest[..length].to_vec(), length))
        }
        None => at_end.then(|| (rest.to_vec(), rest.len())),
    }
}

/// One request on a connection of its own: the bytes as they are.
///
/// # Panics
/// When there is no whole answer within [`PATIENCE`].
pub async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Response {
    let asking = async {
        let mut conn = HttpConn::connect(address).await?;
        conn.send(request.as_ref()).await?;
        conn.response().await
    };
    let shown = || String::from_utf8_lossy(&request.as_ref()[..request.as_ref().len().min(300)]).into_owned();
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => panic!("no answer: {error}\n{}", shown()),
        Err(_) => panic!("no answer in time\n{}", shown()),
    }
}

/// `GET` on a connection of its own.
pub async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    exchange(address, request("GET", path, headers, "")).await
}

/// `POST` on a connection of its own.
pub async fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    exchange(address, request("POST", path, headers, body)).await
}

/// A well-formed request.
#[must_use]
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if method == "POST" {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text
}
