//! What is counted of TLS. Registered only where there is any, so that no alert sees a certificate that ended in 1970.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct TlsMetrics {
    pub(super) handshakes: IntCounterVec,
    pub(super) expiry: IntGauge,
    pub(super) reload_failures: IntCounter,
    /// HTTP/2 sockets that were closed for what their client sent.
    pub(crate) h2_faults: IntCounterVec,
}

impl TlsMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            handshakes: IntCounterVec::new(
                Opts::new("tidegate_gateway_tls_handshakes_total", "TLS handshakes, by result."),
                &["result"],
            )?,
            expiry: IntGauge::new(
                "tidegate_gateway_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in use ends, as Unix time; 0 where that cannot be read.",
            )?,
            reload_failures: IntCounter::new(
                "tidegate_gateway_tls_reload_failures_total",
                "Changed certificate files that could not be used; the certificate before them stays.",
            )?,
            h2_faults: IntCounterVec::new(
                Opts::new(
                    "tidegate_gateway_h2_faults_total",
                    "HTTP/2 sockets closed because their client broke the protocol or sent too much of a kind, by kind.",
                ),
                &["kind"],
            )?,
        };
        registry.register(Box::new(metrics.handshakes.clone()))?;
        registry.register(Box::new(metrics.expiry.clone()))?;
        registry.register(Box::new(metrics.reload_failures.clone()))?;
        registry.register(Box::new(metrics.h2_faults.clone()))?;
        Ok(metrics)
    }
}
