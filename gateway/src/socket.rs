//! A client's socket: TCP, or TLS over it, or one stream of an HTTP/2 socket. What HTTP and the shard do with one is the
//! same for all: try now, and wait for readiness. Plain sockets pay one branch for it.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::http::H2Stream;
use crate::tls::TlsSocket;

/// See the module.
#[derive(Debug)]
pub(crate) enum ClientSocket {
    Plain(TcpStream),
    Tls(Box<TlsSocket>),
    /// One stream of an HTTP/2 socket, which stays with HTTP.
    H2(Box<H2Stream>),
}

impl ClientSocket {
    /// Reads what is there.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is; else the socket is broken, or what came is no TLS.
    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => {
                let read = tcp.try_read(buffer);
                // As epoll(7) says of edges: who gets less than it has room for has had all. Without this, every read is
                // followed by another that only says so.
                if matches!(read, Ok(count) if 0 < count && count < buffer.len()) {
                    let _not_ready_any_more =
                        tcp.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                }
                read
            }
            Self::Tls(tls) => tls.try_read(buffer),
            Self::H2(stream) => stream.try_read(buffer),
        }
    }

    /// Writes what it takes now.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing; else the socket is broken.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => send_plain(tcp, bytes),
            Self::Tls(tls) => tls.try_write(bytes),
            Self::H2(stream) => stream.try_write_vectored(&[io::IoSlice::new(bytes)]),
        }
    }

    /// As [`ClientSocket::try_write`], of bytes that others hold too: HTTP/2 keeps what it takes without a copy.
    ///
    /// # Errors
    /// As [`ClientSocket::try_write`].
    pub(crate) fn try_write_shared(&mut self, bytes: &Bytes) -> io::Result<usize> {
        if let Self::H2(stream) = self { stream.try_write_shared(bytes) } else { self.try_write(bytes) }
    }

    /// As [`ClientSocket::try_write`], from several places at once.
    ///
    /// # Errors
    /// As [`ClientSocket::try_write`].
    pub(crate) fn try_write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write_vectored(slices),
            Self::Tls(tls) => tls.try_write_vectored(slices),
            Self::H2(stream) => stream.try_write_vectored(slices),
        }
    }

    /// Whether bytes that it has taken still wait here for TCP: a further write, also of nothing, sends them on.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) | Self::H2(_) => false,
            Self::Tls(tls) => tls.has_unsent(),
        }
    }

    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => tcp.poll_read_ready(cx),
            Self::Tls(tls) => tls.poll_read_ready(cx),
            Self::H2(stream) => stream.poll_read_ready(cx),
        }
    }

    pub(crate) fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => tcp.poll_write_ready(cx),
            Self::Tls(tls) => tls.tcp().poll_write_ready(cx),
            Self::H2(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Ends our side, with TLS' own end before it. To be called again while [`ClientSocket::has_unsent`].
    pub(crate) fn shutdown_write(&mut self) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => {
                if tls.say_end().is_err() || tls.has_unsent() {
                    return;
                }
                tls.tcp()
            }
            Self::H2(stream) => return stream.end(),
        };
        let _ = SockRef::from(tcp).shutdown(Shutdown::Write);
    }

    pub(crate) fn is_h2(&self) -> bool {
        matches!(self, Self::H2(_))
    }
}

/// Past tokio's note of what the socket is ready for, which costs a delivery a cache line and an atomic or two. What the
/// socket does not take is tried once more by way of that note, which so learns that it is full.
fn send_plain(tcp: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match send(tcp, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(written) => Ok(written),
        Err(Errno::AGAIN) => tcp.try_write(bytes),
        Err(error) => Err(error.into()),
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => loop {
                match tls.try_read(buf.initialize_unfilled()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(tls.poll_read_ready(cx))?
                    }
                    read => {
                        buf.advance(read?);
                        return Poll::Ready(Ok(()));
                    }
                }
            },
            Self::H2(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())), // HTTP has it already.
        }
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.as_mut().poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => loop {
                match tls.try_write_vectored(bufs) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(tls.tcp().poll_write_ready(cx))?
                    }
                    written => return Poll::Ready(written),
                }
            },
            Self::H2(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => tls.poll_flush(cx),
            Self::H2(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => {
                tls.say_end()?;
                ready!(tls.poll_flush(cx))?;
                let _ = SockRef::from(tls.tcp()).shutdown(Shutdown::Write);
                Poll::Ready(Ok(()))
            }
            Self::H2(stream) => {
                stream.end();
                Poll::Ready(Ok(()))
            }
        }
    }
}
