//! The node's end: a router at an address, as a [`RouterLink`].

mod attach;
mod reach;
mod say;

use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_link::{
    BoxFuture, ControlAnswer, ControlAsk, DeliverStream, NodeHello, ReachStream, Routed, RouterLink, Settled,
    UpstreamMessage,
};
use tidegate_proto::deliver::v1::deliver_client::DeliverClient;
use tidegate_proto::deliver::v1::{self as wire};
use tidegate_proto::frames::{event_to_wire, partition_to_wire};
use tidegate_vocab::{ErrorKind, Event, Incarnation, Offset, PartitionId, Position, Problem, limits};
use tokio::sync::{mpsc, oneshot};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::metrics::Metrics;
use crate::{
    CALL_TIMEOUT, CONNECT_TIMEOUT, CONNECTION_WINDOW_BYTES, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW_BYTES,
    convert,
};
use tidegate_proto::key::{Bearer, Key};

type Client = DeliverClient<InterceptedService<Channel, Bearer>>;

/// What every [`Remote`] of a process has in common.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// The cluster's key, where one is configured.
    pub key: Option<Key>,
    /// The counters of the process.
    pub metrics: Metrics,
}

/// A router at one address. Connects when it is first called and again whenever it must; messages of clients share one
/// stream, which is kept open.
#[derive(Debug)]
pub struct Remote {
    client: Client,
    metrics: Metrics,
    say: mpsc::Sender<say::Said>,
}

impl Dialer {
    /// The router at this address. Must be called within a tokio runtime; does not connect yet.
    #[must_use]
    pub fn remote(&self, address: SocketAddr) -> Arc<Remote> {
        let uri = format!("http://{address}");
        // invariant: a socket address is always a valid authority
        let endpoint = Endpoint::from_shared(uri).unwrap_or_else(|_| Endpoint::from_static("http://[::]:0"));
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_lazy();
        let client = DeliverClient::with_interceptor(channel, Bearer(self.key.clone()))
            .max_decoding_message_size(limits::DELIVER_RESPONSE_BYTES_LIMIT)
            .max_encoding_message_size(limits::DELIVER_REQUEST_BYTES_LIMIT);
        let (say, said) = mpsc::channel(limits::SAY_IN_FLIGHT_LIMIT);
        tokio::spawn(say::SayTask::new(client.clone(), said, self.metrics.clone()).run());
        Arc::new(Remote { client, metrics: self.metrics.clone(), say })
    }
}

impl RouterLink for Remote {
    fn attach(&self, node: Incarnation) -> BoxFuture<'_, Result<DeliverStream, Problem>> {
        Box::pin(async move {
            let opening = attach::open(self.client.clone(), &self.metrics, node);
            tokio::time::timeout(CALL_TIMEOUT, opening).await.unwrap_or_else(|_| Err(convert::unreachable()))
        })
    }

    fn upstream(&self, message: UpstreamMessage) -> BoxFuture<'static, Result<Position, Problem>> {
        let (done, answer) = oneshot::channel();
        // Queued in the call, so that messages keep the order of the calls.
        let queued = self.say.try_send(say::Said { message, done });
        Box::pin(async move {
            match queued {
                Ok(()) => answer.await.unwrap_or_else(|_| Err(convert::cut())),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    Err(Problem::new(ErrorKind::Overloaded, "too many messages wait for the router")
                        .retry_after_ms(200))
                }
                Err(mpsc::error::TrySendError::Closed(_)) => Err(convert::cut()),
            }
        })
    }

    fn resolve(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> BoxFuture<'static, Result<Settled, Problem>> {
        let mut client = self.client.clone();
        Box::pin(async move {
            let partition = Some(partition_to_wire(partition));
            let request = wire::ResolveRequest { partition, offset: offset.0 };
            convert::verdict_from_wire(in_time(client.resolve(request)).await?)
        })
    }

    fn control(&self, ask: ControlAsk) -> BoxFuture<'static, Result<ControlAnswer, Problem>> {
        let mut client = self.client.clone();
        Box::pin(async move {
            convert::control_from_wire(in_time(client.control(convert::control_ask_to_wire(ask))).await?)
        })
    }

    fn reach(&self, node: NodeHello) -> BoxFuture<'_, Result<ReachStream, Problem>> {
        Box::pin(async move {
            let opening = reach::open(self.client.clone(), &self.metrics, node);
            tokio::time::timeout(CALL_TIMEOUT, opening).await.unwrap_or_else(|_| Err(convert::unreachable()))
        })
    }

    fn ephemeral(&self, event: Arc<Event>) -> BoxFuture<'static, Result<Routed, Problem>> {
        let mut client = self.client.clone();
        Box::pin(async move {
            let request = wire::EphemeralRequest { event: Some(event_to_wire(event)) };
            convert::routed_from_wire(in_time(client.ephemeral(request)).await?)
        })
    }
}

async fn in_time<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Problem> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map(Response::into_inner).map_err(|status| convert::problem(&status)),
        Err(_) => Err(convert::unreachable()),
    }
}
