//! The public listeners: one per shard on the same address, and sockets that end when their peer is gone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tidegate_vocab::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::admission::{Entry, Pace};
use crate::shard::Shard;
use crate::socket::ClientSocket;
use crate::{http, tls};

/// Connections that may wait for an accept.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept: without file descriptors the next one would fail at once, again and again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds one listener per shard to the same port. `SO_REUSEPORT` would also let another process share the port
/// unseen, so the address is first bound alone.
///
/// # Errors
/// When the address cannot be bound, for instance because another process has it.
pub(crate) fn bind(address: SocketAddr, shards: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let alone = socket(address, false)?;
    let address = alone.local_addr()?.as_socket().unwrap_or(address);
    drop(alone);
    (0..shards)
        .map(|_| {
            let socket = socket(address, true)?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        })
        .collect()
}

fn socket(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accepts until told to stop; each socket starts as HTTP.
pub(crate) async fn accept(shard: Rc<Shard>, listener: TcpListener, mut accepting: watch::Receiver<bool>) {
    let rate = f64::from(shard.shared.config.admission.accept_rate);
    let mut pace = Pace::new(rate, Instant::now());
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = paced(&mut pace, &listener, &shard) => accepted,
            _ = accepting.wait_for(|accepting| !accepting) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("accepting again");
                }
                begin(&shard, stream, peer.ip(), &accepting);
            }
            Err(error) => {
                shard.shared.metrics.accept_errors.inc();
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "accept failed; clients wait in the listen queue until it does not");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The next socket, once the pace allows one: until then they wait in the listen queue, and beyond it with their kernel.
async fn paced(
    pace: &mut Pace,
    listener: &TcpListener,
    shard: &Shard,
) -> io::Result<(TcpStream, std::net::SocketAddr)> {
    if let Err(wait) = pace.take(Instant::now()) {
        shard.shared.metrics.accept_waits.inc();
        tokio::time::sleep(wait).await;
        let _ = pace.take(Instant::now());
    }
    listener.accept().await
}

fn begin(shard: &Rc<Shard>, stream: TcpStream, peer: IpAddr, accepting: &watch::Receiver<bool>) {
    let Some((permit, entry)) = shard.shared.sockets.permit(peer) else {
        shard.shared.metrics.refused.with_label_values(&["rate_limited"]).inc();
        return; // Its address has had its answers.
    };
    let sockets = shard.shared.sockets();
    let limit = shard.shared.sockets_limit;
    if sockets > limit + limits::RESERVED_FILES as usize / 2 {
        shard.shared.metrics.refused.with_label_values(&["overloaded"]).inc();
        return; // No file to spare even for an answer.
    }
    if stream.set_nodelay(true).is_err() {
        return; // The peer is gone already.
    }
    let user_timeout = Duration::from_millis(limits::TCP_USER_TIMEOUT_MS);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(user_timeout));
    let entry = if sockets > limit { Entry::NodeFull } else { entry };
    if shard.shared.tls.is_some() {
        let serving = tls::serve(Rc::clone(shard), stream, permit, entry, accepting.clone());
        tokio::task::spawn_local(serving);
        return;
    }
    let stream = ClientSocket::Plain(stream);
    let serving = http::serve(Rc::clone(shard), stream, permit, Bytes::new(), entry, accepting.clone());
    tokio::task::spawn_local(serving);
}
