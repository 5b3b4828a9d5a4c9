//! The one table of error kinds: name, HTTP status, gRPC code, WebSocket close code, and whether to retry.

use std::fmt;

macro_rules! error_kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $http:literal, $grpc:literal, $close:literal, $retry:literal;)+) => {
        /// What went wrong, in the closed set that all ports share: problem types, gRPC codes, close codes and metric
        /// labels all come from here, and `docs/errors.md` is generated from it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[doc = $doc])+ $variant,)+ }

        impl ErrorKind {
            /// Every kind, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in problem documents, close reasons and metric labels.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$variant => $name,)+ } }

            /// The HTTP status.
            #[must_use]
            pub fn http_status(self) -> u16 { match self { $(Self::$variant => $http,)+ } }

            /// The gRPC status code's number.
            #[must_use]
            pub fn grpc_code(self) -> i32 { match self { $(Self::$variant => $grpc,)+ } }

            /// The WebSocket close code.
            #[must_use]
            pub fn close_code(self) -> u16 { match self { $(Self::$variant => $close,)+ } }

            /// True when the same request may succeed later without a change.
            #[must_use]
            pub fn is_retryable(self) -> bool { match self { $(Self::$variant => $retry,)+ } }

            /// What it means and what to do, as the reference says it.
            #[must_use]
            pub fn meaning(self) -> &'static str { match self { $(Self::$variant => concat!($($doc),+),)+ } }
        }
    };
}

error_kinds! {
    /// A parameter, header or field is missing or not of its form; the detail names it. Correct the request.
    BadRequest = "bad_request", 400, 3, 4400, false;
    /// A channel name breaks the grammar: 1 to 255 bytes of letters, digits and `-_.~:/@+=,!$&*#'()`.
    BadChannel = "bad_channel", 400, 3, 4400, false;
    /// Data said to be JSON is not one JSON value, or is nested deeper than 64 levels.
    BadJson = "bad_json", 400, 3, 4400, false;
    /// An event name is empty, too long, reserved, or has a control character that would break an SSE stream.
    BadEventName = "bad_event_name", 400, 3, 4400, false;
    /// A connection asked for more channels, or a call for more targets, than the limit.
    TooMany = "too_many", 400, 3, 4400, false;
    /// There is no token where one is needed, or it is malformed, not ours, or of another algorithm than its key's.
    Unauthorized = "unauthorized", 401, 16, 4401, false;
    /// The token has expired; get a new one.
    TokenExpired = "token_expired", 401, 16, 4401, false;
    /// The token has been revoked, or all of its user's that were issued before some time; get a new one.
    TokenRevoked = "token_revoked", 401, 16, 4401, false;
    /// A backend ended this user's connections. Nothing keeps the user from connecting again; to keep it out, revoke its tokens.
    Disconnected = "disconnected", 403, 7, 4410, false;
    /// The identity is known and may not do this: a reserved or foreign channel, or an origin that is not allowed.
    Forbidden = "forbidden", 403, 7, 4403, false;
    /// There is nothing at this path.
    NotFound = "not_found", 404, 5, 4404, false;
    /// The path exists and does not take this method; see `Allow`.
    MethodNotAllowed = "method_not_allowed", 405, 12, 4405, false;
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", 408, 4, 4408, true;
    /// The idempotency key was used with another body; take a new key. Final.
    Conflict = "conflict", 409, 6, 4409, false;
    /// The data, the message or the body is larger than its limit.
    TooLarge = "too_large", 413, 3, 1009, false;
    /// A WebSocket handshake of another version than 13.
    UpgradeRequired = "upgrade_required", 426, 9, 4426, false;
    /// More requests, messages or connections than allowed; wait as long as `Retry-After` says.
    RateLimited = "rate_limited", 429, 8, 4429, true;
    /// A WebSocket frame breaks RFC 6455.
    ProtocolError = "protocol_error", 400, 3, 1002, false;
    /// A WebSocket text frame is not UTF-8.
    InvalidUtf8 = "invalid_utf8", 400, 3, 1007, false;
    /// The client read too slowly and its outbox was full or too old; resume with the last cursor.
    SlowConsumer = "slow_consumer", 503, 8, 4008, true;
    /// The client stopped answering pings.
    PingTimeout = "ping_timeout", 408, 4, 4009, true;
    /// The node is being drained; come back after the time given, with the last cursor.
    Draining = "draining", 503, 14, 1012, true;
    /// The node is at a limit of its own; come back after the time given.
    Overloaded = "overloaded", 503, 14, 1013, true;
    /// The log cannot be written now; nothing was accepted. Retry after the time given.
    LogUnavailable = "log_unavailable", 503, 14, 1013, true;
    /// The data directory is full; nothing was accepted. Free space, then retry.
    StorageFull = "storage_full", 507, 8, 1013, true;
    /// The outcome is not known: it may have been accepted. Retry with the idempotency key that the answer names.
    Indeterminate = "indeterminate", 504, 4, 1013, true;
    /// A fault of ours. Please report it with the time and the log line.
    Internal = "internal", 500, 13, 1011, true;
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error kind with what the peer needs to know about this case. Never holds a secret or an internal address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct Problem {
    /// The kind.
    pub kind: ErrorKind,
    /// One sentence for the peer.
    pub detail: String,
    /// How long to wait before a retry, in milliseconds, where that makes sense.
    pub retry_ms: Option<u64>,
}

impl Problem {
    /// A problem with its sentence.
    #[must_use]
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_ms: None }
    }

    /// Adds how long to wait.
    #[must_use]
    pub fn retry_after_ms(mut self, retry_ms: u64) -> Self {
        self.retry_ms = Some(retry_ms);
        self
    }

    /// The body of an `application/problem+json` answer (RFC 9457). `type` is a relative reference into the error
    /// reference.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(b"{\"type\":\"/errors#");
        out.extend_from_slice(self.kind.as_str().as_bytes());
        out.extend_from_slice(b"\",\"title\":\"");
        out.extend_from_slice(self.kind.as_str().as_bytes());
        out.extend_from_slice(format!("\",\"status\":{},\"detail\":", self.kind.http_status()).as_bytes());
        crate::json::push_json_string(&mut out, &self.detail);
        if let Some(retry_ms) = self.retry_ms {
            out.extend_from_slice(format!(",\"retry_ms\":{retry_ms}").as_bytes());
        }
        out.push(b'}');
        out
    }
}

