//! One stream of announcements, seen from the member.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tidegate_proto::registry::v1 as wire;
use tidegate_proto::registry::v1::announce_request::Frame as Asked;
use tidegate_proto::registry::v1::announce_response::Frame as Said;
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use super::ended;
use super::task::{Command, MemberHandle};
use crate::convert::{MessageError, VERSION, batch_from_wire, hello_from_wire, incarnation_to_wire};
use crate::frame::Hello;
use crate::member::AnnounceStream;

type Responses = BoxStream<'static, Result<wire::AnnounceResponse, Status>>;

/// Hears the hello, opens the session, and answers with ours.
pub(super) async fn open(
    member: MemberHandle,
    mut requests: Streaming<wire::AnnounceRequest>,
) -> Result<Responses, Status> {
    let metrics = member.metrics.clone();
    let first = requests.message().await?.and_then(|request| request.frame);
    let (hello, session) = hello_of(first).inspect_err(|error| metrics.hello_refused(error.into()))?;
    let node = hello.node;
    let (done, opened) = oneshot::channel();
    member.send(Command::Hello(hello, session, done)).await?;
    let opened = opened.await.map_err(|_| ended())?;
    let stream = opened.inspect_err(|refusal| metrics.hello_refused(refusal.into()))?;
    tracing::debug!(%node, session, "announce stream opened");
    let hello = Said::Hello(wire::MemberHello {
        incarnation: incarnation_to_wire(member.incarnation()),
        min_version: VERSION,
        max_version: VERSION,
        digest: member.digest(),
    });
    let greeting = Ok(wire::AnnounceResponse { frame: Some(hello) });
    let announced = Announced { guard: Guard { member, stream, is_well: false }, requests };
    Ok(stream::iter([greeting]).chain(stream::unfold(Some(announced), next)).boxed())
}

fn hello_of(first: Option<Asked>) -> Result<(Hello, u64), MessageError> {
    match first {
        Some(Asked::Hello(hello)) => hello_from_wire(hello),
        _ => Err(MessageError::NoHello),
    }
}

/// Tells the member how the stream ended, also when the connection just goes.
struct Guard {
    member: MemberHandle,
    stream: AnnounceStream,
    is_well: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (member, stream, is_well) = (self.member.clone(), self.stream, self.is_well);
        let command = if is_well { Command::Goodbye(stream) } else { Command::Closed(stream) };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // An error means that the member is gone.
            runtime.spawn(async move { drop(member.send(command).await) });
        }
    }
}

struct Announced {
    guard: Guard,
    requests: Streaming<wire::AnnounceRequest>,
}

/// Applies the next batch and acknowledges it. Polled only when HTTP/2 takes the answer, so a node that does not read is not
/// read either.
async fn next(
    announced: Option<Announced>,
) -> Option<(Result<wire::AnnounceResponse, Status>, Option<Announced>)> {
    let mut announced = announced?;
    match announced.requests.message().await {
        Ok(Some(wire::AnnounceRequest { frame: Some(Asked::Goodbye(_)) })) => {
            announced.guard.is_well = true;
            None
        }
        Ok(Some(request)) => Some(match announced.apply(request).await {
            Ok(seq) => (Ok(wire::AnnounceResponse { frame: Some(Said::Acked(seq)) }), Some(announced)),
            Err(status) => (Err(status), None),
        }),
        Ok(None) | Err(_) => None,
    }
}

impl Announced {
    async fn apply(&self, request: wire::AnnounceRequest) -> Result<u64, Status> {
        let batch = match request.frame {
            Some(Asked::Batch(batch)) => batch_from_wire(batch)?,
            Some(Asked::Hello(_)) => return Err(MessageError::SecondHello.into()),
            Some(Asked::Goodbye(_)) | None => return Err(MessageError::Missing("a frame").into()),
        };
        let (done, applied) = oneshot::channel();
        self.guard.member.send(Command::Batch(self.guard.stream, batch, done)).await?;
        Ok(applied.await.map_err(|_| ended())??)
    }
}
