//! TLS in the process: what it refuses to start with, and what an idle connection costs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt as _;
use tidegate_e2e::{Server, Setup, eventually};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::WebSocketStream;

/// Connections of which the first ones pay for what all share.
const WARM_UP: usize = 100;
const MEASURED: usize = 500;
/// User memory of one idle connection (DESIGN, section 8).
const BYTES_EACH: u64 = 10 * 1024;

struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    der: CertificateDer<'static>,
}

fn certificate(directory: &Path, name: &str) -> Certificate {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("signed");
    let path = |kind: &str| directory.join(format!("{name}.{kind}"));
    std::fs::write(path("crt"), signed.cert.pem()).expect("written");
    std::fs::write(path("key"), signed.signing_key.serialize_pem()).expect("written");
    Certificate { cert: path("crt"), key: path("key"), der: signed.cert.der().clone() }
}

fn with_files(cert: &Path, key: &Path) -> Setup {
    Setup::new().set("tls.cert_file", cert.display()).set("tls.key_file", key.display())
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_refused_with_what_to_do() {
    let directory = tempfile::tempdir().expect("directory");
    let (one, other) = (certificate(directory.path(), "one"), certificate(directory.path(), "other"));
    let nowhere = directory.path().join("nowhere");
    for (setup, at, text) in [
        (Setup::new().set("tls.cert_file", one.cert.display()), "tls.cert_file", "tls.key_file is not"),
        (Setup::new().set("tls.key_file", one.key.display()), "tls.key_file", "tls.cert_file is not"),
        (with_files(&nowhere, &one.key), "tls.cert_file", "nowhere cannot be read"),
        (with_files(&one.cert, &one.cert), "tls.key_file", "holds no private key"),
        (with_files(&other.key, &one.key), "tls.cert_file", "holds no certificate"),
        (with_files(&one.cert, &other.key), "tls.key_file", "openssl pkey -pubout"),
    ] {
        let (code, said) = Server::start_refused(setup).await;
        assert!(code == 2 && said.contains(at) && said.contains(text), "{at}: {text}: {code}: {said}");
    }
}

async fn connect(server: &Server, tls: &TlsConnector) -> WebSocketStream<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(server.public()).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = tls.connect(name, tcp).await.expect("secure");
    let url = format!("wss://{}/v1/events?channel=a", server.public());
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("opens");
    socket.next().await.expect("open").expect("the first state");
    socket
}

/// Bytes of memory of the process that no file backs.
fn anonymous_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[tokio::test]
async fn an_idle_connection_over_tls_stays_within_its_budget() {
    let directory = tempfile::tempdir().expect("directory");
    let own = certificate(directory.path(), "own");
    let server = Server::start(with_files(&own.cert, &own.key)).await;
    let mut roots = RootCertStore::empty();
    roots.add(own.der).expect("a certificate");
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(config));
    let mut open = Vec::new();
    for _ in 0..WARM_UP {
        open.push(connect(&server, &tls).await);
    }
    let before = anonymous_bytes(&server);
    for _ in 0..MEASURED {
        open.push(connect(&server, &tls).await);
    }
    // What handshakes left behind goes back to the system within seconds.
    let each = || anonymous_bytes(&server).saturating_sub(before) / MEASURED as u64;
    eventually("memory is within its budget", async || (each() <= BYTES_EACH).then_some(())).await;
    println!("{} bytes of user memory per idle WebSocket over TLS", each());
    drop(open);
}
