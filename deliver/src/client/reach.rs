//! One Reach stream, seen from the node.

use futures::StreamExt as _;
use futures::stream;
use tidegate_link::{NodeHello, NodeSays, ReachSender, ReachStream, reach_queue};
use tidegate_proto::deliver::v1 as wire;
use tidegate_vocab::{Problem, limits};
use tokio::sync::{mpsc, oneshot};
use tonic::Streaming;

use super::Client;
use crate::convert;
use crate::metrics::{Metrics, OpenStream, Side};

/// Says hello, and leaves a task that reads. Cancel-safe: a call that is dropped is reset.
pub(super) async fn open(
    mut client: Client,
    metrics: &Metrics,
    node: NodeHello,
) -> Result<ReachStream, Problem> {
    let (to_router, says) = mpsc::channel(limits::REACH_QUEUE_LIMIT);
    let (sender, from_router) = reach_queue();
    let (ended, has_ended) = oneshot::channel();
    let called = client.reach(requests(&node, says, has_ended)).await;
    let mut responses = called.map_err(|status| convert::problem(&status))?.into_inner();
    // Empty: the router has let us in.
    responses.message().await.map_err(|status| convert::problem(&status))?;
    let open = metrics.stream(Side::Node, "reach");
    let reader = Reader { sender, metrics: metrics.clone(), _ended: ended, _open: open };
    tokio::spawn(reader.run(responses));
    Ok(ReachStream { to_router, from_router })
}

/// The hello, then what the node says. Ends when the node drops its sender, and with the reader, which ends when the node
/// drops its receiver: HTTP/2 would keep a call for as long as one of its directions is open.
fn requests(
    node: &NodeHello,
    says: mpsc::Receiver<NodeSays>,
    has_ended: oneshot::Receiver<()>,
) -> impl futures::Stream<Item = wire::ReachRequest> + Send + 'static {
    let hello = wire::ReachRequest { says: vec![convert::node_hello_to_wire(node)] };
    let rest = stream::unfold((says, has_ended), |(mut says, mut has_ended)| async move {
        let mut batch = Vec::new();
        let count = tokio::select! {
            count = says.recv_many(&mut batch, limits::REACH_BATCH_LIMIT) => count,
            _ = &mut has_ended => 0,
        };
        let request =
            wire::ReachRequest { says: batch.into_iter().map(convert::node_says_to_wire).collect() };
        (count > 0).then_some((request, (says, has_ended)))
    });
    stream::iter([hello]).chain(rest)
}

/// What the router says, on its way to the node.
struct Reader {
    sender: ReachSender,
    metrics: Metrics,
    _ended: oneshot::Sender<()>,
    _open: OpenStream,
}

impl Reader {
    async fn run(self, mut responses: Streaming<wire::ReachResponse>) {
        loop {
            let message = tokio::select! {
                () = self.sender.closed() => return,
                message = responses.message() => message,
            };
            let says = match message {
                Ok(Some(message)) => message.says,
                Ok(None) => return tracing::debug!("router ended the reach stream"),
                Err(status) => {
                    return tracing::debug!(code = ?status.code(), message = status.message(), "reach stream broke");
                }
            };
            for says in says {
                let put = match convert::router_says_from_wire(says) {
                    Ok(says) => self.sender.put(says),
                    Err(error) => return self.metrics.bad_frame(Side::Node, error),
                };
                if put.is_err() {
                    return; // A node that takes nothing for so long comes back, and is told the ring first.
                }
            }
        }
    }
}
