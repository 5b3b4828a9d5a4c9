//! One TLS session over its TCP socket, for callers that try and do not wait.
//!
//! What it has taken and encrypted but TCP has not is bounded: nothing more is taken while any of it waits. So a slow
//! reader holds at most [`limits::TLS_UNSENT_BYTES_LIMIT`] here; the rest waits in its outbox, where the policy for
//! slow consumers sees it.

use std::io::{self, BufRead as _, ErrorKind, IoSlice, Read as _, Write as _};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{ServerConfig, ServerConnection};
use tidegate_vocab::limits;
use tokio::net::TcpStream;

/// Reads of TCP in a row that may bring no bytes for the reader: records without content must not hold up a shard.
const EMPTY_READS_IN_A_ROW: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct TlsSocket {
    tcp: TcpStream,
    session: ServerConnection,
}

impl TlsSocket {
    pub(super) fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut session = ServerConnection::new(config)?;
        session.set_buffer_limit(Some(limits::TLS_UNSENT_BYTES_LIMIT));
        Ok(Self { tcp, session })
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Goes on with the handshake as far as TCP allows.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            match self.receive() {
                Ok(0) => return Poll::Ready(Err(ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_read_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..EMPTY_READS_IN_A_ROW {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Ended without saying so. HTTP and WebSocket know by themselves what is whole.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            self.receive()?;
        }
        Err(ErrorKind::WouldBlock.into())
    }

    /// Ready also when what was received before has not all been read.
    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let nothing_left =
            self.session.reader().fill_buf().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        if nothing_left { self.tcp.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Takes one piece from TCP and says how long it was; answers go out as far as TCP takes them.
    fn receive(&mut self) -> io::Result<usize> {
        let count = self.session.read_tls(&mut Tcp(&self.tcp))?;
        let processed = self.session.process_new_packets();
        let sent = self.send(); // An alert, if it is one, goes out before the error is told.
        processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        sent.map(|()| count)
    }

    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut total = 0;
        while total < bytes.len() {
            match self.try_write_vectored(&[IoSlice::new(&bytes[total..])]) {
                Ok(written) => total += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock && total > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    pub(crate) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send()?;
        if self.has_unsent() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let written = self.session.writer().write_vectored(slices)?;
        self.send()?;
        Ok(written)
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.session.wants_write()
    }

    /// Tells the peer that nothing follows.
    pub(crate) fn say_end(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        self.send()
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.send()?;
            if !self.has_unsent() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.tcp.poll_write_ready(cx))?;
        }
    }

    /// Sends what is encrypted, until nothing is left or TCP is full.
    fn send(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Tcp(&self.tcp)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The protocol that client and server agreed on, if the client named any.
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }
}

/// TCP as rustls wants it.
struct Tcp<'a>(&'a TcpStream);

impl io::Read for Tcp<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl io::Write for Tcp<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
