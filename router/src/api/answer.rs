//! The one place where a problem becomes an HTTP answer or a gRPC status.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use prost::Message as _;
use tidegate_vocab::{ErrorKind, Problem, push_json_string};
use tonic::{Code, Status};

use crate::publish::PublishError;

/// What a peer understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Trailers with a gRPC status.
    Grpc,
    /// `application/problem+json` (RFC 9457).
    Http,
}

impl Style {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if content_type.is_some_and(|value| value.starts_with("application/grpc")) {
            Self::Grpc
        } else {
            Self::Http
        }
    }

    pub(super) fn refuse(self, problem: &Problem) -> Response {
        match self {
            Self::Grpc => status(problem, None).into_http(),
            Self::Http => http(problem, None),
        }
    }
}

pub(super) async fn not_found(request: Request) -> Response {
    let path = request.uri().path();
    if Style::of(request.headers()) == Style::Grpc {
        return Status::unimplemented(format!("there is no method {path}")).into_http();
    }
    http(&Problem::new(ErrorKind::NotFound, format!("there is nothing at {path}")), None)
}

pub(super) async fn method_not_allowed(request: Request) -> Response {
    let detail = format!("{} does not take {}; see Allow", request.uri().path(), request.method());
    http(&Problem::new(ErrorKind::MethodNotAllowed, detail), None)
}

/// A problem document; with the idempotency key to retry with, if there is one.
pub(super) fn http(problem: &Problem, key: Option<&str>) -> Response {
    let body = problem_json(problem, key);
    let code = StatusCode::from_u16(problem.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (code, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if problem.kind == ErrorKind::Unauthorized {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(retry_ms) = problem.retry_ms {
        headers.insert(RETRY_AFTER, HeaderValue::from(retry_ms.div_ceil(1_000)));
    }
    response
}

pub(super) fn problem_json(problem: &Problem, key: Option<&str>) -> Vec<u8> {
    let mut body = problem.to_json();
    if let Some(key) = key {
        body.pop();
        body.extend_from_slice(b",\"idempotency_key\":");
        push_json_string(&mut body, key);
        body.push(b'}');
    }
    body
}

pub(super) fn publish_status(error: &PublishError) -> Status {
    status(&error.problem, error.idempotency_key.as_deref())
}

/// A status with `google.rpc.ErrorInfo` and, where waiting helps, `google.rpc.RetryInfo`.
pub(super) fn status(problem: &Problem, key: Option<&str>) -> Status {
    let code = Code::from_i32(problem.kind.grpc_code());
    let message = format!("{}: {}", problem.kind, problem.detail);
    let mut info = rpc::ErrorInfo {
        reason: problem.kind.as_str().into(),
        domain: "tidegate".into(),
        metadata: std::collections::HashMap::new(),
    };
    if let Some(key) = key {
        info.metadata.insert("idempotency_key".into(), key.into());
    }
    let mut details = vec![rpc::Any {
        type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
        value: info.encode_to_vec(),
    }];
    if let Some(retry_ms) = problem.retry_ms {
        let delay = rpc::Duration {
            seconds: i64::try_from(retry_ms / 1_000).unwrap_or(i64::MAX),
            nanos: (retry_ms % 1_000) as i32 * 1_000_000,
        };
        details.push(rpc::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
            value: rpc::RetryInfo { retry_delay: Some(delay) }.encode_to_vec(),
        });
    }
    let status = rpc::Status { code: problem.kind.grpc_code(), message: message.clone(), details };
    Status::with_details(code, message, status.encode_to_vec().into())
}

/// The few messages of `google.rpc` that a rich status needs, as published in googleapis.
pub(super) mod rpc {
    use std::collections::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::api) struct Status {
        #[prost(int32, tag = "1")]
        pub(in crate::api) code: i32,
        #[prost(string, tag = "2")]
        pub(in crate::api) message: String,
        #[prost(message, repeated, tag = "3")]
        pub(in crate::api) details: Vec<Any>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::api) struct Any {
        #[prost(string, tag = "1")]
        pub(in crate::api) type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        pub(in crate::api) value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::api) struct ErrorInfo {
        #[prost(string, tag = "1")]
        pub(in crate::api) reason: String,
        #[prost(string, tag = "2")]
        pub(in crate::api) domain: String,
        #[prost(map = "string, string", tag = "3")]
        pub(in crate::api) metadata: HashMap<String, String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::api) struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        pub(in crate::api) retry_delay: Option<Duration>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::api) struct Duration {
        #[prost(int64, tag = "1")]
        pub(in crate::api) seconds: i64,
        #[prost(int32, tag = "2")]
        pub(in crate::api) nanos: i32,
    }
}
