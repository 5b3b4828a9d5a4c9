//! The certificate in use, and the task that replaces it when its files change.
//!
//! Files are compared by content, not by time, through whatever links lead to them: Kubernetes swaps a link. A pair that
//! loads and matches is in force for the next handshake; connections that are open keep their session. One that does
//! not is told once, counted, and the certificate before it stays.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::MissedTickBehavior;

use super::certificate::{Certificate, TlsFiles};
use super::metrics::TlsMetrics;
use crate::clock::unix_ms;

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Gives every handshake the certificate that is in use.
#[derive(Debug)]
pub(super) struct Current(ArcSwap<CertifiedKey>);

impl Current {
    pub(super) fn new(certificate: &Certificate) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(Arc::clone(&certificate.certified))))
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// See the module.
pub(crate) struct ReloadTask {
    files: TlsFiles,
    current: Arc<Current>,
    metrics: TlsMetrics,
    /// What the files held when they were last judged.
    judged: Option<[u128; 2]>,
    /// What failed at the last look, and may only have been half written: it is judged if it is still there.
    doubted: Option<Option<[u128; 2]>>,
}

impl ReloadTask {
    pub(super) fn new(
        files: TlsFiles,
        current: Arc<Current>,
        metrics: TlsMetrics,
        judged: [u128; 2],
    ) -> Self {
        Self { files, current, metrics, judged: Some(judged), doubted: None }
    }

    /// Looks for as long as the gateway runs.
    pub(crate) async fn run(mut self) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look();
        }
    }

    fn look(&mut self) {
        let contents = self.files.contents();
        let digest = contents.as_ref().ok().map(super::certificate::Contents::digest);
        if digest == self.judged {
            self.doubted = None;
            return;
        }
        match contents.and_then(|contents| contents.parse(&self.files, &super::provider())) {
            Ok(certificate) => {
                note(&certificate, &self.metrics);
                self.current.0.store(certificate.certified);
                tracing::info!(
                    cert = %self.files.cert.display(),
                    expires_s = certificate.expires_s,
                    "certificate replaced"
                );
            }
            // A certificate and its key are two files: the second may follow in a moment.
            Err(_) if self.doubted != Some(digest) => {
                self.doubted = Some(digest);
                return;
            }
            Err(error) => {
                self.metrics.reload_failures.inc();
                tracing::error!(%error, "changed certificate cannot be used; the one before it stays");
            }
        }
        self.judged = digest;
        self.doubted = None;
    }
}

/// Shows when the certificate ends, and warns of one that has.
pub(super) fn note(certificate: &Certificate, metrics: &TlsMetrics) {
    let expires_s = certificate.expires_s.unwrap_or(0);
    metrics.expiry.set(i64::try_from(expires_s).unwrap_or(i64::MAX));
    if certificate.expires_s.is_some_and(|expires_s| expires_s <= unix_ms() / 1_000) {
        tracing::warn!(
            expires_s,
            "certificate has expired; put a new one in its place, no restart is needed"
        );
    }
}
