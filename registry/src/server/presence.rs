//! The presence stream: transitions out, the topic's records in.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tidegate_proto::registry::v1 as wire;
use tidegate_vocab::limits;
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

use super::ended;
use super::task::{Command, Emitted, MemberHandle, Records};
use crate::convert::{MessageError, transition_from_wire, transition_to_wire, within};

type Responses = BoxStream<'static, Result<wire::PresenceResponse, Status>>;

/// Takes the place of an older stream. The first answer names the reading that the member waits for.
pub(super) async fn open(
    member: MemberHandle,
    requests: Streaming<wire::PresenceRequest>,
) -> Result<Responses, Status> {
    let (done, opened) = oneshot::channel();
    member.send(Command::Presence(done)).await?;
    let (presence, emitted) = opened.await.map_err(|_| ended())?;
    let (failed, has_failed) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Err(status) = read(&member, presence, requests).await {
            // An error means that the answers have ended already.
            drop(failed.send(status).await);
        }
    });
    let responses = stream::unfold(Some((emitted, has_failed)), |halves| async {
        let (mut emitted, mut has_failed) = halves?;
        tokio::select! {
            // The requests' end, good or bad, ends the answers.
            status = has_failed.recv() => status.map(|status| (Err(status), None)),
            emitted_now = emitted.recv() => {
                emitted_now.map(|emitted_now| (Ok(response(emitted_now)), Some((emitted, has_failed))))
            }
        }
    });
    Ok(responses.boxed())
}

fn response(emitted: Emitted) -> wire::PresenceResponse {
    let transitions = emitted.transitions.into_iter().map(transition_to_wire).collect();
    wire::PresenceResponse { reading: emitted.reading, transitions }
}

async fn read(
    member: &MemberHandle,
    presence: u64,
    mut requests: Streaming<wire::PresenceRequest>,
) -> Result<(), Status> {
    while let Some(request) = requests.message().await? {
        within(&request.records, limits::TRANSITIONS_BATCH_LIMIT, "records")?;
        let records = request.records.iter().map(transition_from_wire);
        let records = records.collect::<Result<Vec<_>, MessageError>>()?;
        let records = Records { reading: request.reading, records, caught_up: request.caught_up };
        member.send(Command::Records(presence, records)).await?;
    }
    Ok(())
}
