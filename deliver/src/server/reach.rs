//! One Reach stream, seen from the router.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tidegate_link::{NodeSays, ReachReceiver};
use tidegate_proto::deliver::v1 as wire;
use tidegate_vocab::limits;
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

use super::Service;
use crate::convert;
use crate::metrics::{Metrics, OpenStream, Side};

type Responses = BoxStream<'static, Result<wire::ReachResponse, Status>>;

/// Hears the hello, enters the node, and answers with an empty message.
pub(super) async fn open(
    service: &Service,
    mut requests: Streaming<wire::ReachRequest>,
) -> Result<Responses, Status> {
    let mut first = requests.message().await?.unwrap_or_default().says.into_iter();
    let hello = convert::node_hello_from_wire(first.next()).map_err(|error| {
        service.metrics.bad_frame(Side::Router, error);
        convert::bad_request(error)
    })?;
    let opened = service.link.reach(hello).await.map_err(|problem| convert::status(&problem))?;
    let (ended, has_ended) = oneshot::channel();
    let forwarding =
        Requests { requests, to_router: opened.to_router, metrics: service.metrics.clone(), has_ended };
    tokio::spawn(forwarding.run(first.collect()));
    let says = Says {
        from_router: opened.from_router,
        _ended: ended,
        _open: service.metrics.stream(Side::Router, "reach"),
    };
    let greeting = Ok(wire::ReachResponse::default());
    Ok(stream::iter([greeting]).chain(stream::unfold(says, next)).boxed())
}

/// What the node says, on its way to the link. Dropping the link's sender ends its stream, and with it the response.
struct Requests {
    requests: Streaming<wire::ReachRequest>,
    to_router: mpsc::Sender<NodeSays>,
    metrics: Metrics,
    has_ended: oneshot::Receiver<()>,
}

impl Requests {
    async fn run(mut self, first: Vec<wire::NodeSays>) {
        let mut says = first;
        loop {
            for said in says {
                match convert::node_says_from_wire(said) {
                    Ok(said) => {
                        if self.to_router.send(said).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => return self.metrics.bad_frame(Side::Router, error),
                }
            }
            let message = tokio::select! {
                _ = &mut self.has_ended => return,
                message = self.requests.message() => message,
            };
            says = match message {
                Ok(Some(message)) => message.says,
                Ok(None) | Err(_) => return,
            };
        }
    }
}

/// What the router says, on its way to the node.
struct Says {
    from_router: ReachReceiver,
    _ended: oneshot::Sender<()>,
    _open: OpenStream,
}

/// The next message: what is ready, at once, and never more than a batch.
async fn next(mut says: Says) -> Option<(Result<wire::ReachResponse, Status>, Says)> {
    let batch = says.from_router.next(limits::REACH_BATCH_LIMIT).await;
    let response =
        wire::ReachResponse { says: batch.into_iter().map(convert::router_says_to_wire).collect() };
    (!response.says.is_empty()).then_some((Ok(response), says))
}
