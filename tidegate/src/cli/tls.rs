//! TLS of commands that are clients. The one module of this crate that names rustls.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, Error, RootCertStore};

use crate::cli::Failure;

/// Whom a command trusts.
#[derive(Clone)]
pub(super) struct Trust(TlsConnector);

impl Trust {
    /// The certificates in a PEM file; without one, those of the system.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = ca {
            let wrong = |what: &str| Failure::usage(format!("--tls-ca {}: {what}", path.display()));
            let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error.to_string()))?;
            for cert in read {
                let cert = cert.map_err(|error| wrong(&error.to_string()))?;
                roots.add(cert).map_err(|error| wrong(&error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("holds no certificate; name a PEM file (-----BEGIN CERTIFICATE-----)"));
            }
        } else {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
            if roots.is_empty() {
                let text = "the system has no certificates to trust: install its package ca-certificates, or name \
                            a PEM file with --tls-ca";
                return Err(Failure::usage(text));
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::usage(format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands with the server of this name.
    pub(super) async fn connect(&self, host: &str, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(std::io::Error::other)?;
        self.0.connect(name, tcp).await
    }
}

/// What to do about a handshake that failed because of the certificate; none when it failed for another reason.
pub(super) fn distrust(error: &std::io::Error) -> Option<String> {
    let fault = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(fault) = fault else { return None };
    Some(format!(
        "its certificate is not trusted ({fault}): name a PEM file with its issuer's certificate with --tls-ca; \
         `tidegate dev --tls` says where its own is"
    ))
}
