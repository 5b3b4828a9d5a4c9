//! What a `GET /v1/events` asks for: the transport, the channels and from where. No IO: a head in, a request out.

use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Version};
use tidegate_tenure::WantFrom;
use tidegate_vocab::{Channel, Cursor, ErrorKind, Problem, limits};
use tidegate_wire::ws::handshake;

/// How the answer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Transport {
    WebSocket,
    Sse,
    Ndjson,
    Poll,
}

impl Transport {
    /// The metric label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "ws",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::Poll => "poll",
        }
    }

    /// All transports.
    pub(crate) const ALL: [Self; 4] = [Self::WebSocket, Self::Sse, Self::Ndjson, Self::Poll];
}

/// Marks the head of a CONNECT that asks for a WebSocket over HTTP/2 (RFC 8441): else it is as that of a GET.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExtendedConnect;

/// The cursor that came with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CursorParam {
    /// None: channels begin as the request says.
    None,
    /// One of ours.
    Good(Cursor),
    /// Damaged, oversized or foreign: every channel is told `lost: bad_cursor`.
    Bad,
}

/// A parsed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventsRequest {
    pub(crate) transport: Transport,
    /// The named channels, each once, in order.
    pub(crate) channels: Vec<Channel>,
    pub(crate) cursor: CursorParam,
    /// From where channels begin that the cursor does not cover.
    pub(crate) fresh: WantFrom,
    /// How long a poll waits, in milliseconds.
    pub(crate) wait_ms: u64,
    /// The entity tag that the client has.
    pub(crate) if_none_match: Option<String>,
    pub(crate) http_10: bool,
    /// Another request may follow on the connection.
    pub(crate) keep_alive: bool,
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The transport that a request asks for, known before anything else can be wrong with it.
pub(crate) fn transport_of(parts: &Parts) -> Result<Transport, Problem> {
    if parts.extensions.get::<ExtendedConnect>().is_some() {
        return Ok(Transport::WebSocket); // What it opens carries nothing else.
    }
    match query(parts, "as").as_deref() {
        Some("ws") => Ok(Transport::WebSocket),
        Some("sse") => Ok(Transport::Sse),
        Some("ndjson") => Ok(Transport::Ndjson),
        Some("json") => Ok(Transport::Poll),
        Some(other) => Err(bad(format!("as={other:?} is none of ws, sse, ndjson, json"))),
        None if handshake::is_upgrade(&parts.headers) => Ok(Transport::WebSocket),
        None if accepts(&parts.headers, "text/event-stream") => Ok(Transport::Sse),
        None if accepts(&parts.headers, "application/x-ndjson") => Ok(Transport::Ndjson),
        None => Ok(Transport::Poll),
    }
}

/// The token of a request: the header, or the query for those who cannot set headers.
pub(crate) fn token_of(parts: &Parts) -> Result<Option<String>, Problem> {
    let Some(value) = parts.headers.get(AUTHORIZATION) else { return Ok(query(parts, "token")) };
    let malformed = || Problem::new(ErrorKind::Unauthorized, "Authorization is not `Bearer <token>`");
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(Some(token.trim().to_owned())) } else { Err(malformed()) }
}

/// The first value of a query parameter.
pub(crate) fn query(parts: &Parts, name: &str) -> Option<String> {
    pairs(parts).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn pairs(parts: &Parts) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
}

/// Parses the rest of the request.
///
/// # Errors
/// Says which parameter is wrong. A bad cursor is no error: it is answered inside the stream.
pub(crate) fn parse(
    parts: &Parts,
    transport: Transport,
    channels_limit: usize,
) -> Result<EventsRequest, Problem> {
    let mut channels: Vec<Channel> = Vec::new();
    for (_, name) in pairs(parts).filter(|(key, _)| key == "channel") {
        let shown: String = name.chars().take(64).collect();
        let channel = Channel::parse(&name)
            .map_err(|error| Problem::new(ErrorKind::BadChannel, format!("channel {shown:?}: {error}")))?;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
        if channels.len() > channels_limit {
            let detail = format!("a connection may follow {channels_limit} channels");
            return Err(Problem::new(ErrorKind::TooMany, detail));
        }
    }
    let if_none_match = entity_tag(&parts.headers);
    let wait_ms = match query(parts, "wait") {
        None => 0,
        Some(text) => parse_duration_ms(&text).ok_or_else(|| bad("wait is not a duration such as 25s"))?,
    };
    Ok(EventsRequest {
        transport,
        channels,
        cursor: cursor(parts, if_none_match.as_deref()),
        fresh: fresh(parts)?,
        wait_ms: wait_ms.min(limits::POLL_WAIT_LIMIT_MS),
        if_none_match,
        http_10: parts.version == Version::HTTP_10,
        keep_alive: keeps_alive(parts),
    })
}

/// `Last-Event-ID` beats `cursor`, which beats `If-None-Match`: the first is what a browser last saw, the URL is what it
/// started with.
fn cursor(parts: &Parts, if_none_match: Option<&str>) -> CursorParam {
    let header = parts.headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
    let text = match header {
        Some(value) => match value.to_str() {
            Ok(text) => Some(text.to_owned()),
            Err(_) => return CursorParam::Bad,
        },
        None => query(parts, "cursor")
            .filter(|text| !text.is_empty())
            // A tag may be another's, or altered on its way: it is a cursor only if it is one.
            .or_else(|| if_none_match.filter(|tag| Cursor::parse(tag).is_ok()).map(str::to_owned)),
    };
    match text {
        None => CursorParam::None,
        Some(text) => Cursor::parse(&text).map_or(CursorParam::Bad, CursorParam::Good),
    }
}

fn fresh(parts: &Parts) -> Result<WantFrom, Problem> {
    match (query(parts, "since"), query(parts, "last")) {
        (Some(_), Some(_)) => Err(bad("since and last exclude each other")),
        (Some(since), None) if since == "start" => Ok(WantFrom::Start),
        (Some(since), None) => {
            let ago_ms = parse_duration_ms(&since)
                .ok_or_else(|| bad("since is neither `start` nor a duration such as 90s"))?;
            Ok(WantFrom::Since(crate::clock::unix_ms().saturating_sub(ago_ms)))
        }
        (None, Some(last)) => match last.parse::<u32>() {
            Ok(count) if count <= limits::LAST_LIMIT && last.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(WantFrom::Last(count))
            }
            _ => Err(bad("last is not a number from 0 to 1000")),
        },
        (None, None) => Ok(WantFrom::Now),
    }
}

/// `250ms`, `25s`, `2m`, `1h`, or a bare number of seconds.
pub(crate) fn parse_duration_ms(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms)
}

fn entity_tag(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(IF_NONE_MATCH)?.to_str().ok()?.trim();
    let text = text.strip_prefix("W/").unwrap_or(text);
    Some(text.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|item| {
            item.split(';').next().is_some_and(|item| item.trim().eq_ignore_ascii_case(media_type))
        })
    })
}

fn keeps_alive(parts: &Parts) -> bool {
    let has = |token: &str| {
        parts
            .headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
    };
    if parts.version == Version::HTTP_10 { has("keep-alive") } else { !has("close") }
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::BadRequest, detail)
}

#[cfg(test)]
mod tests;
