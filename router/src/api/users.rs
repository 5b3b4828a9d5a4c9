//! What is addressed to users now: `tidegate.users.v1.Users` and its JSON twin.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidegate_proto::users::v1 as wire;
use tidegate_proto::users::v1::direct_request::Payload;
use tidegate_proto::users::v1::users_server::Users;
use tidegate_vocab::{Channel, ErrorKind, Problem, TraceContext};
use tonic::Status;

use super::{answer, body, json};
use crate::Router;
use crate::publish::{Data, PublishRequest};
use crate::users::{
    Occupants, OccupantsRequest, Told, Whereabouts, direct_request, parse_user, transport_names,
};

/// Users of a page whose request does not say how many.
const USUAL_LIMIT: usize = 100;

/// `tidegate.users.v1.Users`.
pub(super) struct UsersService(pub(super) Arc<Router>);

fn refused(problem: Problem) -> Status {
    answer::status(&problem, None)
}

#[tonic::async_trait]
impl Users for UsersService {
    async fn direct(
        &self,
        request: tonic::Request<wire::DirectRequest>,
    ) -> Result<tonic::Response<wire::DirectResponse>, Status> {
        let trace = super::grpc::trace_of(&request);
        let request = request.into_inner();
        let data = match request.payload {
            Some(Payload::Json(text)) => Data::Json(text.into()),
            Some(Payload::Binary(bytes)) => Data::Binary(bytes),
            None => {
                let detail = "payload is missing: set json or binary";
                return Err(refused(Problem::new(ErrorKind::BadRequest, detail)));
            }
        };
        let event = Some(request.event).filter(|name| !name.is_empty());
        let asked = PublishRequest { trace, ..direct_request(request.users, event, data) };
        let told = self.0.direct(asked).await.map_err(refused)?;
        let results = told.into_iter().map(|(user, told)| wire::UserReached {
            user,
            routed: told.routed,
            accepted: told.accepted,
            written: told.written,
            unanswered: told.unanswered,
        });
        Ok(tonic::Response::new(wire::DirectResponse { results: results.collect() }))
    }

    async fn disconnect(
        &self,
        request: tonic::Request<wire::DisconnectRequest>,
    ) -> Result<tonic::Response<wire::DisconnectResponse>, Status> {
        let wire::DisconnectRequest { user, reason } = request.into_inner();
        let user = parse_user(&user).map_err(refused)?;
        let told = self.0.disconnect(&user, &reason).await.map_err(refused)?;
        let Told { routed, accepted: closed, unanswered, .. } = told;
        Ok(tonic::Response::new(wire::DisconnectResponse { routed, closed, unanswered }))
    }

    async fn locate(
        &self,
        request: tonic::Request<wire::LocateRequest>,
    ) -> Result<tonic::Response<wire::LocateResponse>, Status> {
        let user = parse_user(&request.into_inner().user).map_err(refused)?;
        let whereabouts = self.0.locate_user(&user).await.map_err(refused)?;
        let Located { online, places, unanswered } = located(whereabouts);
        let places = places.into_iter().map(|place| wire::Place {
            incarnation: place.incarnation,
            node: place.node,
            connections: place.connections,
            transports: place.transports.into_iter().map(str::to_owned).collect(),
            since_s: place.since,
        });
        Ok(tonic::Response::new(wire::LocateResponse { online, places: places.collect(), unanswered }))
    }

    async fn occupants(
        &self,
        request: tonic::Request<wire::OccupantsRequest>,
    ) -> Result<tonic::Response<wire::OccupantsResponse>, Status> {
        let wire::OccupantsRequest { channel, after, limit } = request.into_inner();
        let asked = occupants_request(&channel, &after, limit as usize).map_err(refused)?;
        let page = present(&*self.0.occupants(asked).await.map_err(refused)?);
        let users = page.users.into_iter().map(|occupant| wire::Occupant {
            user: occupant.user,
            nodes: occupant.nodes,
            connections: occupant.connections,
            transports: occupant.transports.into_iter().map(str::to_owned).collect(),
        });
        Ok(tonic::Response::new(wire::OccupantsResponse {
            connections: page.connections,
            anonymous: page.anonymous,
            nodes: page.nodes,
            unanswered: page.unanswered,
            users: users.collect(),
            has_more: page.has_more,
        }))
    }
}

#[derive(Serialize)]
struct Reached {
    user: String,
    routed: u32,
    accepted: u32,
    written: u32,
    unanswered: u32,
}

#[derive(Serialize)]
struct Results {
    results: Vec<Reached>,
}

