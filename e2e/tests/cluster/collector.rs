//! An OTLP receiver on loopback, which keeps the spans that come.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tonic::{Request, Response, Status};

/// A span, as far as these tests look at it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// `service.name` of the process.
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace_id: Vec<u8>,
    pub(crate) span_id: Vec<u8>,
    pub(crate) parent: Vec<u8>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Vec<Seen>>>);

impl Collector {
    /// Listens; the endpoint for `telemetry.otlp_endpoint`.
    pub(crate) async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        (collector, endpoint)
    }

    /// All spans of a trace.
    pub(crate) fn of(&self, trace_id: u128) -> Vec<Seen> {
        let spans = self.0.lock().expect("lock");
        spans.iter().filter(|span| span.trace_id == trace_id.to_be_bytes()).cloned().collect()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().expect("lock");
        for of in request.into_inner().resource_spans {
            let service = service_name(of.resource.unwrap_or_default());
            for span in of.scope_spans.into_iter().flat_map(|of| of.spans) {
                kept.push(Seen {
                    service: service.clone(),
                    name: span.name,
                    trace_id: span.trace_id,
                    span_id: span.span_id,
                    parent: span.parent_span_id,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn service_name(resource: Resource) -> String {
    let named = resource.attributes.into_iter().find(|attribute| attribute.key == "service.name");
    match named.and_then(|attribute| attribute.value?.value) {
        Some(Value::StringValue(name)) => name,
        other => panic!("no name of a service: {other:?}"),
    }
}
