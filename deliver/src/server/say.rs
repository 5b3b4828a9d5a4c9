//! What a node's clients say: handed to the link in order, answered in order of completion.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream, FuturesUnordered};
use tidegate_link::{BoxFuture, RouterLink};
use tidegate_proto::deliver::v1 as wire;
use tidegate_vocab::limits;
use tokio::sync::watch;
use tonic::{Status, Streaming};

use super::Service;
use crate::convert;
use crate::metrics::{Metrics, OpenStream, Side};

struct Saying {
    requests: Streaming<wire::SayRequest>,
    link: std::sync::Arc<dyn RouterLink>,
    in_flight: FuturesUnordered<BoxFuture<'static, wire::SayResponse>>,
    /// Nothing more is read: the node has ended its side, or we shut down.
    is_done: bool,
    closing: watch::Receiver<bool>,
    metrics: Metrics,
    _open: OpenStream,
}

/// The answers to what comes. Reads on only while answers are taken and not too many are due.
pub(super) fn answers(
    service: &Service,
    requests: Streaming<wire::SayRequest>,
) -> BoxStream<'static, Result<wire::SayResponse, Status>> {
    let saying = Saying {
        requests,
        link: std::sync::Arc::clone(&service.link),
        in_flight: FuturesUnordered::new(),
        is_done: false,
        closing: service.closing.subscribe(),
        metrics: service.metrics.clone(),
        _open: service.metrics.stream(Side::Router, "say"),
    };
    stream::unfold(Some(saying), |saying| async {
        let mut saying = saying?;
        match saying.next().await? {
            Ok(answer) => Some((Ok(answer), Some(saying))),
            Err(status) => Some((Err(status), None)),
        }
    })
    .boxed()
}

impl Saying {
    async fn next(&mut self) -> Option<Result<wire::SayResponse, Status>> {
        loop {
            if self.is_done && self.in_flight.is_empty() {
                return None;
            }
            let has_room = self.in_flight.len() < limits::SAY_IN_FLIGHT_LIMIT;
            tokio::select! {
                Some(answer) = self.in_flight.next() => return Some(Ok(answer)),
                message = self.requests.message(), if has_room && !self.is_done => {
                    let handed = match message {
                        Ok(Some(request)) => self.hand_on(request),
                        Ok(None) => {
                            self.is_done = true;
                            Ok(())
                        }
                        Err(status) => Err(status),
                    };
                    if let Err(status) = handed {
                        return Some(Err(status));
                    }
                }
                () = closed(&mut self.closing), if !self.is_done => self.is_done = true,
            }
        }
    }

    fn hand_on(&mut self, request: wire::SayRequest) -> Result<(), Status> {
        let number = request.number;
        let message = convert::say_from_wire(request).map_err(|error| {
            self.metrics.bad_frame(Side::Router, error);
            convert::bad_request(error)
        })?;
        let appended = self.link.upstream(message);
        self.in_flight.push(Box::pin(async move { convert::answer_to_wire(number, appended.await) }));
        Ok(())
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // invariant: an error means that the server is gone, which is as good as closing
    drop(closing.wait_for(|closing| *closing).await);
}
