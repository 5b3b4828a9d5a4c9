//! The opening handshake (RFC 6455, section 4.2).
//!
//! **Does not** look at `Origin`, credentials or the path, and negotiates no extension: an offer of
//! `permessage-deflate` is left unanswered, which refuses it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, StatusCode, Version};
use sha1::{Digest, Sha1};

use crate::http1::write_headers;

/// What the key is hashed with (RFC 6455, section 1.3).
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why an upgrade request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not a GET.
    #[error("method is not get")]
    Method,
    /// Not HTTP/1.1.
    #[error("http version is not 1.1; over http/2 a websocket is asked for with connect (rfc 8441)")]
    HttpVersion,
    /// No `Host`, or several.
    #[error("host is missing or given twice")]
    Host,
    /// No `websocket` in `Upgrade`.
    #[error("upgrade does not ask for websocket")]
    Upgrade,
    /// No `upgrade` in `Connection`.
    #[error("connection does not ask for upgrade")]
    Connection,
    /// A request body.
    #[error("upgrade request has a body")]
    Body,
    /// A `Sec-WebSocket-Version` other than 13, or none.
    #[error("websocket version is not 13")]
    WebSocketVersion,
    /// Several `Sec-WebSocket-Version`.
    #[error("websocket version is given twice")]
    DuplicateVersion,
    /// No `Sec-WebSocket-Key`.
    #[error("websocket key is missing")]
    MissingKey,
    /// Several `Sec-WebSocket-Key`.
    #[error("websocket key is given twice")]
    DuplicateKey,
    /// A `Sec-WebSocket-Key` that is not the base64 of 16 bytes.
    #[error("websocket key is not 16 bytes in base64")]
    BadKey,
}

impl HandshakeError {
    /// The status to answer with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The headers to answer with: for 426, what would have been understood (RFC 6455, section 4.4; RFC 9110,
    /// section 15.5.22).
    pub fn headers(self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::WebSocketVersion => vec![
                (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
                (UPGRADE, HeaderValue::from_static("websocket")),
            ],
            _ => Vec::new(),
        }
    }

    /// The value of a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::HttpVersion => "http_version",
            Self::Host => "host",
            Self::Upgrade => "upgrade",
            Self::Connection => "connection",
            Self::Body => "body",
            Self::WebSocketVersion => "websocket_version",
            Self::DuplicateVersion => "duplicate_version",
            Self::MissingKey => "missing_key",
            Self::DuplicateKey => "duplicate_key",
            Self::BadKey => "bad_key",
        }
    }
}

/// An upgrade request that may be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accept<'a> {
    /// The value of `Sec-WebSocket-Accept`.
    pub key: String,
    /// The subprotocol to speak: the first one offered that is allowed. `None` names none in the answer.
    pub subprotocol: Option<&'a str>,
}

impl Accept<'_> {
    /// The head of the 101 answer, up to and with its empty line. Frames may follow at once.
    pub fn response_head(&self, extra: &[(HeaderName, HeaderValue)]) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n",
        );
        for (name, value) in
            [(SEC_WEBSOCKET_ACCEPT, Some(self.key.as_str())), (SEC_WEBSOCKET_PROTOCOL, self.subprotocol)]
        {
            let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) else { continue };
            write_headers(&[(name, value)], &mut out);
        }
        write_headers(extra, &mut out);
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// Whether this request asks for a WebSocket at all (and not for, say, an event stream on the same URL).
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// Judges an upgrade request. `subprotocols` are the allowed ones, case-sensitive; of those the client's first choice
/// is taken. Nothing of an offer that is not allowed is ever echoed.
///
/// # Errors
/// The first rule of RFC 6455, section 4.2.1, that the request breaks.
pub fn check<'a>(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
    subprotocols: &[&'a str],
) -> Result<Accept<'a>, HandshakeError> {
    if method != Method::GET {
        return Err(HandshakeError::Method);
    }
    if version != Version::HTTP_11 {
        return Err(HandshakeError::HttpVersion);
    }
    if single(headers, &HOST).is_err() {
        return Err(HandshakeError::Host);
    }
    if !is_upgrade(headers) {
        return Err(HandshakeError::Upgrade);
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(HandshakeError::Connection);
    }
    let is_empty = headers.get_all(CONTENT_LENGTH).iter().all(|length| length == "0");
    if !is_empty || headers.contains_key(TRANSFER_ENCODING) {
        return Err(HandshakeError::Body);
    }
    check_version(headers)?;
    let key = match single(headers, &SEC_WEBSOCKET_KEY) {
        Ok(key) => key,
        Err(Count::None) => return Err(HandshakeError::MissingKey),
        Err(Count::Several) => return Err(HandshakeError::DuplicateKey),
    };
    if !STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        return Err(HandshakeError::BadKey);
    }
    let subprotocol = tokens(headers, &SEC_WEBSOCKET_PROTOCOL)
        .find_map(|offered| subprotocols.iter().find(|allowed| **allowed == offered))
        .copied();
    Ok(Accept { key: accept_key(key.as_bytes()), subprotocol })
}

/// Judges a CONNECT of HTTP/2 whose `:protocol` is `websocket` (RFC 8441, section 5): there is no key, and nothing to upgrade.
/// No subprotocol is ever chosen.
///
/// # Errors
/// [`HandshakeError::WebSocketVersion`] and [`HandshakeError::DuplicateVersion`].
pub fn check_connect(headers: &HeaderMap) -> Result<(), HandshakeError> {
    check_version(headers)
}

fn check_version(headers: &HeaderMap) -> Result<(), HandshakeError> {
    match single(headers, &SEC_WEBSOCKET_VERSION) {
        Ok(version) if version == "13" => Ok(()),
        Err(Count::Several) => Err(HandshakeError::DuplicateVersion),
        _ => Err(HandshakeError::WebSocketVersion),
    }
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455, section 4.2.2).
fn accept_key(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize())
}

/// Why a header that must be there once was not.
enum Count {
    None,
    Several,
}

/// The value of a header that must be there once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h HeaderValue, Count> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(Count::None),
        (Some(value), None) => Ok(value),
        (Some(_), Some(_)) => Err(Count::Several),
    }
}

/// Whether a comma-separated header has this token, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// The members of a comma-separated header, over all its lines.
fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests;
