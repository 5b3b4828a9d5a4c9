//! The paths of the public port.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, HeaderValue};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;
use tidegate_link::UpstreamMessage;
use tidegate_vocab::{Channel, ErrorKind, Problem, limits};
use tidegate_wire::object;
use tidegate_wire::ws::handshake::{self, HandshakeError};

use super::answer::{self, Answer};
use crate::admission::Entry;
use crate::auth::Identity;
use crate::message;
use crate::origin::{self, AllowedOrigin};
use crate::overload::Rung;
use crate::request::{self, CursorParam, EventsRequest, ExtendedConnect, Transport};
use crate::shard::{Shard, Takeover, poll, revoked};
use crate::shared::Shared;

/// Time after which a refused client may come back.
const RETRY_MS: u64 = 2_000;

const PAGE: &[u8] = include_bytes!("../../web/index.html");
const CLIENT: &[u8] = include_bytes!("../../web/tidegate.js");

/// What comes behind a request's head, of any version of HTTP.
pub(super) trait RequestBody: Body<Data = Bytes, Error: Into<BoxError>> {}

impl<B: Body<Data = Bytes, Error: Into<BoxError>>> RequestBody for B {}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What becomes of a request.
pub(super) enum Outcome {
    Answer(Answer),
    /// It is the shard's to answer.
    Takeover(Box<Takeover>),
}

/// Answers a request, or says that the shard is to.
pub(super) async fn handle<B: RequestBody>(shard: Rc<Shard>, entry: Entry, request: Request<B>) -> Outcome {
    let (parts, body) = request.into_parts();
    let shared = &shard.shared;
    let origin = match origin::check(&parts.headers, &shared.config.allowed_origins) {
        Ok(origin) => origin,
        Err(refusal) => return Outcome::Answer(answer::problem(shared, &refusal, &None)),
    };
    if let Err(refusal) = origin::check_host(&parts.headers, &shared.config) {
        return Outcome::Answer(answer::problem(shared, &refusal, &origin));
    }
    let answer = match (parts.uri.path(), &parts.method) {
        // What follows such a head may be a body or a request: a proxy and we might not agree which.
        ("/v1/events", &Method::GET) if !body.is_end_stream() => {
            let refusal = Problem::new(ErrorKind::BadRequest, "a GET of events has no body");
            let close = vec![(CONNECTION, HeaderValue::from_static("close"))];
            answer::with_headers(answer::problem(shared, &refusal, &origin), close)
        }
        ("/v1/events", &Method::GET) => match events(&shard, &parts, entry, &origin) {
            Ok(outcome) => return outcome,
            Err(answer) => *answer,
        },
        ("/v1/messages", &Method::POST) => messages(shared, &parts, body, &origin).await,
        ("/demo/publish", &Method::POST) if shared.demo_publish.is_some() => {
            demo(shared, body, &origin).await
        }
        ("/v1/events" | "/v1/messages" | "/demo/publish", &Method::OPTIONS) => preflight(&origin),
        ("/tidegate.js", &Method::GET) => answer::asset("text/javascript; charset=utf-8", CLIENT, &origin),
        ("/", &Method::GET) if shared.config.demo_page => {
            answer::asset("text/html; charset=utf-8", PAGE, &origin)
        }
        ("/v1/events" | "/tidegate.js", _) => wrong_method(shared, "GET, OPTIONS", &origin),
        ("/v1/messages" | "/demo/publish", _) => wrong_method(shared, "POST, OPTIONS", &origin),
        _ => {
            let refusal =
                Problem::new(ErrorKind::NotFound, "there is nothing here; events are at GET /v1/events");
            answer::problem(shared, &refusal, &origin)
        }
    };
    Outcome::Answer(answer)
}

fn preflight(origin: &AllowedOrigin) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer::with_headers(answer, origin::preflight_headers(origin))
}

