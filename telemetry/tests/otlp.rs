//! Spans reach a collector: a real OTLP receiver on loopback.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tidegate_telemetry::{Exporter, append_span, consume_span, context_of, fan_out_span};
use tidegate_vocab::TraceContext;
use tonic::{Request, Response, Status};
use tracing_subscriber::layer::SubscriberExt as _;

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter();
        let spans = spans.flat_map(|of| of.scope_spans).flat_map(|of| of.spans);
        self.0.lock().expect("lock").extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (Collector, String) {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let service = TraceServiceServer::new(collector.clone());
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    (collector, endpoint)
}

fn trace(trace_id: u128, flags: u8) -> TraceContext {
    TraceContext { trace_id, span_id: 0xb7, flags }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_is_found_in_append_consume_and_fan_out() {
    let (collector, endpoint) = collector().await;
    let exporter = Exporter::start(&endpoint, "router").expect("an endpoint");
    let subscriber = tracing_subscriber::registry().with(exporter.layer());
    tracing::subscriber::with_default(subscriber, || {
        let append = append_span(Some(trace(1, 1)), "events-0");
        let logged = context_of(&append, None).expect("a context");
        assert_eq!((logged.trace_id, logged.is_sampled()), (1, true));
        assert_ne!(logged.span_id, 0xb7, "what follows belongs to the append");
        let consume = consume_span([logged, trace(2, 1), trace(3, 0)], "events-0");
        drop((fan_out_span([logged]), consume, append));
        assert!(append_span(Some(trace(4, 0)), "events-0").is_none(), "nobody records it");
        assert!(append_span(None, "events-0").is_none());
        assert!(consume_span([], "events-0").is_none());
    });
    tokio::task::spawn_blocking(move || exporter.shutdown()).await.expect("no panic");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while collector.0.lock().expect("lock").len() < 3 {
        assert!(tokio::time::Instant::now() < deadline, "before the deadline the collector has the spans");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let spans = collector.0.lock().expect("lock").clone();
    let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}"));
    for name in ["append", "consume", "fan_out"] {
        assert_eq!(of(name).trace_id, 1_u128.to_be_bytes(), "{name}");
    }
    assert_eq!(of("append").parent_span_id, 0xb7_u64.to_be_bytes());
    assert_eq!(of("consume").parent_span_id, of("append").span_id);
    assert_eq!(of("consume").links.len(), 1, "the other recorded event is linked");
    assert_eq!(of("consume").links[0].trace_id, 2_u128.to_be_bytes());
    assert_eq!(spans.len(), 3);
}
