//! The body of a request over HTTP/2, as HTTP/1.1's handlers take one.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use hyper::body::{Body, Frame};

/// See the module. None where a request has no body: what follows a WebSocket's head is no body.
#[derive(Debug)]
pub(super) struct H2Body(Option<RecvStream>);

impl H2Body {
    pub(super) fn new(stream: Option<RecvStream>) -> Self {
        Self(stream.filter(|stream| !stream.is_end_stream()))
    }
}

impl Body for H2Body {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Some(stream) = &mut self.0 else { return Poll::Ready(None) };
        stream.poll_data(cx).map_ok(|data| {
            // Held by its reader from here on, which has a limit of its own.
            let _ = stream.flow_control().release_capacity(data.len());
            Frame::data(data)
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(RecvStream::is_end_stream)
    }
}
