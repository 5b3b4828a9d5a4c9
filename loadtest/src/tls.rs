//! TLS as a client of a load speaks it. The one module here that names rustls.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, client::Resumption,
};

/// A socket that speaks it.
pub(crate) type TlsSocket = TlsStream<TcpStream>;

/// How TLS is spoken to a server.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Trusts what is signed by the certificates in a PEM file; without one, whatever the server shows.
    ///
    /// # Errors
    /// When the file cannot be read or holds no certificate.
    pub fn new(ca: Option<&Path>, is_http2: bool) -> anyhow::Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context("TLS cannot be set up")?;
        let mut config = if let Some(path) = ca {
            let mut roots = RootCertStore::empty();
            let read = CertificateDer::pem_file_iter(path);
            for cert in read.with_context(|| format!("cannot read {}", path.display()))? {
                roots.add(cert?).with_context(|| format!("{} cannot be trusted", path.display()))?;
            }
            if roots.is_empty() {
                bail!(
                    "{} holds no certificate: name a PEM file (-----BEGIN CERTIFICATE-----)",
                    path.display()
                );
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        } else {
            let anyone = Arc::new(Anyone(provider));
            builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth()
        };
        let protocol: &[u8] = if is_http2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = Resumption::disabled(); // Each connection is a client of its own.
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands. The certificate must be for `localhost` where certificates are checked.
    ///
    /// # Errors
    /// When the server does not, or is not trusted.
    pub(crate) async fn connect(&self, tcp: TcpStream) -> anyhow::Result<TlsSocket> {
        let name = ServerName::try_from("localhost").context("a name")?;
        self.0.connect(name, tcp).await.context("no TLS with this server")
    }
}

/// Trusts every certificate: what is measured is a server on this machine.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
