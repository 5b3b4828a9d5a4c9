//! A WebSocket: the handshake by hand, the frames by a library that is not ours.

use std::io;
use std::net::SocketAddr;

use futures::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::Heard;
use crate::follow::{Follow, Transport};
use crate::http::{HttpConn, Response};
use crate::object::Object;

#[derive(Debug)]
pub(super) struct WebSocketSide {
    frames: WebSocketStream<TcpStream>,
    is_closed: bool,
}

impl WebSocketSide {
    pub(super) async fn open(
        address: SocketAddr,
        follow: &Follow,
    ) -> io::Result<Result<Self, Box<Response>>> {
        let mut conn = HttpConn::connect(address).await?;
        conn.send(follow.request(Transport::WebSocket, follow.cursor.as_deref())).await?;
        let head = conn.head().await?;
        if head.status != 101 {
            return Ok(Err(Box::new(conn.rest_of(head).await?)));
        }
        assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(head.header("sec-websocket-extensions"), None);
        let (stream, read) = conn.into_parts();
        let frames = WebSocketStream::from_partially_read(stream, read, Role::Client, None).await;
        Ok(Ok(Self { frames, is_closed: false }))
    }

    pub(super) async fn hear(&mut self) -> Heard {
        match self.frames.next().await {
            Some(Ok(Message::Text(text))) => Heard::Object(Object::parse(&text, None)),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                let _ = self.frames.flush().await; // Its pong, which the library has queued.
                Heard::Ping
            }
            Some(Ok(Message::Close(frame))) => {
                self.is_closed = true;
                let _ = self.frames.flush().await;
                let (code, reason) =
                    frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
                Heard::CloseFrame(code, reason)
            }
            Some(Ok(other)) => panic!("the server sends no such frame: {other:?}"),
            Some(Err(_)) | None => Heard::End { is_clean: self.is_closed },
        }
    }

    pub(super) async fn say(&mut self, message: Message) {
        self.frames.send(message).await.expect("the socket takes a frame");
    }
}
