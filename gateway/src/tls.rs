//! TLS on the public port. The one module that names rustls.
//!
//! A handshake runs on its shard, counts as a socket and has a time limit; then HTTP goes on as on a plain socket. The
//! certificate may be replaced at any time: see [`reload`]. Client certificates are not asked for.

mod certificate;
mod metrics;
mod reload;
mod socket;
mod validity;

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use prometheus::Registry;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::admission::{Entry, Permit};
use crate::http;
use crate::shard::Shard;
use crate::socket::ClientSocket;

pub use certificate::{CertificateError, TlsFiles};
use metrics::TlsMetrics;
use reload::Current;
pub(crate) use reload::ReloadTask;
pub(crate) use socket::TlsSocket;

/// The name of HTTP/2 in a handshake. Preferred: a browser opens at most six sockets to a host otherwise.
const H2: &[u8] = b"h2";
/// What a client hears that speaks HTTP to this port, but for the date: it cannot read an alert.
const PLAIN_HTTP_HEAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n\
    content-length: 96\r\nconnection: close\r\ndate: ";
const PLAIN_HTTP_BODY: &[u8] =
    b"{\"type\":\"about:blank\",\"status\":400,\"detail\":\"this port speaks TLS: use https:// or wss:// here\"}";
/// Bytes of a request in plain HTTP that are read before the connection is closed, so that the answer is not lost.
const PLAIN_HTTP_BYTES_LIMIT: usize = 16 * 1024;

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The files are no good.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The library refuses: a fault of ours.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
    /// Two families have one name: a fault of ours.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// What every handshake needs.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    pub(crate) metrics: TlsMetrics,
}

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

impl Tls {
    /// Loads the certificate; the task sees to it that a newer one is used.
    pub(crate) fn start(files: &TlsFiles, registry: &Registry) -> Result<(Self, ReloadTask), TlsError> {
        let contents = files.contents()?;
        let certificate = contents.parse(files, &provider())?;
        let metrics = TlsMetrics::register(registry)?;
        reload::note(&certificate, &metrics);
        let current = Current::new(&certificate);
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as _);
        config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        // Who comes back within hours shows a ticket and costs no signature; this side keeps nothing for it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        let task = ReloadTask::new(files.clone(), current, metrics.clone(), contents.digest());
        Ok((Self { config: Arc::new(config), metrics }, task))
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<TlsSocket, &'static str> {
        let mut first = [0];
        match tcp.peek(&mut first).await {
            Ok(0) => return Err("closed"),
            Ok(_) if first[0].is_ascii_uppercase() => {
                answer_plain_http(tcp).await;
                return Err("plain_http");
            }
            Ok(_) => {}
            Err(error) => return Err(result_of(&error)),
        }
        let mut socket = TlsSocket::new(tcp, Arc::clone(&self.config)).map_err(|_| "invalid")?;
        match poll_fn(|cx| socket.poll_handshake(cx)).await {
            Ok(()) => Ok(socket),
            Err(error) => Err(result_of(&error)),
        }
    }
}

/// Shakes hands, then serves HTTP.
pub(crate) async fn serve(
    shard: Rc<Shard>,
    tcp: TcpStream,
    permit: Permit,
    entry: Entry,
    mut accepting: watch::Receiver<bool>,
) {
    let Some(tls) = shard.shared.tls.as_ref() else { return };
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(shard.shared.config.head_timeout, tls.handshake(tcp)) => shaken.unwrap_or(Err("timeout")),
        _ = accepting.wait_for(|accepting| !accepting) => Err("draining"),
    };
    tls.metrics.handshakes.with_label_values(&[shaken.as_ref().err().unwrap_or(&"ok")]).inc();
    let Ok(socket) = shaken else { return };
    let is_h2 = socket.alpn() == Some(H2);
    let socket = ClientSocket::Tls(Box::new(socket));
    if is_h2 {
        // On the heap: a socket that speaks HTTP/1.1 leaves this function early and must not pay for it.
        Box::pin(http::h2::serve(shard, socket, permit, entry, accepting)).await;
    } else {
        http::serve(shard, socket, permit, Bytes::new(), entry, accepting).await;
    }
}

/// Why a handshake failed, as the metric's label.
fn result_of(error: &io::Error) -> &'static str {
    let fault = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    match fault {
        None if error.kind() == ErrorKind::InvalidData => "invalid",
        None => "closed",
        Some(rustls::Error::NoApplicationProtocol) => "no_common_protocol",
        Some(rustls::Error::PeerIncompatible(_)) => "incompatible",
        // Mostly a client that does not trust the certificate.
        Some(rustls::Error::AlertReceived(_)) => "client_alert",
        Some(_) => "invalid",
    }
}

/// Best effort: the connection ends either way, and within the handshake's time.
async fn answer_plain_http(mut tcp: TcpStream) {
    let mut request = [0; 1024];
    let mut read = tcp.read(&mut request).await.unwrap_or(0);
    let answer = [PLAIN_HTTP_HEAD, http::date().as_bytes(), b"\r\n\r\n", PLAIN_HTTP_BODY].concat();
    if tcp.write_all(&answer).await.is_err() || tcp.shutdown().await.is_err() {
        return;
    }
    while read < PLAIN_HTTP_BYTES_LIMIT {
        match tcp.read(&mut request).await {
            Ok(count @ 1..) => read += count,
            _ => return,
        }
    }
}
