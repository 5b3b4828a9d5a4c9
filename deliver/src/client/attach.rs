//! One Deliver stream, seen from the node.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::Stream;
use futures::StreamExt as _;
use futures::stream;
use prost::Message as _;
use tidegate_link::{DeliverSender, DeliverStream, deliver_queue};
use tidegate_proto::deliver::v1::{self as wire, to_node, to_router};
use tidegate_proto::frames::{to_node_from_wire, to_router_to_wire};
use tidegate_tenure::{ToNode, ToRouter};
use tidegate_vocab::{ErrorKind, Incarnation, Problem, limits};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::Client;
use crate::hello::{HelloError, Peer, VERSIONS, agree, hello, is_spoken};
use crate::metrics::{Flow, Metrics, OpenStream, Side};
use crate::{FRAMES_AT_ONCE, FRAMES_LIMIT, convert};

/// Says hello, hears the router's, and leaves a task that reads. Cancel-safe: a call that is dropped is reset.
pub(super) async fn open(
    mut client: Client,
    metrics: &Metrics,
    node: Incarnation,
) -> Result<DeliverStream, Problem> {
    let (to_router, frames) = mpsc::channel(FRAMES_LIMIT);
    let (sender, from_router) = deliver_queue(limits::DELIVER_NODE_BYTES_LIMIT);
    let flow = metrics.flow(Side::Node);
    let version = Arc::new(AtomicU32::new(VERSIONS.min));
    let requests = requests(node, frames, sender.clone(), flow.clone(), Arc::clone(&version));
    let attached = client.attach(requests).await.map_err(|status| convert::problem(&status))?;
    let mut responses = attached.into_inner();
    let first = responses.message().await.map_err(|status| convert::problem(&status))?;
    let mut first = first.unwrap_or_default().frames.into_iter();
    let peer = greeting(first.next()).map_err(|error| {
        metrics.refused_hello(Side::Node, error);
        Problem::new(ErrorKind::BadRequest, error.to_string())
    })?;
    version.store(peer.version, Ordering::Relaxed);
    tracing::debug!(router = %peer.incarnation, version = peer.version, "deliver stream opened");
    let reader =
        Reader { sender, metrics: metrics.clone(), flow, _open: metrics.stream(Side::Node, "attach") };
    tokio::spawn(reader.run(responses, first.collect()));
    Ok(DeliverStream { to_router, from_router })
}

fn greeting(first: Option<wire::ToNode>) -> Result<Peer, HelloError> {
    match first.and_then(|frame| frame.frame) {
        Some(to_node::Frame::Hello(hello)) => agree(&hello, VERSIONS),
        _ => Err(HelloError::Missing),
    }
}

/// The hello, then what the node sends, as it comes. A node that drops either of its halves ends the whole stream: HTTP/2
/// would keep a call for as long as one of its directions is open.
fn requests(
    node: Incarnation,
    frames: mpsc::Receiver<ToRouter>,
    sender: DeliverSender,
    flow: Flow,
    version: Arc<AtomicU32>,
) -> impl Stream<Item = wire::AttachRequest> + Send + 'static {
    let hello = to_router::Frame::Hello(hello(node));
    let hello = wire::ToRouter { frame: Some(hello), ..wire::ToRouter::default() };
    let state = (frames, sender, flow, version);
    let rest = stream::unfold(state, |(mut frames, sender, flow, version)| async move {
        let mut batch = Vec::new();
        let count = tokio::select! {
            count = frames.recv_many(&mut batch, FRAMES_AT_ONCE) => count,
            () = sender.closed() => 0,
        };
        if count == 0 {
            sender.close();
            return None;
        }
        // The node's frames begin to come once the router has said hello.
        batch.retain(|frame| is_spoken(frame, version.load(Ordering::Relaxed)));
        let request = wire::AttachRequest { frames: batch.into_iter().map(to_router_to_wire).collect() };
        flow.sent(request.frames.len(), request.encoded_len());
        Some((request, (frames, sender, flow, version)))
    });
    stream::iter([wire::AttachRequest { frames: vec![hello] }]).chain(rest)
}

/// What the router sends, on its way to the node. Reads only while the node's queue has room.
struct Reader {
    sender: DeliverSender,
    metrics: Metrics,
    flow: Flow,
    _open: OpenStream,
}

impl Reader {
    async fn run(self, mut responses: Streaming<wire::AttachResponse>, first: Vec<wire::ToNode>) {
        let mut frames = first;
        loop {
            match frames.into_iter().map(to_node_from_wire).collect::<Result<Vec<ToNode>, _>>() {
                Ok(frames) => self.sender.push(frames),
                Err(error) => {
                    self.metrics.bad_frame(Side::Node, error);
                    break;
                }
            }
            if self.sender.room() == 0 {
                self.sender.room_again().await;
            }
            let message = tokio::select! {
                () = self.sender.closed() => break,
                message = responses.message() => message,
            };
            match message {
                Ok(Some(message)) => {
                    self.flow.received(message.frames.len(), message.encoded_len());
                    frames = message.frames;
                }
                Ok(None) => {
                    tracing::debug!("router ended the deliver stream");
                    break;
                }
                Err(status) => {
                    let source = status.source().map(ToString::to_string);
                    tracing::debug!(code = ?status.code(), message = status.message(), source, "deliver stream broke");
                    break;
                }
            }
        }
        self.sender.close();
    }
}
