//! A gateway that speaks TLS, certificates, and clients that speak it too.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use prometheus::Registry;
use serde_json::Value;
use tidegate_gateway::{Gateway, GatewayConfig, TlsFiles};
use tidegate_link::RouterLink;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::{TlsConnector, rustls};

use crate::harness::{Client, PATIENCE, RouterProcess, counts, eventually, eventually_so, gateway_config};

/// A gateway with its router, and where its certificate lies.
pub(crate) struct Secure {
    pub(crate) gateway: Gateway,
    pub(crate) process: RouterProcess,
    pub(crate) registry: Registry,
    pub(crate) files: TlsFiles,
    pub(crate) cert: CertificateDer<'static>,
    directory: tempfile::TempDir,
    routers: watch::Sender<BTreeMap<String, Arc<dyn RouterLink>>>,
}

impl Secure {
    pub(crate) async fn start(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let process = RouterProcess::start(&directory.path().join("router"), any).await;
        let link = Arc::clone(&process.router) as Arc<dyn RouterLink>;
        let (routers, watching) = watch::channel(BTreeMap::from([("router".to_owned(), link)]));
        let registry = Registry::new();
        let path = |name| directory.path().join(name);
        let files = TlsFiles { cert: path("tls.crt"), key: path("tls.key") };
        let cert = certify(&files);
        let mut config = GatewayConfig { tls: Some(files.clone()), ..gateway_config() };
        change(&mut config);
        let gateway = Gateway::start(config, watching, counts(), &registry, None).expect("starts");
        eventually("the gateway is ready", || gateway.ready().is_ok()).await;
        Self { gateway, process, registry, files, cert, directory, routers }
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.gateway.local_addr()).await.expect("connects")
    }

    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        connect(self.tcp().await, &self.cert, &[b"http/1.1"], rustls::DEFAULT_VERSIONS).await.expect("secure")
    }

    /// Waits until a client that trusts this certificate alone is served.
    pub(crate) async fn shows(&self, cert: &CertificateDer<'static>) {
        let is_shown = async || {
            let tcp = TcpStream::connect(self.gateway.local_addr()).await.expect("connects");
            connect(tcp, cert, &[], rustls::DEFAULT_VERSIONS).await.is_ok()
        };
        eventually_so("the certificate is used", is_shown).await;
    }

    pub(crate) async fn websocket(&self) -> Client<TlsStream<TcpStream>> {
        let url = format!("wss://{}/v1/events?channel=a", self.gateway.local_addr());
        let (socket, _) = tokio_tungstenite::client_async(url, self.connect().await).await.expect("opens");
        let mut client = Client(socket);
        let is_a = |name: &Value| name == "a";
        while !client.hear("state").await["fresh"].as_array().is_some_and(|names| names.iter().any(is_a)) {}
        client
    }

    /// A request whose answer begins well; more of the answer may follow.
    pub(crate) async fn get(&self, stream: &mut TlsStream<TcpStream>, target: &str, headers: &str) {
        let address = self.gateway.local_addr();
        let request = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
    }

    /// How often something was counted.
    pub(crate) fn count(&self, family: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|it| it.name() == family);
        let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
        let labelled = metrics
            .iter()
            .filter(|metric| label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label));
        labelled.map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
    }

    pub(crate) fn handshakes(&self, result: &str) -> f64 {
        self.count("tidegate_gateway_tls_handshakes_total", result)
    }

    pub(crate) async fn stop(self) {
        let Self { gateway, process, routers, directory, .. } = self;
        tokio::time::timeout(PATIENCE, gateway.stop()).await.expect("it stops");
        drop(routers);
        process.stop().await;
        drop(directory);
    }
}

/// Puts a new certificate and its key in place of what is there.
pub(crate) fn certify(files: &TlsFiles) -> CertificateDer<'static> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let cert = params.self_signed(&key).expect("signed");
    put(&files.key, &key.serialize_pem());
    put(&files.cert, &cert.pem());
    cert.der().clone()
}

/// As Kubernetes does: the name leads to another file at once.
pub(crate) fn put(path: &Path, text: &str) {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text).expect("written");
    std::fs::rename(&partial, path).expect("moved");
}

pub(crate) async fn connect(
    tcp: TcpStream,
    trusted: &CertificateDer<'static>,
    protocols: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// Reads until the text is there; what came before it and it itself.
pub(crate) async fn read_until(stream: &mut TlsStream<TcpStream>, text: &str) -> String {
    read_to(stream, text, |read| read.contains(text)).await
}

/// Reads the head and the first state of a stream that follows `a`.
pub(crate) async fn read_fresh(stream: &mut TlsStream<TcpStream>) {
    let is_fresh = |read: &str| {
        let fresh = read.split("\"fresh\":[").nth(1).and_then(|rest| rest.split(']').next());
        fresh.is_some_and(|fresh| fresh.contains("\"a\""))
    };
    let read = read_to(stream, "the first state", is_fresh).await;
    let (head, _) = read.split_once("\r\n\r\n").expect("a head");
    assert_eq!(head.matches("\r\ndate: ").count(), 1, "{head}");
}

async fn read_to(stream: &mut TlsStream<TcpStream>, what: &str, is_there: impl Fn(&str) -> bool) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !is_there(&String::from_utf8_lossy(&read)) {
            let count = stream.read_buf(&mut read).await.expect("no error");
            assert!(count > 0, "{what} in {}", String::from_utf8_lossy(&read));
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, reading).await.is_ok();
    let read = String::from_utf8_lossy(&read).into_owned();
    assert!(in_time, "{what} in {read}");
    read
}