fn wrong_method(shared: &Shared, allow: &'static str, origin: &AllowedOrigin) -> Answer {
    let refusal = Problem::new(ErrorKind::MethodNotAllowed, format!("allowed here: {allow}"));
    let answer = answer::problem(shared, &refusal, origin);
    answer::with_headers(answer, vec![(ALLOW, HeaderValue::from_static(allow))])
}

/// What takes the socket over, or says that nothing is new; or the refusal in the form that the client's transport
/// understands.
fn events(
    shard: &Shard,
    parts: &Parts,
    entry: Entry,
    origin: &AllowedOrigin,
) -> Result<Outcome, Box<Answer>> {
    let shared = &shard.shared;
    let transport = request::transport_of(parts)
        .map_err(|refusal| Box::new(answer::problem(shared, &refusal, origin)))?;
    let ws = if transport == Transport::WebSocket {
        let checked = if parts.extensions.get::<ExtendedConnect>().is_some() {
            handshake::check_connect(&parts.headers).map(|()| None)
        } else {
            handshake::check(&parts.method, parts.version, &parts.headers, &[]).map(Some)
        };
        checked.map_err(|error| Box::new(refuse_handshake(shared, error, origin)))?
    } else {
        None
    };
    let refuse = |refusal: &Problem| Box::new(answer::refuse_events(shared, refusal, transport, origin));
    // What was said of a socket at the door stays: the next one may be let in.
    let close = || vec![(CONNECTION, HeaderValue::from_static("close"))];
    admit_socket(shared, entry)
        .map_err(|refusal| Box::new(answer::with_headers(*refuse(&refusal), close())))?;
    let identity = identify(shared, parts).map_err(|refusal| refuse(&refusal))?;
    let request =
        request::parse(parts, transport, shared.config.channels_limit).map_err(|refusal| refuse(&refusal))?;
    for channel in &request.channels {
        identity.check_channel(channel).map_err(|refusal| refuse(&refusal))?;
    }
    admit(shared, &identity, &request).map_err(|refusal| refuse(&refusal))?;
    let headers = origin::response_headers(origin);
    if shard.state.borrow_mut().is_unchanged(&request, &identity) {
        let tag = request.if_none_match.unwrap_or_default();
        return Ok(Outcome::Answer(answer::not_modified(poll::headers(&tag, &headers))));
    }
    let ws_head = ws.map(|accept| accept.response_head(&headers));
    Ok(Outcome::Takeover(Box::new(Takeover { request, identity, headers, ws_head })))
}

/// Whether anyone may come through this socket now.
fn admit_socket(shared: &Shared, entry: Entry) -> Result<(), Problem> {
    let (kind, detail) = match entry {
        Entry::NodeFull => (ErrorKind::Overloaded, "the node holds as many connections as it may"),
        Entry::AddressFull => (ErrorKind::RateLimited, "this address has as many connections as it may"),
        Entry::Open if shared.is_refusing() => (ErrorKind::Draining, "the node is being drained"),
        Entry::Open if shared.ladder.is_at(Rung::NoConnections) => {
            (ErrorKind::Overloaded, "the node is short of memory")
        }
        Entry::Open => return Ok(()),
    };
    Err(Problem::new(kind, detail).retry_after_ms(RETRY_MS))
}

/// Whether this client may come now.
fn admit(shared: &Shared, identity: &Identity, request: &EventsRequest) -> Result<(), Problem> {
    let comes_back = matches!(request.cursor, CursorParam::Good(_));
    if !comes_back && shared.ladder.is_at(Rung::NoNew) {
        let detail = "the node is short of memory and lets in only who comes back with a cursor";
        return Err(Problem::new(ErrorKind::Overloaded, detail).retry_after_ms(RETRY_MS));
    }
    let limit = shared.config.admission.user_limit;
    if let Some(user) = identity.user.as_ref().filter(|_| limit > 0)
        && shared.presences.connections_of(&Channel::of_user(user)) >= limit
    {
        let detail = format!("this user has {limit} connections on this node, as many as it may");
        return Err(Problem::new(ErrorKind::RateLimited, detail).retry_after_ms(RETRY_MS));
    }
    Ok(())
}

