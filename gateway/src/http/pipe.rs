//! From the shard to one HTTP/2 stream: what a connection writes is the body of an answer that hyper sends.
//!
//! The shard's end behaves as a socket does: it takes a bounded number of bytes and then none until hyper has sent some,
//! which it does only as far as the client's flow control allows. So a slow reader of one stream fills its own outbox,
//! and nobody else's. No task and no channel: two ends and one cell.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body_util::Full;
use hyper::body::{Body, Frame};
use tokio::sync::oneshot;

use super::answer::Answer;

/// Bytes that one stream may hold for its socket beside its outbox.
const PIPE_BYTES_LIMIT: usize = 16 * 1024;

#[derive(Debug, Default)]
struct Pipe {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// The shard has said all.
    is_ended: bool,
    /// The shard has let go of it: without an end before, the stream is reset.
    is_dropped: bool,
    /// The client has reset the stream, or its socket is gone, or all has been sent.
    is_gone: bool,
    reader: Option<Waker>,
    read_ready: Option<Waker>,
    write_ready: Option<Waker>,
}

/// The shard's end.
#[derive(Debug)]
pub(crate) struct H2Stream {
    pipe: Rc<RefCell<Pipe>>,
    /// Where a poll's answer goes.
    answer: Option<oneshot::Sender<Answer>>,
}

/// hyper's end: the body of a stream, or what waits for a poll's answer.
#[derive(Debug)]
pub(super) struct PipeBody {
    pipe: Rc<RefCell<Pipe>>,
    /// Counts as an open request of its socket for as long as this is here.
    _open: Rc<()>,
}

/// A stream that was cut short.
#[derive(Debug, thiserror::Error)]
#[error("the stream is cut short")]
pub(super) struct Cut;

pub(super) fn pipe(open: Rc<()>) -> (H2Stream, PipeBody, oneshot::Receiver<Answer>) {
    let pipe = Rc::default();
    let (answer, answered) = oneshot::channel();
    (H2Stream { pipe: Rc::clone(&pipe), answer: Some(answer) }, PipeBody { pipe, _open: open }, answered)
}

fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

impl H2Stream {
    /// The client says nothing on a stream, so this tells only of its end.
    pub(crate) fn try_read(&self) -> io::Result<usize> {
        if self.pipe.borrow().is_gone { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    pub(crate) fn try_write_vectored(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.is_gone || pipe.is_ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let mut room = PIPE_BYTES_LIMIT.saturating_sub(pipe.bytes);
        if room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>().min(room);
        let mut taken = BytesMut::with_capacity(length);
        for slice in slices {
            let part = &slice[..slice.len().min(room)];
            taken.extend_from_slice(part);
            room -= part.len();
        }
        pipe.bytes += length;
        pipe.queue.push_back(taken.freeze());
        wake(&mut pipe.reader);
        Ok(length)
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.is_gone {
            return Poll::Ready(Ok(()));
        }
        pipe.read_ready = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.is_gone || pipe.bytes < PIPE_BYTES_LIMIT {
            return Poll::Ready(Ok(()));
        }
        pipe.write_ready = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The stream ends once all of it has been sent.
    pub(crate) fn end(&self) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.is_ended = true;
        wake(&mut pipe.reader);
    }

    /// A poll's answer; then the stream is over.
    pub(crate) fn answer(mut self, answer: Response<Full<Bytes>>) {
        if let Some(sender) = self.answer.take() {
            let _ = sender.send(answer); // The client may have gone.
        }
    }
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.is_dropped = true;
        wake(&mut pipe.reader);
    }
}

impl Body for PipeBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.is_dropped && !pipe.is_ended {
            return Poll::Ready(Some(Err(Cut)));
        }
        if let Some(bytes) = pipe.queue.pop_front() {
            pipe.bytes -= bytes.len();
            wake(&mut pipe.write_ready);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if pipe.is_ended {
            return Poll::Ready(None);
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for PipeBody {
    fn drop(&mut self) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.is_gone = true;
        wake(&mut pipe.read_ready);
        wake(&mut pipe.write_ready);
    }
}
