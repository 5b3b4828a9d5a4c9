//! The router's end: any [`RouterLink`] as the Deliver service.

mod attach;
mod reach;
mod say;

use std::sync::Arc;

use futures::stream::BoxStream;
use tidegate_link::RouterLink;
use tidegate_proto::deliver::v1::deliver_server::{Deliver, DeliverServer};
use tidegate_proto::deliver::v1::{self as wire};
use tidegate_proto::frames::partition_from_wire;
use tidegate_vocab::{Incarnation, Offset, limits};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::metrics::Metrics;
use crate::{
    CALL_TIMEOUT, CONNECTION_WINDOW_BYTES, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW_BYTES, convert,
};
use tidegate_proto::key::{Gate, Key};

/// The router's end, ready to serve. See [`server()`].
pub struct Server {
    service: Service,
    key: Option<Key>,
}

/// Serves this router to nodes and other routers. `incarnation` is the router's own; with a key, calls without it are
/// refused.
#[must_use]
pub fn server(
    link: Arc<dyn RouterLink>,
    incarnation: Incarnation,
    key: Option<Key>,
    metrics: Metrics,
) -> Server {
    let (closing, _) = watch::channel(false);
    Server { service: Service { link, incarnation, metrics, closing: Arc::new(closing) }, key }
}

impl Server {
    /// Serves until `shutdown` completes. Then no call is accepted any more, messages that wait for the log are
    /// answered, and Deliver streams end when the router ends them, so shut the router down first; what has not ended
    /// a call's time later is cut.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let closing = Arc::clone(&self.service.closing);
        let mut is_closing = closing.subscribe();
        let deliver = DeliverServer::new(self.service)
            .max_decoding_message_size(limits::DELIVER_REQUEST_BYTES_LIMIT)
            .max_encoding_message_size(limits::DELIVER_RESPONSE_BYTES_LIMIT);
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(PING_INTERVAL))
            .http2_keepalive_timeout(Some(PING_TIMEOUT))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .add_service(InterceptedService::new(deliver, Gate(self.key)))
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                // invariant: an error means that the sender is gone, which is as good as closing
                async move { drop(is_closing.wait_for(|closing| *closing).await) },
            );
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => return served,
            () = shutdown => {}
        }
        closing.send_replace(true);
        match tokio::time::timeout(CALL_TIMEOUT, serving).await {
            Ok(served) => served,
            Err(_) => {
                tracing::warn!("deliver streams did not end in time and are cut");
                Ok(())
            }
        }
    }
}

/// `tidegate.deliver.v1.Deliver`.
struct Service {
    link: Arc<dyn RouterLink>,
    incarnation: Incarnation,
    metrics: Metrics,
    closing: Arc<watch::Sender<bool>>,
}

#[tonic::async_trait]
impl Deliver for Service {
    type AttachStream = BoxStream<'static, Result<wire::AttachResponse, Status>>;
    type SayStream = BoxStream<'static, Result<wire::SayResponse, Status>>;
    type ReachStream = BoxStream<'static, Result<wire::ReachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<wire::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let opening = attach::open(self, request.into_inner());
        let opened = tokio::time::timeout(CALL_TIMEOUT, opening).await;
        let stream = opened.map_err(|_| Status::deadline_exceeded("no hello came in time"))??;
        Ok(Response::new(stream))
    }

    async fn say(
        &self,
        request: Request<Streaming<wire::SayRequest>>,
    ) -> Result<Response<Self::SayStream>, Status> {
        Ok(Response::new(say::answers(self, request.into_inner())))
    }

    async fn reach(
        &self,
        request: Request<Streaming<wire::ReachRequest>>,
    ) -> Result<Response<Self::ReachStream>, Status> {
        let opening = reach::open(self, request.into_inner());
        let opened = tokio::time::timeout(CALL_TIMEOUT, opening).await;
        let stream = opened.map_err(|_| Status::deadline_exceeded("no hello came in time"))??;
        Ok(Response::new(stream))
    }

    async fn resolve(
        &self,
        request: Request<wire::ResolveRequest>,
    ) -> Result<Response<wire::ResolveResponse>, Status> {
        let request = request.into_inner();
        let partition = partition_from_wire(request.partition).map_err(convert::bad_request)?;
        let settled = in_time(self.link.resolve(partition, Offset(request.offset))).await?;
        Ok(Response::new(convert::verdict_to_wire(settled)))
    }

    async fn ephemeral(
        &self,
        request: Request<wire::EphemeralRequest>,
    ) -> Result<Response<wire::EphemeralResponse>, Status> {
        let event = convert::ephemeral_from_wire(request.into_inner()).map_err(convert::bad_request)?;
        let routed = in_time(self.link.ephemeral(event)).await?;
        Ok(Response::new(convert::routed_to_wire(routed)))
    }

    async fn control(
        &self,
        request: Request<wire::ControlRequest>,
    ) -> Result<Response<wire::ControlResponse>, Status> {
        let ask = convert::control_ask_from_wire(request.into_inner());
        Ok(Response::new(convert::control_to_wire(in_time(self.link.control(ask)).await?)))
    }
}

/// The caller has given up after a call's time: nothing of it stays here longer.
async fn in_time<T>(call: impl Future<Output = Result<T, tidegate_vocab::Problem>>) -> Result<T, Status> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|problem| convert::status(&problem)),
        Err(_) => Err(Status::deadline_exceeded("not known in time")),
    }
}
