//! The shard's end of one HTTP/2 stream. It behaves as a socket does: it takes as many bytes as the client's windows and
//! [`limits::H2_SEND_BYTES_LIMIT`] have room for, and then none until some have left. So outboxes and the policies for slow
//! clients are the same for every transport. No task, no channel and no buffer of its own: the h2 library has them.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::Response;
use tidegate_vocab::limits;

use super::request::send_answer;

/// See the module.
#[derive(Debug)]
pub(crate) struct H2Stream {
    half: Half,
    /// What a WebSocket's client said and was not read yet: it counts against the stream's window until it is.
    unread: Bytes,
    /// This side has said all.
    is_ended: bool,
    /// The client has reset the stream or ended its side, or the socket is gone.
    is_gone: bool,
    /// It has ended its side in good order: a browser does so with a WebSocket's last frame.
    has_said_all: bool,
    /// Counts as an open request of its socket for as long as this is here.
    open: Rc<()>,
}

#[derive(Debug)]
enum Half {
    /// A poll: nothing has been said yet.
    Waiting(SendResponse<Bytes>),
    /// A stream of events, and what its client says if it is a WebSocket.
    Open(SendStream<Bytes>, Option<RecvStream>),
    /// A poll that has its answer.
    Answered,
}

impl H2Stream {
    /// A poll, to be answered.
    pub(super) fn waiting(respond: SendResponse<Bytes>, open: Rc<()>) -> Self {
        Self::new(Half::Waiting(respond), open)
    }

    /// A stream whose head has been sent; `frames` is what the client says, if it may.
    pub(super) fn open(send: SendStream<Bytes>, frames: Option<RecvStream>, open: Rc<()>) -> Self {
        Self::new(Half::Open(send, frames), open)
    }

    fn new(half: Half, open: Rc<()>) -> Self {
        Self { half, unread: Bytes::new(), is_ended: false, is_gone: false, has_said_all: false, open }
    }

    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.unread.len().min(buffer.len());
        if count > 0 {
            buffer[..count].copy_from_slice(&self.unread[..count]);
            self.unread.advance(count);
            if let Half::Open(_, Some(frames)) = &mut self.half {
                let _ = frames.flow_control().release_capacity(count); // Only fails where nothing is held.
            }
            return Ok(count);
        }
        if self.is_gone { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() && !self.is_gone {
            let gone = match &mut self.half {
                Half::Open(_, Some(frames)) => match frames.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => {
                        self.unread = data;
                        continue;
                    }
                    Poll::Ready(end) => {
                        self.has_said_all = end.is_none();
                        Poll::Ready(())
                    }
                    Poll::Pending => Poll::Pending,
                },
                // Both sides have said all: nothing more can come.
                Half::Open(_, None) if self.is_ended => Poll::Ready(()),
                Half::Open(send, None) => send.poll_reset(cx).map(|_| ()),
                Half::Waiting(respond) => respond.poll_reset(cx).map(|_| ()),
                Half::Answered => Poll::Ready(()),
            };
            match gone {
                Poll::Ready(()) => self.is_gone = true,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Room for some of `wanted` bytes, and the stream to put them on.
    fn room(&mut self, wanted: usize) -> io::Result<(&mut SendStream<Bytes>, usize)> {
        let Half::Open(send, _) = &mut self.half else { return Err(ErrorKind::BrokenPipe.into()) };
        if self.is_ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        send.reserve_capacity(wanted.min(limits::H2_SEND_BYTES_LIMIT));
        let room = send.capacity().min(wanted);
        if room == 0 && wanted > 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok((send, room)) }
    }

    /// Writes bytes that others hold too, without a copy.
    pub(crate) fn try_write_shared(&mut self, bytes: &Bytes) -> io::Result<usize> {
        let (send, room) = self.room(bytes.len())?;
        send_data(send, bytes.slice(..room), bytes.len())
    }

    pub(crate) fn try_write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let wanted = slices.iter().map(|slice| slice.len()).sum();
        let (send, room) = self.room(wanted)?;
        let mut taken = BytesMut::with_capacity(room);
        for slice in slices {
            let left = room - taken.len();
            taken.extend_from_slice(&slice[..slice.len().min(left)]);
        }
        send_data(send, taken.freeze(), wanted)
    }

    pub(crate) fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Half::Open(send, _) = &mut self.half else { return Poll::Ready(Ok(())) };
        if self.is_ended || send.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        // What it fails with, the next write says.
        send.poll_capacity(cx).map(|_| Ok(()))
    }

    /// The stream ends once all of it has been sent.
    pub(crate) fn end(&mut self) {
        if let (Half::Open(send, _), false) = (&mut self.half, self.is_ended) {
            self.is_ended = true;
            let _ = send.send_data(Bytes::new(), true); // The client may have gone.
        }
    }

    /// A poll's answer; then the stream is over.
    pub(crate) fn answer(mut self, head: Response<()>, body: Vec<u8>) {
        if let Half::Waiting(respond) = std::mem::replace(&mut self.half, Half::Answered) {
            send_answer(respond, head, body.into(), Rc::clone(&self.open));
        }
    }
}

/// Sends a part of what is wanted, and asks for room for the rest: without that the writer would not be woken.
fn send_data(send: &mut SendStream<Bytes>, data: Bytes, wanted: usize) -> io::Result<usize> {
    let count = data.len();
    if count > 0 {
        send.send_data(data, false).map_err(|_| ErrorKind::BrokenPipe)?;
    }
    send.reserve_capacity((wanted - count).min(limits::H2_SEND_BYTES_LIMIT));
    Ok(count)
}

impl Drop for H2Stream {
    /// What was not ended is cut short: at once, whatever waits. Not so where the client had ended first: it still hears what was
    /// answered.
    fn drop(&mut self) {
        if self.has_said_all {
            self.end();
        }
        match &mut self.half {
            Half::Open(send, _) if !self.is_ended => send.send_reset(Reason::CANCEL),
            Half::Waiting(respond) => respond.send_reset(Reason::CANCEL),
            _ => {}
        }
    }
}
