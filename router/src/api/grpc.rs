//! The gRPC services: conversions around the calls of the router.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tidegate_proto::publish::v1::publisher_server::Publisher;
use tidegate_proto::publish::v1::{self as wire, item_result, publish_request, target_result};
use tidegate_proto::upstream::v1::upstream_server::Upstream;
use tidegate_proto::upstream::v1::{self as up, message, read_request, read_response};
use tidegate_vocab::{ErrorKind, Payload, Problem, TraceContext};
use tonic::{Request, Response, Status};

use super::answer;
use crate::Router;
use crate::metrics::Api;
use crate::publish::{Accepted, Data, PublishRequest, Published, Target};
use crate::upstream::{ReadFrom, ResumeToken, UpstreamItem, UpstreamReader, UpstreamUpdate};

/// `tidegate.publish.v1.Publisher`.
pub(super) struct PublisherService(pub(super) Arc<Router>);

/// `tidegate.upstream.v1.Upstream`.
pub(super) struct UpstreamService(pub(super) Arc<Router>);

#[tonic::async_trait]
impl Publisher for PublisherService {
    async fn publish(
        &self,
        request: Request<wire::PublishRequest>,
    ) -> Result<Response<wire::PublishResponse>, Status> {
        let trace = trace_of(&request);
        let request = from_wire(request.into_inner(), trace).map_err(|problem| {
            self.0.context.metrics.published(Api::Grpc, Err(problem.kind));
            answer::status(&problem, None)
        })?;
        let published = self.0.publish(Api::Grpc, request).await;
        published
            .map(|published| Response::new(to_wire(published)))
            .map_err(|error| answer::publish_status(&error))
    }

    async fn publish_batch(
        &self,
        request: Request<wire::PublishBatchRequest>,
    ) -> Result<Response<wire::PublishBatchResponse>, Status> {
        let trace = trace_of(&request);
        let items = request.into_inner().items.into_iter().map(|item| from_wire(item, trace)).collect();
        let results =
            self.0.publish_batch(Api::Grpc, items).await.map_err(|problem| answer::status(&problem, None))?;
        let mut failed = 0;
        let results = results
            .into_iter()
            .map(|result| {
                let outcome = match result {
                    Ok(published) => {
                        failed += published.failed() as u32;
                        item_result::Outcome::Response(to_wire(published))
                    }
                    Err(error) => {
                        failed += 1;
                        item_result::Outcome::Problem(problem_to_wire(&error.problem))
                    }
                };
                wire::ItemResult { outcome: Some(outcome) }
            })
            .collect();
        Ok(Response::new(wire::PublishBatchResponse { results, failed }))
    }
}

pub(super) fn trace_of<T>(request: &Request<T>) -> Option<TraceContext> {
    TraceContext::parse(request.metadata().get(TraceContext::HEADER)?.as_bytes()).ok()
}

fn from_wire(request: wire::PublishRequest, trace: Option<TraceContext>) -> Result<PublishRequest, Problem> {
    let data = match request.payload {
        Some(publish_request::Payload::Json(text)) => Data::Json(text.into()),
        Some(publish_request::Payload::Binary(bytes)) => Data::Binary(bytes),
        None => return Err(Problem::new(ErrorKind::BadRequest, "payload is missing: set json or binary")),
    };
    let channels = request.channels.into_iter().map(Target::Channel);
    let users = request.users.into_iter().map(Target::User);
    let everyone = request.everyone.then_some(Target::Everyone);
    Ok(PublishRequest {
        targets: channels.chain(users).chain(everyone).collect(),
        event: Some(request.event).filter(|name| !name.is_empty()),
        data,
        idempotency_key: Some(request.idempotency_key).filter(|key| !key.is_empty()),
        ttl_ms: Some(request.ttl_ms).filter(|ttl_ms| *ttl_ms > 0),
        ephemeral: request.ephemeral,
        trace,
    })
}

