//! Which router holds the streams to members, and which members there are.
//!
//! It is the one that serves partition 0 of `events`: the assignment is Kafka's, and that two may think so for a moment
//! is harmless, because a member heeds its newest stream only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_registry::{MemberId, Members};
use tidegate_vocab::{PartitionId, Topic};
use tokio::task::AbortHandle;

use super::stream::MemberStream;
use crate::Router;
use crate::partition::Phase;

/// Whoever serves it holds the streams.
const DECIDES: PartitionId = PartitionId { topic: Topic::Events, number: 0 };
/// Between two looks at who that is, and at the member list.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A stream that is kept to one member. Ends when it is dropped.
struct Held {
    address: String,
    task: AbortHandle,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Router {
    /// Keeps a stream to every member while this router is the one; until the shutdown.
    pub(crate) async fn hold_presence(self: Arc<Self>, members: Members) {
        let mut held: BTreeMap<MemberId, Held> = BTreeMap::new();
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.closed() => return,
                _ = looks.tick() => {}
            }
            let wanted =
                if self.holds_presence() { members.lists.borrow().members.clone() } else { Vec::new() };
            held.retain(|id, held| {
                let is_listed =
                    wanted.iter().any(|member| member.id == *id && member.address == held.address);
                is_listed && !held.task.is_finished()
            });
            for member in wanted {
                held.entry(member.id).or_insert_with(|| {
                    let stream = MemberStream {
                        context: Arc::clone(&self.context),
                        tail: self.presence.tail(&self.context),
                        turns: Arc::clone(&self.presence.turns),
                        member: member.id,
                        address: member.address.clone(),
                        key: members.key.clone(),
                    };
                    Held { address: member.address, task: tokio::spawn(stream.run()).abort_handle() }
                });
            }
        }
    }

    fn holds_presence(&self) -> bool {
        let state = self.state();
        let decides = state.partitions.get(&DECIDES);
        decides
            .is_some_and(|partition| !partition.is_released() && partition.status.phase() == Phase::Serving)
    }
}