/// The error reference as Markdown, from the table above.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Error reference\n\nGenerated from `vocab/src/error_kind.rs`; a test keeps it so. HTTP answers carry \
         `application/problem+json` with the kind as\n`title`; WebSocket and stream closes carry it as `reason`; metrics \
         carry it as a label.\n\n| kind | HTTP | gRPC | close | retry | meaning |\n|---|---:|---:|---:|---|---|\n",
    );
    for kind in ErrorKind::ALL {
        let retry = if kind.is_retryable() { "yes" } else { "no" };
        text.push_str(&format!(
            "| <a id=\"{kind}\"></a>`{kind}` | {} | {} | {} | {retry} |{} |\n",
            kind.http_status(),
            kind.grpc_code(),
            kind.close_code(),
            kind.meaning()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_codes_are_in_range() {
        let names: HashSet<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            assert!((400..600).contains(&kind.http_status()), "{kind}");
            assert!((1..=16).contains(&kind.grpc_code()), "{kind}");
            let close = kind.close_code();
            assert!(
                [1002, 1007, 1009, 1011, 1012, 1013].contains(&close) || (4000..5000).contains(&close),
                "{kind}"
            );
        }
    }

    #[test]
    fn the_error_reference_is_generated() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, reference()).expect("docs are writable");
        }
        let written =
            std::fs::read_to_string(path).expect("docs/errors.md exists: run once with UPDATE_DOCS=1");
        assert_eq!(written, reference(), "run the test once with UPDATE_DOCS=1");
    }

    #[test]
    fn problems_are_json() {
        let problem = Problem::new(ErrorKind::BadChannel, "channel \"a\nb\"").retry_after_ms(5);
        let value: serde_json::Value = serde_json::from_slice(&problem.to_json()).expect("valid JSON");
        assert_eq!(value["title"], "bad_channel");
        assert_eq!(value["detail"], "channel \"a\nb\"");
        assert_eq!(value["retry_ms"], 5);
    }
}
