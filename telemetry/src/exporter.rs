//! The exporter: one per process, OTLP over gRPC, in batches from a thread of its own.

use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::{IS_EXPORTING, TARGET};

/// How long a collector may take to answer.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The endpoint is no good.
    #[error("telemetry.otlp_endpoint: {0}; write http://collector:4317")]
    Endpoint(#[from] ExporterBuildError),
}

/// See the module. Dropping it without [`Exporter::shutdown`] loses what waits.
#[derive(Debug)]
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Exports to a collector's gRPC endpoint. A collector that is not there costs its spans and nothing else. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// When the endpoint is not one.
    pub fn start(endpoint: &str, role: &'static str) -> Result<Self, TelemetryError> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name(format!("tidegate-{role}")).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
            .with_batch_exporter(exporter)
            .build();
        IS_EXPORTING.store(true, Ordering::Relaxed);
        Ok(Self { provider })
    }

    /// What the process's subscriber needs, so that spans come here.
    #[must_use]
    pub fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("tidegate"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(filter_fn(|metadata| metadata.target() == TARGET));
        Box::new(layer)
    }

    /// Exports what waits. Blocks for at most as long as an export may take.
    pub fn shutdown(&self) {
        IS_EXPORTING.store(false, Ordering::Relaxed);
        // invariant: a collector that is not there has lost its spans, and the process ends all the same
        let _ = self.provider.shutdown_with_timeout(EXPORT_TIMEOUT);
    }
}
