//! A certificate chain and its key, from files. Every error names the file and says what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::validity;

/// Bytes of a file beyond which it is no certificate: a long chain has 10 KiB.
const FILE_BYTES_LIMIT: u64 = 1024 * 1024;

/// Where the public port's certificate and its key are: PEM files, looked at again while the gateway runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain: the server's own certificate first.
    pub cert: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
}

/// Why files are no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}; name a PEM file that this process may read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no certificate in the file.
    #[error(
        "{} holds no certificate: it must be PEM (-----BEGIN CERTIFICATE-----), the server's own first, then those \
         that lead to its root", path.display()
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no key in the file.
    #[error(
        "{} holds no private key: it must be PEM (-----BEGIN PRIVATE KEY-----) without a passphrase; \
         `openssl pkey -in FILE` takes one away", path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// They do not belong together, or this kind cannot be used.
    #[error(
        "{} and {} cannot be used together ({source}): compare `openssl x509 -noout -pubkey -in` of the one with \
         `openssl pkey -pubout -in` of the other", cert.display(), key.display()
    )]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

impl CertificateError {
    /// Whether the key's file is at fault rather than the certificate's.
    #[must_use]
    pub fn is_about(&self, file: &Path) -> bool {
        match self {
            Self::Read { path, .. } | Self::NoCertificate { path } | Self::NoKey { path } => path == file,
            Self::Unusable { key, .. } => key == file,
        }
    }
}

impl TlsFiles {
    /// Whether the files can be read and belong together. Says when the certificate ends, in seconds of Unix time, if that
    /// can be read.
    ///
    /// # Errors
    /// Says which does not, and what to do.
    pub fn check(&self) -> Result<Option<u64>, CertificateError> {
        Ok(self.contents()?.parse(self, &super::provider())?.expires_s)
    }

    /// What is in the files now.
    pub(super) fn contents(&self) -> Result<Contents, CertificateError> {
        Ok(Contents { cert: read(&self.cert)?, key: read(&self.key)? })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let failed = |source| CertificateError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, FILE_BYTES_LIMIT), &mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

/// What two files held at one time. Not `Debug`: a key is no log's business.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// A certificate that can be used.
pub(super) struct Certificate {
    pub(super) certified: Arc<CertifiedKey>,
    /// When it ends, in seconds of Unix time, if that can be read.
    pub(super) expires_s: Option<u64>,
}

impl Contents {
    /// Tells contents apart without keeping the key.
    pub(super) fn digest(&self) -> [u128; 2] {
        [&self.cert, &self.key].map(|bytes| xxhash_rust::xxh3::xxh3_128(bytes))
    }

    pub(super) fn parse(
        &self,
        files: &TlsFiles,
        provider: &CryptoProvider,
    ) -> Result<Certificate, CertificateError> {
        let no_certificate = || CertificateError::NoCertificate { path: files.cert.clone() };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<_, _>>()
            .map_err(|_| no_certificate())?;
        let expires_s = validity::not_after(chain.first().ok_or_else(no_certificate)?);
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| CertificateError::NoKey { path: files.key.clone() })?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|source| {
            CertificateError::Unusable { cert: files.cert.clone(), key: files.key.clone(), source }
        })?;
        Ok(Certificate { certified: Arc::new(certified), expires_s })
    }
}
