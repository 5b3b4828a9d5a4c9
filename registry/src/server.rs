//! A member as the Registry service: one task owns it, lookups go past that task.

mod announce;
mod presence;
mod task;

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tidegate_proto::problem::status;
use tidegate_proto::registry::v1 as wire;
use tidegate_proto::registry::v1::registry_server::{Registry, RegistryServer};
use tidegate_vocab::{ErrorKind, Problem, limits};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::convert::{incarnation_to_wire, location_to_wire, node_to_wire, within};
use crate::member::NodeEvent;
use task::{Command, Listing};
pub use task::{MemberHandle, MemberTask};
use tidegate_proto::key::{Gate, Key};

/// Pause between two HTTP/2 pings, also while nothing else is said.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Time in which a ping is answered, or the connection is given up.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// Time in which a hello comes.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls of one connection at a time: lookups beyond wait.
const CALLS_PER_CONNECTION: u32 = 1024;

/// Serves a member until `shutdown` completes, then at most for the time of a hello.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    member: MemberHandle,
    key: Option<Key>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let service = RegistryServer::new(Service { member })
        .max_decoding_message_size(limits::REGISTRY_MESSAGE_BYTES_LIMIT)
        .max_encoding_message_size(limits::REGISTRY_MESSAGE_BYTES_LIMIT);
    let (closing, is_closing) = oneshot::channel::<()>();
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .add_service(InterceptedService::new(service, Gate(key)))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            drop(is_closing.await);
        });
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => return served,
        () = shutdown => {}
    }
    drop(closing);
    // Streams of announcements end only when their nodes do: they are cut, and the nodes dial another member or this one anew.
    tokio::time::timeout(Duration::from_millis(500), serving).await.unwrap_or(Ok(()))
}

/// `tidegate.registry.v1.Registry`.
struct Service {
    member: MemberHandle,
}

#[tonic::async_trait]
impl Registry for Service {
    type AnnounceStream = BoxStream<'static, Result<wire::AnnounceResponse, Status>>;
    type WatchNodesStream = BoxStream<'static, Result<wire::WatchNodesResponse, Status>>;
    type PresenceStream = BoxStream<'static, Result<wire::PresenceResponse, Status>>;

    async fn announce(
        &self,
        request: Request<Streaming<wire::AnnounceRequest>>,
    ) -> Result<Response<Self::AnnounceStream>, Status> {
        let opening = announce::open(self.member.clone(), request.into_inner());
        let opened = tokio::time::timeout(HELLO_TIMEOUT, opening).await;
        let stream = opened.map_err(|_| Status::deadline_exceeded("no hello came in time"))??;
        Ok(Response::new(stream))
    }

    async fn locate(
        &self,
        request: Request<wire::LocateRequest>,
    ) -> Result<Response<wire::LocateResponse>, Status> {
        let subjects = request.into_inner().subjects;
        within(&subjects, limits::LOOKUP_KEYS_LIMIT, "keys")?;
        let locations = self.member.table().locate_each(subjects.iter().map(String::as_str));
        Ok(Response::new(wire::LocateResponse {
            incarnation: incarnation_to_wire(self.member.incarnation()),
            digest: self.member.digest(),
            locations: locations.into_iter().map(location_to_wire).collect(),
        }))
    }

    async fn list_nodes(
        &self,
        _: Request<wire::ListNodesRequest>,
    ) -> Result<Response<wire::ListNodesResponse>, Status> {
        let (listing, _) = self.listing().await?;
        Ok(Response::new(listing))
    }

    async fn watch_nodes(
        &self,
        _: Request<wire::WatchNodesRequest>,
    ) -> Result<Response<Self::WatchNodesStream>, Status> {
        use wire::watch_nodes_response::Event;
        let (listing, events) = self.listing().await?;
        let first = Ok(wire::WatchNodesResponse { event: Some(Event::List(listing)) });
        let rest = stream::unfold(Some(events), |events| async {
            let mut events = events?;
            match events.recv().await {
                Ok(event) => Some((Ok(event_to_wire(event)), Some(events))),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let problem = Problem::new(ErrorKind::SlowConsumer, "events were missed: watch anew");
                    Some((Err(status(&problem)), None))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        Ok(Response::new(stream::iter([first]).chain(rest).boxed()))
    }

    async fn presence(
        &self,
        request: Request<Streaming<wire::PresenceRequest>>,
    ) -> Result<Response<Self::PresenceStream>, Status> {
        Ok(Response::new(presence::open(self.member.clone(), request.into_inner()).await?))
    }
}

impl Service {
    /// The nodes now, and the events from then on.
    async fn listing(&self) -> Result<(wire::ListNodesResponse, broadcast::Receiver<NodeEvent>), Status> {
        let (done, listing) = oneshot::channel();
        self.member.send(Command::List(done)).await?;
        let Listing { nodes, online, events } = listing.await.map_err(|_| ended())?;
        let listing = wire::ListNodesResponse {
            incarnation: incarnation_to_wire(self.member.incarnation()),
            digest: self.member.digest(),
            nodes: nodes.into_iter().map(node_to_wire).collect(),
            online: online.users,
            occupied: online.channels,
        };
        Ok((listing, events))
    }
}

/// The task that owns the member is gone.
fn ended() -> Status {
    status(&Problem::new(ErrorKind::Draining, "the member shuts down").retry_after_ms(500))
}

fn event_to_wire(event: NodeEvent) -> wire::WatchNodesResponse {
    use wire::watch_nodes_response::Event;
    let event = match event {
        NodeEvent::Joined(node) => Event::Joined(incarnation_to_wire(node)),
        NodeEvent::Lost { node, subjects } => {
            Event::Lost(wire::NodeLost { incarnation: incarnation_to_wire(node), subjects })
        }
    };
    wire::WatchNodesResponse { event: Some(event) }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Service({})", self.member.incarnation())
    }
}
