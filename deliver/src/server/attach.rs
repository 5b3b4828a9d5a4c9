//! One Deliver stream, seen from the router.
//!
//! Two halves: a task that hands the node's frames to the link, and the response stream, which is polled when HTTP/2
//! has room and takes from the link's queue only then. Each ends the other.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use prost::Message as _;
use tidegate_link::DeliverReceiver;
use tidegate_proto::deliver::v1::{self as wire, to_node, to_router};
use tidegate_proto::frames::{to_node_to_wire, to_router_from_wire};
use tidegate_tenure::ToRouter;
use tidegate_vocab::{ErrorKind, Problem, limits};
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Status, Streaming};

use super::Service;
use crate::hello::{HelloError, Peer, VERSIONS, agree, hello};
use crate::metrics::{Flow, Metrics, OpenStream, Side};
use crate::{FRAMES_AT_ONCE, convert};

type Responses = BoxStream<'static, Result<wire::AttachResponse, Status>>;

/// Hears the hello, attaches the node, and answers with ours.
pub(super) async fn open(
    service: &Service,
    mut requests: Streaming<wire::AttachRequest>,
) -> Result<Responses, Status> {
    let mut first = requests.message().await?.unwrap_or_default().frames.into_iter();
    let peer = greeting(first.next()).map_err(|error| {
        service.metrics.refused_hello(Side::Router, error);
        let problem = Problem::new(ErrorKind::BadRequest, error.to_string());
        convert::status_with(Code::FailedPrecondition, &problem)
    })?;
    let attached = service.link.attach(peer.incarnation).await;
    let stream = attached.map_err(|problem| convert::status(&problem))?;
    tracing::debug!(node = %peer.incarnation, version = peer.version, "deliver stream opened");
    let flow = service.metrics.flow(Side::Router);
    let (failed, has_failed) = oneshot::channel();
    let (ended, has_ended) = oneshot::channel();
    let requests = Requests { requests, to_router: stream.to_router, metrics: service.metrics.clone() };
    tokio::spawn(requests.forward(first.collect(), flow.clone(), failed, has_ended));
    let frames = Frames {
        from_router: stream.from_router,
        has_failed: Some(has_failed),
        flow,
        _ended: ended,
        _open: service.metrics.stream(Side::Router, "attach"),
    };
    let hello = to_node::Frame::Hello(hello(service.incarnation));
    let hello = wire::ToNode { frame: Some(hello), ..wire::ToNode::default() };
    let greeting = Ok(wire::AttachResponse { frames: vec![hello] });
    Ok(stream::iter([greeting]).chain(stream::unfold(Some(frames), next)).boxed())
}

fn greeting(first: Option<wire::ToRouter>) -> Result<Peer, HelloError> {
    match first.and_then(|frame| frame.frame) {
        Some(to_router::Frame::Hello(hello)) => agree(&hello, VERSIONS),
        _ => Err(HelloError::Missing),
    }
}

/// What the node sends, on its way to the link. Ends with the response stream.
struct Requests {
    requests: Streaming<wire::AttachRequest>,
    to_router: mpsc::Sender<ToRouter>,
    metrics: Metrics,
}

impl Requests {
    /// Dropping the link's sender ends its stream, and with it the response.
    async fn forward(
        mut self,
        first: Vec<wire::ToRouter>,
        flow: Flow,
        failed: oneshot::Sender<Status>,
        mut has_ended: oneshot::Receiver<()>,
    ) {
        let mut frames = first;
        loop {
            let handed = tokio::select! {
                _ = &mut has_ended => return,
                handed = self.hand_on(std::mem::take(&mut frames)) => handed,
            };
            match handed {
                Ok(true) => {}
                Ok(false) => return,
                Err(status) => return drop(failed.send(status)),
            }
            let message = tokio::select! {
                _ = &mut has_ended => return,
                message = self.requests.message() => message,
            };
            match message {
                Ok(Some(message)) => {
                    flow.received(message.frames.len(), message.encoded_len());
                    frames = message.frames;
                }
                Ok(None) => return,
                Err(status) => return drop(failed.send(status)),
            }
        }
    }

    /// False once the link has ended the stream; an error for what is no frame.
    async fn hand_on(&self, frames: Vec<wire::ToRouter>) -> Result<bool, Status> {
        for frame in frames {
            let frame = to_router_from_wire(frame).map_err(|error| {
                self.metrics.bad_frame(Side::Router, error);
                convert::bad_request(error)
            })?;
            if self.to_router.send(frame).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What the router sends, on its way to the node.
struct Frames {
    from_router: DeliverReceiver,
    /// Why the node's half failed; `None` once that half has ended well.
    has_failed: Option<oneshot::Receiver<Status>>,
    flow: Flow,
    _ended: oneshot::Sender<()>,
    _open: OpenStream,
}

/// The next message: what is ready, at once, and never more than a batch.
async fn next(frames: Option<Frames>) -> Option<(Result<wire::AttachResponse, Status>, Option<Frames>)> {
    let mut frames = frames?;
    loop {
        let failed = async {
            match &mut frames.has_failed {
                Some(has_failed) => has_failed.await.ok(),
                None => std::future::pending().await,
            }
        };
        let batch = tokio::select! {
            biased;
            failed = failed => match failed {
                Some(status) => return Some((Err(status), None)),
                None => None,
            },
            batch = frames.from_router.next_within(FRAMES_AT_ONCE, limits::DELIVER_BATCH_BYTES) => Some(batch?),
        };
        let Some(batch) = batch else {
            frames.has_failed = None;
            continue;
        };
        let response = wire::AttachResponse { frames: batch.into_iter().map(to_node_to_wire).collect() };
        frames.flow.sent(response.frames.len(), response.encoded_len());
        return Some((Ok(response), Some(frames)));
    }
}
