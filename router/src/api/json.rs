//! The JSON twin of the publisher: `POST /v1/publish` and `POST /v1/publish/batch`.
//!
//! Any content type is taken, also none: `curl -d` says `application/x-www-form-urlencoded` whatever it sends.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tidegate_vocab::{ErrorKind, Problem, TraceContext, limits, push_json_string};

use super::{answer, body};
use crate::Router;
use crate::metrics::Api;
use crate::publish::{Accepted, PublishError, PublishRequest, Published, Target};

pub(super) async fn publish(State(router): State<Arc<Router>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let parsed = async {
        let body = read(body).await?;
        body::publish(&body, header_key(&head.headers)?)
    };
    let parsed = match parsed.await {
        Ok(parsed) => parsed,
        Err(problem) => {
            router.context.metrics.published(Api::Http, Err(problem.kind));
            return answer::http(&problem, None);
        }
    };
    let request = PublishRequest { trace: trace_of(&head.headers), ..parsed.request };
    match router.publish(Api::Http, request).await {
        Ok(published) => {
            let mut out = Vec::with_capacity(128);
            push_published(&mut out, &published, parsed.single);
            json(published.failed() > 0, out)
        }
        Err(error) => answer::http(&error.problem, error.idempotency_key.as_deref()),
    }
}

fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get(TraceContext::HEADER)?.as_bytes()).ok()
}

pub(super) async fn publish_batch(State(router): State<Arc<Router>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let trace = trace_of(&head.headers);
    let parsed = match read(body).await.and_then(|body| body::batch(&body)) {
        Ok(parsed) => parsed,
        Err(problem) => {
            router.context.metrics.published(Api::Http, Err(problem.kind));
            return answer::http(&problem, None);
        }
    };
    let singles: Vec<bool> =
        parsed.iter().map(|item| item.as_ref().is_ok_and(|parsed| parsed.single)).collect();
    let items = parsed
        .into_iter()
        .map(|item| item.map(|parsed| PublishRequest { trace, ..parsed.request }))
        .collect();
    let results = match router.publish_batch(Api::Http, items).await {
        Ok(results) => results,
        Err(problem) => return answer::http(&problem, None),
    };
    let mut out = Vec::with_capacity(64 * results.len());
    let mut some_failed = false;
    push_array(&mut out, b"{\"results\":[", &results, |out, index, result| match result {
        Ok(published) => {
            some_failed |= published.failed() > 0;
            push_published(out, published, singles.get(index).copied().unwrap_or(false));
        }
        Err(PublishError { problem, idempotency_key }) => {
            some_failed = true;
            push_error(out, problem, idempotency_key.as_deref());
        }
    });
    out.push(b'}');
    json(some_failed, out)
}

/// The whole body, within its size and time.
pub(super) async fn read(body: Body) -> Result<Bytes, Problem> {
    let limited = Limited::new(body, limits::API_REQUEST_BYTES_LIMIT).collect();
    let time = Duration::from_millis(limits::REQUEST_BODY_TIMEOUT_MS);
    match tokio::time::timeout(time, limited).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the body is larger than {} bytes", limits::API_REQUEST_BYTES_LIMIT);
            Err(Problem::new(ErrorKind::TooLarge, detail))
        }
        Ok(Err(_)) => Err(Problem::new(ErrorKind::BadRequest, "the body ended early")),
        Err(_) => Err(Problem::new(ErrorKind::RequestTimeout, "the body did not arrive in time")),
    }
}

fn header_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let bad = |_| Problem::new(ErrorKind::BadRequest, "the Idempotency-Key header is not plain text");
    value.to_str().map(|text| Some(text.trim())).map_err(bad)
}

/// 200 when everything was accepted, 207 when a target or an item was not.
pub(super) fn json(some_failed: bool, body: Vec<u8>) -> Response {
    let code = if some_failed { StatusCode::MULTI_STATUS } else { StatusCode::OK };
    let mut response = (code, body).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 200 with this.
pub(super) fn of(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => json(false, body),
        Err(error) => answer::http(&Problem::new(ErrorKind::Internal, error.to_string()), None),
    }
}

/// One object for one target, `results` for several.
fn push_published(out: &mut Vec<u8>, published: &Published, single: bool) {
    let lone = published.results.first().filter(|_| single && published.results.len() == 1);
    if let Some(Ok(accepted)) = lone.map(|result| &result.outcome) {
        out.push(b'{');
        push_accepted(out, accepted);
    } else {
        push_array(out, b"{\"results\":[", &published.results, |out, _, result| {
            match &result.target {
                Target::Channel(name) => push_member(out, b"{\"channel\":", name),
                Target::User(id) => push_member(out, b"{\"user\":", id),
                Target::Everyone => out.extend_from_slice(b"{\"everyone\":true"),
            }
            out.push(b',');
            match &result.outcome {
                Ok(accepted) => {
                    push_accepted(out, accepted);
                    out.push(b'}');
                }
                Err(problem) => {
                    out.extend_from_slice(b"\"error\":");
                    out.extend_from_slice(&problem.to_json());
                    out.push(b'}');
                }
            }
        });
    }
    if let Some(key) = &published.idempotency_key {
        push_member(out, b",\"idempotency_key\":", key);
    }
    out.push(b'}');
}

fn push_accepted(out: &mut Vec<u8>, accepted: &Accepted) {
    match accepted {
        Accepted::Durable { pos, duplicate } => {
            push_member(out, b"\"pos\":", pos);
            if *duplicate {
                out.extend_from_slice(b",\"duplicate\":true");
            }
        }
        Accepted::Ephemeral { routed } => out.extend_from_slice(format!("\"routed\":{routed}").as_bytes()),
    }
}

fn push_error(out: &mut Vec<u8>, problem: &Problem, key: Option<&str>) {
    out.extend_from_slice(b"{\"error\":");
    out.extend_from_slice(&answer::problem_json(problem, key));
    out.push(b'}');
}

fn push_member(out: &mut Vec<u8>, name: &[u8], text: &str) {
    out.extend_from_slice(name);
    push_json_string(out, text);
}

/// Writes `open`, the items with commas, and `]`.
fn push_array<T>(out: &mut Vec<u8>, open: &[u8], items: &[T], mut push: impl FnMut(&mut Vec<u8>, usize, &T)) {
    out.extend_from_slice(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push(out, index, item);
    }
    out.push(b']');
}