/// `{"user":"alice","event":"hint","data":…}`, or `users`. One user in the singular is answered with one object.
pub(super) async fn direct(State(router): State<Arc<Router>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let trace = head.headers.get(TraceContext::HEADER);
    let trace = trace.and_then(|value| TraceContext::parse(value.as_bytes()).ok());
    let telling = async {
        let parsed = body::publish(&json::read(body).await?, None)?;
        let told = router.direct(PublishRequest { trace, ..parsed.request }).await?;
        Ok::<_, Problem>((told, parsed.single))
    };
    let (told, single) = match telling.await {
        Ok(told) => told,
        Err(problem) => return answer::http(&problem, None),
    };
    let reached = |(user, told): (String, Told)| {
        let Told { routed, accepted, written, unanswered } = told;
        Reached { user, routed, accepted, written, unanswered }
    };
    let mut results: Vec<_> = told.into_iter().map(reached).collect();
    match results.pop() {
        Some(one) if single && results.is_empty() => json::of(&one),
        last => {
            results.extend(last);
            json::of(&Results { results })
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DisconnectBody {
    user: String,
    #[serde(default)]
    reason: String,
}

#[derive(Serialize)]
struct Disconnected {
    routed: u32,
    closed: u32,
    unanswered: u32,
}

pub(super) async fn disconnect(State(router): State<Arc<Router>>, request: Request) -> Response {
    let closing = async {
        let body = json::read(request.into_body()).await?;
        let body: DisconnectBody = serde_json::from_slice(&body).map_err(|error| {
            let form = r#"{"user":"alice"}, with "reason" for the clients if you like"#;
            Problem::new(ErrorKind::BadRequest, format!("the body is not of the form {form}: {error}"))
        })?;
        router.disconnect(&parse_user(&body.user)?, &body.reason).await
    };
    match closing.await {
        Ok(Told { routed, accepted: closed, unanswered, .. }) => {
            json::of(&Disconnected { routed, closed, unanswered })
        }
        Err(problem) => answer::http(&problem, None),
    }
}

#[derive(Serialize)]
struct Located {
    online: bool,
    places: Vec<Place>,
    unanswered: u32,
}

#[derive(Serialize)]
struct Place {
    node: String,
    incarnation: String,
    connections: u32,
    transports: Vec<&'static str>,
    /// Seconds since the Unix epoch.
    since: u64,
}

fn located(whereabouts: Whereabouts) -> Located {
    let places = whereabouts.places.into_iter().map(|place| Place {
        node: place.name,
        incarnation: place.node.to_string(),
        connections: place.held.connections,
        transports: transport_names(place.held.transports),
        since: u64::from(place.held.since_s),
    });
    let places: Vec<_> = places.collect();
    Located { online: !places.is_empty(), places, unanswered: whereabouts.unanswered }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LocateQuery {
    user: String,
}

pub(super) async fn locate(
    State(router): State<Arc<Router>>,
    query: Result<Query<LocateQuery>, QueryRejection>,
) -> Response {
    let locating = async {
        let Query(query) = query.map_err(|error| bad_query(&error, "?user=alice"))?;
        router.locate_user(&parse_user(&query.user)?).await
    };
    match locating.await {
        Ok(whereabouts) => json::of(&located(whereabouts)),
        Err(problem) => answer::http(&problem, None),
    }
}

fn bad_query(error: &QueryRejection, form: &str) -> Problem {
    Problem::new(ErrorKind::BadRequest, format!("the query is not of the form {form}: {error}"))
}

#[derive(Serialize)]
struct Page {
    connections: u64,
    anonymous: u64,
    nodes: u32,
    unanswered: u32,
    users: Vec<Occupant>,
    has_more: bool,
}

#[derive(Serialize)]
struct Occupant {
    user: String,
    nodes: u32,
    connections: u32,
    transports: Vec<&'static str>,
}

fn present(occupants: &Occupants) -> Page {
    let users = occupants.users.iter().map(|occupant| Occupant {
        user: occupant.user.to_string(),
        nodes: occupant.nodes,
        connections: occupant.held.connections,
        transports: transport_names(occupant.held.transports),
    });
    Page {
        connections: occupants.connections,
        anonymous: occupants.anonymous,
        nodes: occupants.nodes,
        unanswered: occupants.unanswered,
        users: users.collect(),
        has_more: occupants.has_more,
    }
}

/// An empty `after` and a limit of 0 are as good as none.
fn occupants_request(channel: &str, after: &str, limit: usize) -> Result<OccupantsRequest, Problem> {
    let channel = Channel::parse(channel)
        .map_err(|error| Problem::new(ErrorKind::BadChannel, format!("channel {channel:?}: {error}")))?;
    let after = if after.is_empty() { None } else { Some(parse_user(after)?) };
    Ok(OccupantsRequest { channel, after, limit: if limit == 0 { USUAL_LIMIT } else { limit } })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OccupantsQuery {
    channel: String,
    #[serde(default)]
    after: String,
    #[serde(default)]
    limit: usize,
}

pub(super) async fn occupants(
    State(router): State<Arc<Router>>,
    query: Result<Query<OccupantsQuery>, QueryRejection>,
) -> Response {
    let asking = async {
        let Query(query) =
            query.map_err(|error| bad_query(&error, "?channel=room:1&after=alice&limit=100"))?;
        router.occupants(occupants_request(&query.channel, &query.after, query.limit)?).await
    };
    match asking.await {
        Ok(occupants) => json::of(&present(&occupants)),
        Err(problem) => answer::http(&problem, None),
    }
}
