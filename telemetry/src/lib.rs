//! Spans of traced events: append, consume, fan-out; exported over OTLP.
//!
//! Owns: how a W3C trace context becomes the parent or a link of a span, and the exporter. There is one span for each
//! append, one for each batch that a partition consumes and one for each batch that a node fans out, never one for a
//! connection. Only publishes whose caller records its trace (the sampled flag) have spans at all, so an untraced event
//! costs nothing. Does not know what an event is.

mod exporter;

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tidegate_vocab::TraceContext;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

pub use exporter::{Exporter, TelemetryError};

/// The target of all these spans: log lines leave them out, the exporter takes nothing else.
pub const TARGET: &str = "tidegate_trace";
/// Links of one span: a batch may hold more traced events than a collector wants to see.
const LINKS_LIMIT: usize = 64;

static IS_EXPORTING: AtomicBool = AtomicBool::new(false);

/// A publish on its way into the log. None when nobody records it.
#[must_use]
pub fn append_span(trace: Option<TraceContext>, partition: &str) -> Span {
    let Some(trace) = trace.filter(|trace| is_recorded(*trace)) else { return Span::none() };
    let span = tracing::info_span!(target: TARGET, "append", "messaging.system" = "kafka", "otel.kind" = "producer", partition);
    child_of(&span, trace);
    span
}

/// A batch that a partition's owner consumes. None when none of its events is recorded.
pub fn consume_span(traces: impl IntoIterator<Item = TraceContext>, partition: &str) -> Span {
    batch(
        traces,
        || tracing::info_span!(target: TARGET, "consume", "messaging.system" = "kafka", "otel.kind" = "consumer", partition),
    )
}

/// A batch that a node hands to its shards: ends when the last of them has written it. None when none of its events is
/// recorded.
pub fn fan_out_span(traces: impl IntoIterator<Item = TraceContext>) -> Span {
    batch(traces, || tracing::info_span!(target: TARGET, "fan_out", "otel.kind" = "consumer"))
}

/// The context that what follows a span belongs to; `otherwise`, what came in.
#[must_use]
pub fn context_of(span: &Span, otherwise: Option<TraceContext>) -> Option<TraceContext> {
    if span.is_none() {
        return otherwise;
    }
    let context = span.context();
    let inner = context.span().span_context().clone();
    if !inner.is_valid() {
        return otherwise;
    }
    Some(TraceContext {
        trace_id: u128::from_be_bytes(inner.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(inner.span_id().to_bytes()),
        flags: inner.trace_flags().to_u8(),
    })
}

fn is_recorded(trace: TraceContext) -> bool {
    IS_EXPORTING.load(Ordering::Relaxed) && trace.is_sampled()
}

/// The first trace is the parent, so that a lone event has one trace from end to end; the others are linked.
fn batch(traces: impl IntoIterator<Item = TraceContext>, make: impl FnOnce() -> Span) -> Span {
    let mut traces = traces.into_iter().filter(|trace| is_recorded(*trace));
    let Some(first) = traces.next() else { return Span::none() };
    let span = make();
    child_of(&span, first);
    for other in traces.take(LINKS_LIMIT) {
        span.add_link(remote(other));
    }
    span
}

fn child_of(span: &Span, trace: TraceContext) {
    // invariant: a span without the exporter's layer has no parent to be given, and nobody to miss it
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote(trace)));
}

fn remote(trace: TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(trace.trace_id.to_be_bytes()),
        SpanId::from_bytes(trace.span_id.to_be_bytes()),
        TraceFlags::new(trace.flags),
        true,
        TraceState::default(),
    )
}
