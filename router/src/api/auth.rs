//! The API key: one of the configured ones has to come as a bearer token.

use std::hint::black_box;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use tidegate_vocab::{ErrorKind, Problem};

use super::answer::Style;

/// Kubernetes probes it without a secret.
const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";

/// The keys that are let in; none: everybody is.
pub(super) struct ApiKeys(Vec<Vec<u8>>);

impl ApiKeys {
    pub(super) fn new(keys: &[String]) -> Self {
        Self(keys.iter().map(|key| key.as_bytes().to_vec()).collect())
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
        });
        let Some(bearer) = bearer else { return false };
        // All keys are compared, so that the time does not tell which one was nearly right.
        self.0.iter().fold(false, |found, key| found | is_same(key, bearer))
    }
}

/// Compares in a time that depends on the lengths only.
fn is_same(key: &[u8], given: &[u8]) -> bool {
    if key.len() != given.len() {
        return false;
    }
    let differing = key.iter().zip(given).fold(0_u8, |bits, (one, other)| black_box(bits | (one ^ other)));
    black_box(differing) == 0
}

pub(super) async fn require_key(State(keys): State<Arc<ApiKeys>>, request: Request, next: Next) -> Response {
    let open = keys.0.is_empty() || request.uri().path().starts_with(HEALTH_PREFIX);
    if open || keys.admits(request.headers()) {
        return next.run(request).await;
    }
    let detail = "an API key is needed: Authorization: Bearer <key>";
    Style::of(request.headers()).refuse(&Problem::new(ErrorKind::Unauthorized, detail))
}
