//! HTTP on the public port, until a request turns out to be a stream. The one module that names hyper and h2. HTTP/2, where
//! a socket is never taken, is in [`h2`]; the rest of this text is about HTTP/1.1.
//!
//! hyper parses and answers; nothing else. When a handler decides that a request is a stream or a poll, it leaves a
//! [`Takeover`] and never answers: nothing of that answer has been written, so [`serve`] takes the socket and the bytes
//! read so far away from hyper, hyper's buffers are freed, and the shard writes the answer itself. The socket is only
//! taken while hyper has no earlier answer left to write.

mod answer;
mod date;
pub(crate) mod h2;
mod io;
mod route;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_vocab::limits;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use crate::admission::{Entry, Permit};
use crate::shard::Shard;
use crate::socket::ClientSocket;
use answer::Answer;
pub(crate) use date::date;
pub(crate) use h2::H2Stream;
use io::TakeableIo;
use route::Outcome;

/// Time in which an answer must have been taken by its socket.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a handler leaves when the request is not hyper's to answer.
type TakeoverSlot = Rc<RefCell<Option<crate::shard::Takeover>>>;

/// Serves requests on a socket until it closes or becomes the shard's.
pub(crate) async fn serve(
    shard: Rc<Shard>,
    stream: ClientSocket,
    permit: Permit,
    already_read: Bytes,
    entry: Entry,
    mut accepting: watch::Receiver<bool>,
) {
    let slot: TakeoverSlot = Rc::default();
    let write_pending = Rc::new(Cell::new(false));
    let io = TokioIo::new(TakeableIo::new(stream, already_read, Rc::clone(&write_pending)));
    let service = service_fn({
        let (shard, slot) = (Rc::clone(&shard), Rc::clone(&slot));
        move |request| handle(Rc::clone(&shard), Rc::clone(&slot), entry, request)
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shard.shared.config.head_timeout)
        .max_headers(limits::REQUEST_HEADERS_LIMIT)
        .max_buf_size(limits::REQUEST_HEAD_BYTES_LIMIT)
        .serve_connection(io, service);
    let is_taken = {
        let mut draining = pin!(accepting.wait_for(|accepting| !accepting));
        let mut is_ending = false;
        poll_fn(|cx| {
            if !is_ending && draining.as_mut().poll(cx).is_ready() {
                is_ending = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            let polled = Pin::new(&mut connection).poll(cx);
            if slot.borrow().is_some() && !write_pending.get() {
                return Poll::Ready(true);
            }
            polled.map(|_| false)
        })
        .await
    };
    if !is_taken {
        return;
    }
    let parts = connection.into_parts();
    let (stream, unread) = parts.io.into_inner().into_parts();
    let mut leftover = parts.read_buf.to_vec();
    leftover.extend_from_slice(&unread);
    drop((parts.service, unread));
    if let Some(takeover) = slot.borrow_mut().take() {
        shard.adopt(stream, permit, takeover, leftover);
    }
}

/// Answers a request, or leaves a takeover and never answers.
async fn handle(
    shard: Rc<Shard>,
    slot: TakeoverSlot,
    entry: Entry,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    match route::handle(shard, entry, request).await {
        Outcome::Answer(answer) => Ok(answer),
        Outcome::Takeover(takeover) => {
            *slot.borrow_mut() = Some(*takeover);
            pending().await
        }
    }
}

/// Writes an answer that the shard made and, if the connection lives on, gives it back to HTTP with what was read.
pub(crate) fn answer_and_go_on(
    shard: Rc<Shard>,
    mut stream: ClientSocket,
    permit: Permit,
    response: Vec<u8>,
    again: Option<Bytes>,
) {
    let written = stream.try_write(&response).unwrap_or(0);
    tokio::task::spawn_local(async move {
        let rest = async {
            stream.write_all(&response[written..]).await?;
            stream.flush().await?;
            if again.is_none() { stream.shutdown().await } else { Ok(()) }
        };
        if !matches!(tokio::time::timeout(ANSWER_TIMEOUT, rest).await, Ok(Ok(()))) {
            return;
        }
        drop(response);
        if let Some(already_read) = again {
            let accepting = shard.accepting();
            serve(shard, stream, permit, already_read, Entry::Open, accepting).await;
        }
    });
}
