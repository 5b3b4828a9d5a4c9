//! Which web pages may connect: an exact allow-list of origins, for every transport (RFC 6454, Fetch).

use http::HeaderMap;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HOST, HeaderName, HeaderValue, ORIGIN, VARY,
};
use tidegate_vocab::{ErrorKind, Problem};

use crate::config::GatewayConfig;

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

/// Where no token is needed, a page of any site could read events by letting its own name resolve to this server (DNS
/// rebinding): its requests are of the same origin and carry no `Origin`. So the name has to be one that is ours.
///
/// # Errors
/// When connections need no proof and `Host` is neither an address, nor `localhost`, nor the host of an allowed origin.
pub(crate) fn check_host(headers: &HeaderMap, config: &GatewayConfig) -> Result<(), Problem> {
    if !(config.auth.anonymous || config.auth.insecure) {
        return Ok(());
    }
    let Some(host) = headers.get(HOST) else { return Ok(()) };
    let name = host.to_str().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => name,
    };
    let is_address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    let is_allowed = |origin: &String| {
        let host = origin.split_once("://").map_or(origin.as_str(), |(_, host)| host);
        host.split(':').next() == Some(name)
    };
    if is_address || name.eq_ignore_ascii_case("localhost") || config.allowed_origins.iter().any(is_allowed) {
        return Ok(());
    }
    Err(Problem::new(
        ErrorKind::Forbidden,
        "this host name is not ours: where no token is needed, add it to cors.allowed_origins",
    ))
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
