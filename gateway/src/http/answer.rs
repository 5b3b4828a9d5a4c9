//! Answers that hyper writes: problems, acks, the page. The one place where a problem becomes HTTP.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;
use rand::Rng as _;
use tidegate_vocab::{ErrorKind, Problem};
use tidegate_wire::object::{self, Framing};

use crate::origin::{self, AllowedOrigin};
use crate::request::Transport;
use crate::shared::Shared;

/// What every handler answers with.
pub(super) type Answer = Response<Full<Bytes>>;

/// Milliseconds after which a refused event source comes back when the problem names no time.
const REFUSED_RETRY_MS: u64 = 5_000;

/// A whole answer.
pub(super) fn answer(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<Bytes>,
    origin: &AllowedOrigin,
) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    for (name, value) in origin::response_headers(origin) {
        headers.insert(name, value);
    }
    answer
}

/// Nothing is new since the client's tag.
pub(super) fn not_modified(headers: Vec<(HeaderName, HeaderValue)>) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    with_headers(answer, headers)
}

/// A problem as `application/problem+json` (RFC 9457), with `Retry-After` in whole seconds where it names a time.
pub(super) fn problem(shared: &Shared, problem: &Problem, origin: &AllowedOrigin) -> Answer {
    shared.refused(problem);
    let status =
        StatusCode::from_u16(problem.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = HeaderValue::from_static("application/problem+json");
    let mut answer = answer(status, content_type, problem.to_json(), origin);
    if let Some(retry_ms) = problem.retry_ms {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_ms.div_ceil(1_000)));
    }
    if matches!(
        problem.kind,
        ErrorKind::Overloaded | ErrorKind::Draining | ErrorKind::TooLarge | ErrorKind::RequestTimeout
    ) {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// A refusal of `GET /v1/events`. A browser's EventSource gives up for good on anything but 200, so it is told inside a
/// stream when to come back; only 401 and 403 are final, by intent.
pub(super) fn refuse_events(
    shared: &Shared,
    refusal: &Problem,
    transport: Transport,
    origin: &AllowedOrigin,
) -> Answer {
    let status = refusal.kind.http_status();
    if transport != Transport::Sse || status == 401 || status == 403 {
        return problem(shared, refusal, origin);
    }
    shared.refused(refusal);
    let framing = Framing::Sse { chunked: false };
    let retry_ms = refusal.retry_ms.unwrap_or(REFUSED_RETRY_MS);
    let jittered_ms = retry_ms + rand::rng().random_range(0..=retry_ms / 2);
    let mut body = Vec::with_capacity(192);
    object::frame_retry(framing, jittered_ms, &mut body);
    let close =
        object::close_object(refusal.kind.close_code(), refusal.kind.as_str(), None, Some(jittered_ms));
    object::frame_object(framing, "close", &close, None, &mut body);
    let mut answer = answer(StatusCode::OK, HeaderValue::from_static("text/event-stream"), body, origin);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Part of the page or the client library.
pub(super) fn asset(content_type: &'static str, body: &'static [u8], origin: &AllowedOrigin) -> Answer {
    let mut answer =
        answer(StatusCode::OK, HeaderValue::from_static(content_type), Bytes::from_static(body), origin);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer.headers_mut().insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
             connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'",
        ),
    );
    answer
}

/// Adds headers to an answer.
pub(super) fn with_headers(mut answer: Answer, headers: Vec<(HeaderName, HeaderValue)>) -> Answer {
    for (name, value) in headers {
        answer.headers_mut().insert(name, value);
    }
    answer
}
