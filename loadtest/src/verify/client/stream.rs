//! WebSocket, Server-Sent Events and HTTP streaming.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tidegate_wire::{chunked, sse};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::object::Object;
use super::{Ended, OPEN_TIMEOUT, Subscriber, open, within};
use crate::history::Receiving;
use crate::http::{HttpConn, get};

/// Silence after which a client gives a connection up: a gateway pings every 25 s.
const SILENCE: Duration = Duration::from_secs(60);

/// Follows until the connection ends, and says why it did.
pub(super) async fn follow(subscriber: &mut Subscriber, gateway: SocketAddr) -> Ended {
    let followed = match subscriber.plan.transport {
        Receiving::Ws => follow_frames(subscriber, gateway).await,
        _ => follow_body(subscriber, gateway).await,
    };
    followed.err().unwrap_or_else(|| "ended".to_owned())
}

async fn ask(
    subscriber: &Subscriber,
    gateway: SocketAddr,
    status: u16,
    headers: &str,
) -> Result<(HttpConn, bool), Ended> {
    let mut conn = open(gateway).await?;
    let with_cursor = subscriber.plan.transport != Receiving::Sse;
    let mut lines = headers.to_owned();
    if let Some(cursor) = subscriber.cursor.as_ref().filter(|_| !with_cursor) {
        lines.push_str(&format!("last-event-id: {cursor}\r\n"));
    }
    let mut request = get(&subscriber.target(with_cursor));
    request.insert_str(request.len() - 2, &lines);
    let asking = async {
        conn.send(&request).await?;
        conn.head().await
    };
    let head = within(OPEN_TIMEOUT, "head", asking).await?;
    if head.status != status {
        return Err(format!("refused: {}", head.status));
    }
    Ok((conn, head.is_chunked()))
}

async fn follow_frames(subscriber: &mut Subscriber, gateway: SocketAddr) -> Result<(), Ended> {
    let headers = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let (conn, _) = ask(subscriber, gateway, 101, headers).await?;
    let (stream, read) = conn.into_parts();
    let mut frames = WebSocketStream::from_partially_read(stream, read, Role::Client, None).await;
    loop {
        let next = tokio::time::timeout(SILENCE, frames.next()).await.map_err(|_| "silence".to_owned())?;
        match next {
            Some(Ok(Message::Text(text))) => subscriber.take(Object::parse(&text, None)?).await?,
            // Its pong is queued by the library.
            Some(Ok(Message::Ping(_))) => frames.flush().await.map_err(|error| error.to_string())?,
            Some(Ok(Message::Pong(_))) => {}
            Some(Ok(Message::Close(frame))) => {
                return Err(frame.map_or_else(|| "close frame".to_owned(), |f| format!("close frame: {f}")));
            }
            Some(Ok(other)) => return Err(format!("a frame that a gateway does not send: {other:?}")),
            Some(Err(error)) => return Err(error.to_string()),
            None => return Ok(()),
        }
    }
}

async fn follow_body(subscriber: &mut Subscriber, gateway: SocketAddr) -> Result<(), Ended> {
    let is_sse = subscriber.plan.transport == Receiving::Sse;
    let accept = if is_sse { "accept: text/event-stream\r\n" } else { "accept: application/x-ndjson\r\n" };
    let (mut conn, is_chunked) = ask(subscriber, gateway, 200, accept).await?;
    if !is_chunked {
        return Err("the body of a stream is not chunked".to_owned());
    }
    let (mut chunks, mut blocks, mut line) = (chunked::Decoder::new(), sse::Parser::new(), Vec::new());
    loop {
        let mut data = Vec::new();
        chunks.feed(&conn.take_buffer(), &mut data).map_err(|error| error.to_string())?;
        let texts = if is_sse { of_blocks(&mut blocks, &data)? } else { of_lines(&mut line, &data)? };
        for (text, id) in texts {
            subscriber.take(Object::parse(&text, id)?).await?;
        }
        if chunks.is_finished() {
            return Ok(());
        }
        within(SILENCE, "read", conn.read_more()).await?;
    }
}

type Texts = Vec<(String, Option<String>)>;

/// The objects of whole blocks. A block that has only an id moves the cursor.
fn of_blocks(blocks: &mut sse::Parser, data: &[u8]) -> Result<Texts, Ended> {
    let mut texts = Vec::new();
    let fed = blocks.feed(data, &mut |item| {
        if let sse::Item::Block(block) = item {
            match block.data {
                Some(text) => texts.push((text, block.id)),
                None if block.id.is_some() => texts.push(("{\"type\":\"ping\"}".to_owned(), block.id)),
                None => {}
            }
        }
    });
    fed.map_err(|error| error.to_string())?;
    Ok(texts)
}

/// The objects of whole lines.
fn of_lines(line: &mut Vec<u8>, data: &[u8]) -> Result<Texts, Ended> {
    let mut texts = Vec::new();
    for byte in data {
        if *byte != b'\n' {
            line.push(*byte);
            continue;
        }
        let text = String::from_utf8(std::mem::take(line)).map_err(|_| "a line is not UTF-8".to_owned())?;
        if !text.trim().is_empty() {
            texts.push((text, None));
        }
    }
    Ok(texts)
}
