//! Who comes and who goes: `tidegate.presence.v1.Presence` and `GET /v1/presence/watch`.

use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use futures::{Stream, StreamExt as _};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use tidegate_proto::presence::v1 as wire;
use tidegate_proto::presence::v1::presence_server::Presence;
use tidegate_proto::presence::v1::{change, watch_response};
use tidegate_registry::Presence as Is;
use tidegate_vocab::{ErrorKind, Problem, push_json_string};
use tonic::Status;

use super::answer;
use crate::Router;
use crate::presence::{PresenceChange, PresenceItem, PresenceWatch, Subjects, user_of};

pub(super) struct PresenceService(pub(super) Arc<Router>);

#[tonic::async_trait]
impl Presence for PresenceService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: tonic::Request<wire::WatchRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let subjects = match request.subjects() {
            wire::Subjects::Unspecified => Subjects::All,
            wire::Subjects::Users => Subjects::Users,
            wire::Subjects::Channels => Subjects::Channels,
        };
        let watch = self.0.watch_presence(request.from_start, subjects).await;
        let watch = watch.map_err(|problem| answer::status(&problem, None))?;
        let items = items(watch, Arc::clone(&self.0))
            .map(|item| item.map(to_wire).map_err(|problem| answer::status(&problem, None)));
        Ok(tonic::Response::new(Box::pin(items)))
    }
}

/// One JSON object a line: a change, `{"caught_up":true}`, and last, where it fails, `{"error":…}`.
pub(super) async fn watch(State(router): State<Arc<Router>>, RawQuery(query): RawQuery) -> Response {
    let watch = match asked(query.as_deref().unwrap_or_default()) {
        Ok((from_start, subjects)) => router.watch_presence(from_start, subjects).await,
        Err(problem) => Err(problem),
    };
    match watch {
        Ok(watch) => {
            let lines = items(watch, router).map(|item| Ok::<_, std::convert::Infallible>(line(item)));
            let mut response = Body::from_stream(lines).into_response();
            let ndjson = HeaderValue::from_static("application/x-ndjson");
            response.headers_mut().insert(CONTENT_TYPE, ndjson);
            response
        }
        Err(problem) => answer::http(&problem, None),
    }
}

fn asked(query: &str) -> Result<(bool, Subjects), Problem> {
    let (mut from_start, mut subjects) = (false, Subjects::All);
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter {
            "from=start" => from_start = true,
            "from=now" => from_start = false,
            "of=users" => subjects = Subjects::Users,
            "of=channels" => subjects = Subjects::Channels,
            _ => {
                let detail = "the query takes from=start or from=now, and of=users or of=channels";
                return Err(Problem::new(ErrorKind::BadRequest, detail));
            }
        }
    }
    Ok((from_start, subjects))
}

/// Ends with `draining` when the router shuts down.
fn items(
    watch: PresenceWatch,
    router: Arc<Router>,
) -> impl Stream<Item = Result<PresenceItem, Problem>> + Send {
    let closed = Box::pin(router.closed());
    drop(router);
    futures::stream::unfold(Some((watch, closed)), async |state| {
        let (mut watch, mut closed) = state?;
        let item = tokio::select! {
            () = &mut closed => {
                Err(Problem::new(ErrorKind::Draining, "the router shuts down").retry_after_ms(1_000))
            }
            item = watch.next() => item,
        };
        let rest = item.is_ok().then_some((watch, closed));
        Some((item, rest))
    })
}

fn to_wire(item: PresenceItem) -> wire::WatchResponse {
    let item = match item {
        PresenceItem::CaughtUp => watch_response::Item::CaughtUp(wire::CaughtUp {}),
        PresenceItem::Change(PresenceChange { subject, presence, since_s }) => {
            let state = match presence {
                Is::Online => wire::State::Online,
                Is::Offline => wire::State::Offline,
            };
            watch_response::Item::Change(wire::Change {
                subject: Some(match user_of(&subject) {
                    Some(user) => change::Subject::User(user.to_owned()),
                    None => change::Subject::Channel(subject.to_string()),
                }),
                state: state.into(),
                since_s: since_s.into(),
            })
        }
    };
    wire::WatchResponse { item: Some(item) }
}

fn line(item: Result<PresenceItem, Problem>) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    match item {
        Ok(PresenceItem::CaughtUp) => out.extend_from_slice(b"{\"caught_up\":true}"),
        Ok(PresenceItem::Change(PresenceChange { subject, presence, since_s })) => {
            let (key, name) = match user_of(&subject) {
                Some(user) => ("user", user),
                None => ("channel", subject.as_str()),
            };
            out.extend_from_slice(format!("{{\"{key}\":").as_bytes());
            push_json_string(&mut out, name);
            let state = match (presence, key) {
                (Is::Online, "user") => "online",
                (Is::Offline, "user") => "offline",
                (Is::Online, _) => "occupied",
                (Is::Offline, _) => "vacated",
            };
            out.extend_from_slice(format!(",\"state\":\"{state}\",\"since\":{since_s}}}").as_bytes());
        }
        Err(problem) => {
            out.extend_from_slice(b"{\"error\":");
            out.extend_from_slice(&problem.to_json());
            out.push(b'}');
        }
    }
    out.push(b'\n');
    out
}