fn to_wire(published: Published) -> wire::PublishResponse {
    let failed = published.failed() as u32;
    let results = published
        .results
        .into_iter()
        .map(|result| wire::TargetResult {
            target: Some(match result.target {
                Target::Channel(name) => target_result::Target::Channel(name),
                Target::User(id) => target_result::Target::User(id),
                Target::Everyone => target_result::Target::Everyone(true),
            }),
            outcome: Some(match result.outcome {
                Ok(Accepted::Durable { pos, duplicate }) => {
                    target_result::Outcome::Durable(wire::Durable { pos, duplicate })
                }
                Ok(Accepted::Ephemeral { routed }) => {
                    target_result::Outcome::Ephemeral(wire::Ephemeral { routed })
                }
                Err(problem) => target_result::Outcome::Problem(problem_to_wire(&problem)),
            }),
        })
        .collect();
    wire::PublishResponse { results, failed, idempotency_key: published.idempotency_key.unwrap_or_default() }
}

fn problem_to_wire(problem: &Problem) -> wire::Problem {
    wire::Problem {
        kind: problem.kind.as_str().into(),
        message: problem.detail.clone(),
        retry_ms: problem.retry_ms.unwrap_or(0),
    }
}

#[tonic::async_trait]
impl Upstream for UpstreamService {
    type ReadStream = Pin<Box<dyn Stream<Item = Result<up::ReadResponse, Status>> + Send>>;

    async fn read(&self, request: Request<up::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let refuse = |problem: Problem| answer::status(&problem, None);
        let from = read_from(request.into_inner()).map_err(refuse)?;
        let reader = self.0.read_upstream(from).await.map_err(refuse)?;
        Ok(Response::new(Box::pin(updates(reader, Arc::clone(&self.0)))))
    }
}

fn read_from(request: up::ReadRequest) -> Result<ReadFrom, Problem> {
    let bad = |detail: String| Problem::new(ErrorKind::BadRequest, detail);
    match request.from {
        Some(read_request::From::Start(true)) => Ok(ReadFrom::Start),
        Some(read_request::From::Now(true)) => Ok(ReadFrom::Now),
        Some(read_request::From::Resume(token)) => {
            ResumeToken::parse(&token).map(ReadFrom::Resume).map_err(|error| bad(error.to_string()))
        }
        _ => Err(bad("from is missing: set start, now or resume".into())),
    }
}

/// Ends with `draining` when the router shuts down.
fn updates(
    reader: UpstreamReader,
    router: Arc<Router>,
) -> impl Stream<Item = Result<up::ReadResponse, Status>> + Send {
    let closed = Box::pin(router.closed());
    drop(router);
    futures::stream::unfold(Some((reader, closed)), async |state| {
        let (mut reader, mut closed) = state?;
        let update = tokio::select! {
            () = &mut closed => {
                Err(Problem::new(ErrorKind::Draining, "the router shuts down").retry_after_ms(1_000))
            }
            update = reader.next() => update,
        };
        match update {
            Ok(update) => Some((Ok(update_to_wire(update)), Some((reader, closed)))),
            Err(problem) => Some((Err(answer::status(&problem, None)), None)),
        }
    })
}

fn update_to_wire(update: UpstreamUpdate) -> up::ReadResponse {
    let item = update.item.map(|item| match item {
        UpstreamItem::Message(said, position) => read_response::Item::Message(up::Message {
            connection: said.connection.to_string(),
            user: said.user.map(|user| user.to_string()).unwrap_or_default(),
            channel: said.channel.to_string(),
            payload: Some(match said.payload {
                // What is not UTF-8 never was JSON; it is shown as the bytes that it is.
                Payload::Json(bytes) => match String::from_utf8(bytes.to_vec()) {
                    Ok(text) => message::Payload::Json(text),
                    Err(_) => message::Payload::Binary(bytes),
                },
                Payload::Binary(bytes) => message::Payload::Binary(bytes),
            }),
            seq: said.seq,
            time_ms: said.time_ms,
            pos: position.to_string(),
            trace_parent: said
                .trace_parent
                .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
                .unwrap_or_default(),
        }),
        UpstreamItem::Lost { partition, from, upto, reason } => read_response::Item::Lost(up::Lost {
            partition,
            from: from.0,
            upto: upto.0,
            reason: reason.into(),
        }),
    });
    up::ReadResponse { item, resume: update.resume.encode() }
}
