//! Which web pages may connect: an exact allow-list of origins, for every transport (RFC 6454, Fetch).

use http::HeaderMap;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderName, HeaderValue, ORIGIN, VARY,
};
use tidegate_vocab::{ErrorKind, Problem};

/// The origin of the page that asks, already allowed.
pub(crate) type AllowedOrigin = Option<HeaderValue>;

/// Checks the `Origin` header. Without one it is no web page, and the token decides alone.
///
/// # Errors
/// When the page's origin is not on the list; `null` never is.
pub(crate) fn check(headers: &HeaderMap, allowed: &[String]) -> Result<AllowedOrigin, Problem> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(None) };
    let text = origin.to_str().ok().filter(|_| origins.next().is_none());
    match text {
        Some(text) if allowed.iter().any(|pattern| matches(pattern, text)) => Ok(Some(origin.clone())),
        _ => Err(Problem::new(ErrorKind::Forbidden, "this page's origin is not in cors.allowed_origins")),
    }
}

/// `scheme://host[:port]` exactly; `scheme://host:*` with any port or none.
fn matches(pattern: &str, origin: &str) -> bool {
    match pattern.strip_suffix(":*") {
        Some(base) => origin.strip_prefix(base).is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix(':')
                    .is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
        }),
        None => pattern == origin,
    }
}

/// The headers that let the page read the answer.
pub(crate) fn response_headers(origin: &AllowedOrigin) -> Vec<(HeaderName, HeaderValue)> {
    let Some(origin) = origin else { return Vec::new() };
    vec![
        (ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("etag, retry-after")),
        (VARY, HeaderValue::from_static("Origin")),
    ]
}

/// The headers of the answer to a preflight.
pub(crate) fn preflight_headers(origin: &AllowedOrigin) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = response_headers(origin);
    headers.push((ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS")));
    headers.push((
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type, last-event-id, if-none-match, cache-control"),
    ));
    headers.push((ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_origins_are_refused() {
        let allowed = ["https://app.example.com".to_owned(), "http://localhost:*".to_owned()];
        let check = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_str(origin).expect("valid"));
            super::check(&headers, &allowed).is_ok()
        };
        assert!(
            check("https://app.example.com") && check("http://localhost:5173") && check("http://localhost")
        );
        for bad in [
            "null",
            "",
            "https://app.example.com.evil.test",
            "https://app.example.com:444",
            "http://app.example.com",
            "https://APP.example.com",
            "https://evil.test",
            "http://localhost.evil.test",
            "http://localhost:",
            "http://localhost:80x",
        ] {
            assert!(!check(bad), "{bad}");
        }
        assert_eq!(super::check(&HeaderMap::new(), &allowed), Ok(None));
        let mut twice = HeaderMap::new();
        twice.append(ORIGIN, HeaderValue::from_static("http://localhost:1"));
        twice.append(ORIGIN, HeaderValue::from_static("http://localhost:1"));
        assert!(super::check(&twice, &allowed).is_err());
    }
}
