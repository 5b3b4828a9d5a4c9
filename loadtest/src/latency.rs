//! From publishing to receiving, one event after the other, on two transports at once; and a cluster beside its Kafka.

mod cluster;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::connection::{Connection, Transport};

pub use cluster::{Gate, KafkaOptions, Report, beside_kafka};

/// Sorted latencies.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// The value below which this share of them lies.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let at = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn of(latencies: Vec<Duration>) -> Self {
        Self(latencies).sort()
    }

    fn sort(mut self) -> Self {
        self.0.sort_unstable();
        self
    }
}

/// Time in which an event must have come.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes `count` events one after the other and measures, for each, the time from sending the publish to having it on
/// a WebSocket and on a long poll that follow the same channel. In turn the one or the other is awaited first.
///
/// # Errors
/// When something is refused or does not come.
pub async fn publish_latency(
    public: SocketAddr,
    api: SocketAddr,
    count: usize,
) -> anyhow::Result<(Latencies, Latencies)> {
    let channel = "channel=latency:probe";
    let mut ws = Connection::open(public, Transport::Ws, channel).await?;
    let mut poll = TcpStream::connect(public).await?;
    poll.set_nodelay(true)?;
    let mut cursor = first_cursor(&mut poll, channel).await?;
    let mut api = TcpStream::connect(api).await?;
    api.set_nodelay(true)?;
    let (mut on_ws, mut on_poll) = (Latencies::default(), Latencies::default());
    for number in 0..count {
        let request =
            format!("GET /v1/events?{channel}&cursor={cursor}&wait=10s HTTP/1.1\r\nHost: localhost\r\n\r\n");
        poll.write_all(request.as_bytes()).await?;
        // The poll must be waiting when the event comes, or the time to subscribe would be measured with it.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let body = format!("{{\"channel\":\"latency:probe\",\"data\":{number}}}");
        let publish = format!(
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let started = Instant::now();
        api.write_all(publish.as_bytes()).await?;
        let needle = format!("\"data\":{number},");
        let (seen_ws, seen_poll) = tokio::join!(
            async {
                ws.wait_for(needle.as_bytes(), TIMEOUT).await?;
                anyhow::Ok(started.elapsed())
            },
            async {
                let answer = read_answer(&mut poll).await?;
                anyhow::Ok((started.elapsed(), answer))
            },
        );
        on_ws.0.push(seen_ws.context("on the WebSocket")?);
        let (elapsed, answer) = seen_poll.context("on the long poll")?;
        on_poll.0.push(elapsed);
        cursor = answer["cursor"].as_str().context("no cursor")?.to_owned();
        if answer["events"].as_array().is_none_or(|events| events.len() != 1) {
            bail!("the poll answered with {answer}");
        }
        read_answer(&mut api).await?;
    }
    Ok((on_ws.sort(), on_poll.sort()))
}

async fn first_cursor(poll: &mut TcpStream, query: &str) -> anyhow::Result<String> {
    poll.write_all(format!("GET /v1/events?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
    let answer = read_answer(poll).await?;
    Ok(answer["cursor"].as_str().context("no cursor")?.to_owned())
}

/// Reads one answer with a `Content-Length` and parses its JSON.
async fn read_answer(stream: &mut TcpStream) -> anyhow::Result<serde_json::Value> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = tokio::time::timeout(TIMEOUT, stream.read(&mut buffer)).await.context("timed out")??;
        if count == 0 {
            bail!("closed by the server");
        }
        bytes.extend_from_slice(&buffer[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.context("no content-length")?.parse()?;
        if bytes.len() >= end + 4 + length {
            return Ok(serde_json::from_slice(&bytes[end + 4..end + 4 + length])?);
        }
    }
}
