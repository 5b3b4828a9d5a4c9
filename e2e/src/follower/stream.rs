//! Server-Sent Events and HTTP streaming.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use tidegate_wire::{chunked, sse};

use super::Heard;
use crate::follow::{Follow, Transport};
use crate::http::{HttpConn, Response};
use crate::object::Object;

#[derive(Debug)]
pub(super) struct StreamSide {
    conn: HttpConn,
    transport: Transport,
    /// None: the body ends with the connection.
    chunks: Option<chunked::Decoder>,
    blocks: sse::Parser,
    line: Vec<u8>,
    heard: VecDeque<Heard>,
}

impl StreamSide {
    pub(super) async fn open(
        address: SocketAddr,
        transport: Transport,
        follow: &Follow,
    ) -> io::Result<Result<Self, Box<Response>>> {
        let mut conn = HttpConn::connect(address).await?;
        conn.send(follow.request(transport, follow.cursor.as_deref())).await?;
        let head = conn.head().await?;
        if head.status != 200 {
            return Ok(Err(Box::new(conn.rest_of(head).await?)));
        }
        let media_type =
            if transport == Transport::Sse { "text/event-stream" } else { "application/x-ndjson" };
        assert_eq!(head.header("content-type"), Some(media_type));
        let chunks = head.header("transfer-encoding").map(|_| chunked::Decoder::new());
        let mut side = Self {
            conn,
            transport,
            chunks,
            blocks: sse::Parser::new(),
            line: Vec::new(),
            heard: VecDeque::new(),
        };
        side.take_in();
        Ok(Ok(side))
    }

    pub(super) async fn hear(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return heard;
            }
            if self.chunks.as_ref().is_some_and(chunked::Decoder::is_finished) {
                return Heard::End { is_clean: true };
            }
            match self.conn.read_more().await {
                Ok(true) => self.take_in(),
                Ok(false) => return Heard::End { is_clean: self.chunks.is_none() },
                Err(_) => return Heard::End { is_clean: false },
            }
        }
    }

    fn take_in(&mut self) {
        let mut bytes = self.conn.take_buffer();
        if let Some(chunks) = &mut self.chunks {
            let mut data = Vec::with_capacity(bytes.len());
            chunks.feed(&bytes, &mut data).expect("a chunked body");
            bytes = data;
        }
        if self.transport == Transport::Sse {
            let heard = &mut self.heard;
            let fed = self.blocks.feed(&bytes, &mut |item| heard.extend(of_item(item)));
            return fed.expect("blocks are not endless");
        }
        for byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).expect("UTF-8");
            self.heard.push_back(Heard::Object(Object::parse(&line, None)));
        }
    }
}

/// What a block says; its name has to agree with its object.
fn of_item(item: sse::Item) -> Vec<Heard> {
    let block = match item {
        sse::Item::Comment(_) => return vec![Heard::Ping],
        sse::Item::Block(block) => block,
    };
    let mut heard: Vec<Heard> = block.retry_ms.map(Heard::Retry).into_iter().collect();
    match block.data {
        Some(data) => {
            let object = Object::parse(&data, block.id);
            let expected = match object.event() {
                Some(event) if event.name == "message" => None,
                Some(event) => Some(event.name),
                None => Some(format!("tidegate.{}", object.kind)),
            };
            assert_eq!(block.event, expected, "{data}");
            heard.push(Heard::Object(object));
        }
        None => heard.extend(block.id.map(|id| {
            Heard::Object(Object::parse(&format!("{{\"type\":\"ping\",\"id\":{id:?}}}"), Some(id.clone())))
        })),
    }
    heard
}