fn identify(shared: &Shared, parts: &Parts) -> Result<Identity, Problem> {
    if !shared.control.is_complete() {
        let refusal = Problem::new(ErrorKind::Overloaded, "the node has not heard yet what is revoked");
        return Err(refusal.retry_after_ms(RETRY_MS));
    }
    let token = request::token_of(parts)?;
    let user = request::query(parts, "user");
    let identity = shared.auth.identify(token.as_deref(), user.as_deref())?;
    if shared.control.is_revoked(&identity) { Err(revoked::problem()) } else { Ok(identity) }
}

fn refuse_handshake(shared: &Shared, error: HandshakeError, origin: &AllowedOrigin) -> Answer {
    let kind = if error.status() == StatusCode::UPGRADE_REQUIRED {
        ErrorKind::UpgradeRequired
    } else {
        ErrorKind::BadRequest
    };
    let refusal = Problem::new(kind, format!("websocket handshake: {error}"));
    answer::with_headers(answer::problem(shared, &refusal, origin), error.headers())
}

/// The body of a request, within its size and time.
async fn collect(body: impl RequestBody, bytes_limit: usize) -> Result<Bytes, Problem> {
    let collecting = Limited::new(body, bytes_limit).collect();
    match tokio::time::timeout(Duration::from_millis(limits::REQUEST_BODY_TIMEOUT_MS), collecting).await {
        Err(_) => Err(Problem::new(ErrorKind::RequestTimeout, "the body did not arrive in time")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Problem::new(ErrorKind::TooLarge, format!("the body is larger than {bytes_limit} bytes")))
        }
        Ok(Err(_)) => Err(Problem::new(ErrorKind::BadRequest, "the body is cut short or malformed")),
    }
}

/// `POST /v1/messages`: to the log, and the ack once it is there.
async fn messages(shared: &Shared, parts: &Parts, body: impl RequestBody, origin: &AllowedOrigin) -> Answer {
    match append_message(shared, parts, body).await {
        Ok(ack) => {
            shared.metrics.messages.with_label_values(&["acked"]).inc();
            answer::answer(StatusCode::OK, HeaderValue::from_static("application/json"), ack, origin)
        }
        Err(refusal) => {
            shared.metrics.messages.with_label_values(&[refusal.kind.as_str()]).inc();
            answer::problem(shared, &refusal, origin)
        }
    }
}

async fn append_message(shared: &Shared, parts: &Parts, body: impl RequestBody) -> Result<Vec<u8>, Problem> {
    let identity = identify(shared, parts)?;
    let body = collect(body, shared.config.message_bytes_limit).await?;
    let message = message::parse(&body, shared.config.message_bytes_limit).map_err(|(_, refusal)| refusal)?;
    let missing = || Problem::new(ErrorKind::BadRequest, "channel is missing");
    let channel = message.channel.ok_or_else(missing)?;
    identity.check_channel(&channel)?;
    let upstream = UpstreamMessage {
        connection: shared.connection_id(shared.next_sequence()),
        user: identity.user,
        channel,
        payload: message.payload,
        seq: 1,
        trace_parent: parts.headers.get("traceparent").map(|value| Bytes::copy_from_slice(value.as_bytes())),
    };
    let pos = shared.upstream.send(upstream).await?;
    Ok(object::ack_object(message.reference.as_deref(), 1, &pos))
}

/// The demonstration page's publish box: the JSON of `POST /v1/publish`, handed to the router of this process.
async fn demo(shared: &Shared, body: impl RequestBody, origin: &AllowedOrigin) -> Answer {
    let Some(publish) = &shared.demo_publish else { return Answer::default() };
    match collect(body, limits::API_REQUEST_BYTES_LIMIT).await {
        Ok(body) => {
            let (status, content_type, body) = publish(body).await;
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            answer::answer(status, HeaderValue::from_static(content_type), body, origin)
        }
        Err(refusal) => answer::problem(shared, &refusal, origin),
    }
}
