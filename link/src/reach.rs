//! The Reach stream: what is addressed to users *now* goes to the nodes that have them, without the log.
//!
//! A stream of its own beside Deliver, dialled by the node: a direct message must not wait behind history, and what a node
//! holds for want of a fresh word must not hold up a question about it. The router asks, the node answers by number. At
//! most once: a question that finds no room, or whose stream ends, is not put again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate_vocab::{Channel, Event, Incarnation, Problem, UserId, limits};
use tokio::sync::mpsc;

/// Who opens a Reach stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHello {
    /// The node's process start.
    pub incarnation: Incarnation,
    /// What operators call it: mostly the name of its pod or host.
    pub name: String,
    /// The version of its program.
    pub version: String,
}

/// Members of the registry that the node calls current: (process start of the member, digest of the ring).
pub type NodeWord = Vec<(Incarnation, u64)>;

/// How a node is, once a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeStatus {
    /// Client sockets that are open.
    pub connections: u64,
    /// Sockets beyond which it refuses.
    pub connections_limit: u64,
    /// It is being drained.
    pub is_draining: bool,
}

/// What a node says on the stream, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeSays {
    /// Its word on which members are current about it, whenever that changes.
    Word(NodeWord),
    /// How it is.
    Status(NodeStatus),
    /// What became of a question.
    Answer {
        /// The question's number.
        number: u64,
        /// The answer.
        answer: Result<NodeAnswer, Problem>,
    },
}

/// What a router says on the stream, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum RouterSays {
    /// The ring by which it looks users up.
    Ring(u64),
    /// A question.
    Ask {
        /// Its number on this stream; never used twice.
        number: u64,
        /// The question.
        ask: NodeAsk,
    },
}

/// What a router asks of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeAsk {
    /// Give this event, which has no offset and whose channel is the user's own, to the user's connections.
    Direct(Arc<Event>),
    /// Close the user's connections.
    Disconnect {
        /// Whose.
        user: UserId,
        /// What the clients are told, for people.
        reason: String,
    },
    /// What the node has of a subject: a channel, or a user's own channel.
    Holding(Channel),
    /// Who follows a channel.
    Occupants {
        /// The channel.
        channel: Channel,
        /// Users behind this one, in the order of their ids.
        after: Option<UserId>,
        /// At most so many users.
        limit: usize,
    },
    /// End as on SIGTERM: close all connections at the configured pace, then exit.
    Drain,
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAnswer {
    /// To a direct message.
    Direct(Reached),
    /// To a disconnect: so many connections are told to close.
    Disconnected(u32),
    /// What it has of the subject; nothing when it has none.
    Holding(Option<Held>),
    /// Who follows the channel.
    Occupants(OccupantsPage),
    /// The drain has begun, or had before.
    Draining,
}

/// How far a direct message got on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// Connections that took it: it is in their queue or further.
    pub accepted: u32,
    /// Of these, connections whose socket has taken all of it. Says nothing about the client.
    pub written: u32,
}

/// What a node has of a subject. The bits of the transports are those of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Open connections; 0 while only a poll lingers.
    pub connections: u32,
    /// Over which transports: 1 WebSocket, 2 Server-Sent Events, 4 HTTP streaming, 8 polling.
    pub transports: u8,
    /// Since when, seconds since the Unix epoch by the node's clock.
    pub since_s: u32,
}

/// Users that follow a channel on one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OccupantsPage {
    /// All connections that follow it here.
    pub connections: u64,
    /// Those of them that have no user.
    pub anonymous: u64,
    /// Users in the order of their ids, each once, with what they have here.
    pub users: Vec<(UserId, Held)>,
    /// There are more users behind the last.
    pub has_more: bool,
}

impl OccupantsPage {
    /// One page of several, each asked for with this limit: of shards, or of nodes. It has no hole: no user stands in it behind the
    /// last of a page that has more, since that page's shard or node may have others before.
    #[must_use]
    pub fn merged(pages: impl IntoIterator<Item = Self>, limit: usize) -> Self {
        let (mut all, mut users) = (Self::default(), BTreeMap::<UserId, Held>::new());
        let mut known_upto: Option<UserId> = None;
        for page in pages {
            all.connections += page.connections;
            all.anonymous += page.anonymous;
            if let (true, Some((last, _))) = (page.has_more, page.users.last()) {
                known_upto = Some(known_upto.map_or_else(|| last.clone(), |known| known.min(last.clone())));
            }
            for (user, held) in page.users {
                let sum = users.entry(user).or_default();
                sum.connections += held.connections;
                sum.transports |= held.transports;
            }
        }
        all.has_more = known_upto.is_some() || users.len() > limit;
        let known = |user: &UserId| known_upto.as_ref().is_none_or(|upto| user <= upto);
        all.users = users.into_iter().filter(|(user, _)| known(user)).take(limit).collect();
        all
    }
}

/// The node's side of one Reach stream. Dropping it ends the stream.
#[derive(Debug)]
pub struct ReachStream {
    /// What the node says. Bounded.
    pub to_router: mpsc::Sender<NodeSays>,
    /// What the router says. Ends when the router ends the stream.
    pub from_router: ReachReceiver,
}

/// Where a router puts what it says to a node. Never waits.
#[derive(Debug, Clone)]
pub struct ReachSender {
    queue: mpsc::Sender<RouterSays>,
    bytes: Arc<AtomicUsize>,
}

/// The other end.
#[derive(Debug)]
pub struct ReachReceiver {
    queue: mpsc::Receiver<RouterSays>,
    bytes: Arc<AtomicUsize>,
}

/// Why something was not put: the node reads too slowly, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// Too much waits.
    Full,
    /// The stream has ended.
    Ended,
}

/// A queue for what a router says to one node, with limits in number and in bytes.
#[must_use]
pub fn reach_queue() -> (ReachSender, ReachReceiver) {
    let (sender, receiver) = mpsc::channel(limits::REACH_QUEUE_LIMIT);
    let bytes = Arc::new(AtomicUsize::new(0));
    (ReachSender { queue: sender, bytes: Arc::clone(&bytes) }, ReachReceiver { queue: receiver, bytes })
}

impl RouterSays {
    fn bytes(&self) -> usize {
        match self {
            Self::Ask { ask: NodeAsk::Direct(event), .. } => event.payload.bytes().len(),
            _ => 0,
        }
    }
}

impl ReachSender {
    /// Puts what is to be said.
    ///
    /// # Errors
    /// When there is no room, or nobody to hear it.
    pub fn put(&self, says: RouterSays) -> Result<(), NoRoom> {
        let bytes = says.bytes();
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let put = if bytes > 0 && before > limits::REACH_QUEUE_BYTES_LIMIT {
            Err(NoRoom::Full)
        } else {
            self.queue.try_send(says).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => NoRoom::Full,
                mpsc::error::TrySendError::Closed(_) => NoRoom::Ended,
            })
        };
        if put.is_err() {
            self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        }
        put
    }

    /// Completes once the node has let go of the stream.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }
}

impl ReachReceiver {
    /// What has been said, at most so many and little more than one message of the stream holds, waiting for the first; nothing
    /// once the stream has ended. Cancel-safe.
    pub async fn next(&mut self, limit: usize) -> Vec<RouterSays> {
        let Some(first) = self.queue.recv().await else { return Vec::new() };
        let (mut bytes, mut all) = (first.bytes(), vec![first]);
        while all.len() < limit && bytes < limits::DELIVER_BATCH_BYTES {
            let Ok(says) = self.queue.try_recv() else { break };
            bytes += says.bytes();
            all.push(says);
        }
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        all
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidegate_vocab::{EventName, Payload};

    use super::*;

    fn direct(bytes: usize) -> RouterSays {
        let user = UserId::parse("alice").expect("valid");
        let event = Event {
            channel: Channel::of_user(&user),
            name: EventName::MESSAGE,
            payload: Payload::Binary(Bytes::from(vec![7; bytes])),
            time_ms: 1,
            offset: None,
            expires_ms: None,
            trace: None,
        };
        RouterSays::Ask { number: 1, ask: NodeAsk::Direct(Arc::new(event)) }
    }

    fn page(users: &[&str], has_more: bool) -> OccupantsPage {
        let user = |id: &&str| {
            let held = Held { connections: 1, transports: 1, since_s: 0 };
            (UserId::parse(id).expect("valid"), held)
        };
        let users: Vec<_> = users.iter().map(user).collect();
        OccupantsPage { connections: users.len() as u64 + 1, anonymous: 1, users, has_more }
    }

    #[test]
    fn several_pages_make_one_page_without_a_hole() {
        let check = |pages: &[OccupantsPage], limit: usize, users: &[&str], has_more: bool| {
            let merged = OccupantsPage::merged(pages.iter().cloned(), limit);
            let found: Vec<String> = merged.users.iter().map(|(user, _)| user.to_string()).collect();
            assert_eq!((found, merged.has_more), (users.iter().map(ToString::to_string).collect(), has_more));
        };
        check(&[], 2, &[], false);
        check(&[page(&["a", "c"], false), page(&["b"], false)], 3, &["a", "b", "c"], false);
        check(&[page(&["a", "c"], false), page(&["b"], false)], 2, &["a", "b"], true);
        // The second may have users between b and y: they would be missing in a page that went on to y.
        check(&[page(&["x", "y"], false), page(&["a", "b"], true)], 4, &["a", "b"], true);
        check(&[page(&["a", "z"], true), page(&["b", "c"], true)], 2, &["a", "b"], true);
        let merged = OccupantsPage::merged([page(&["a"], false), page(&["a", "b"], false)], 10);
        assert_eq!((merged.connections, merged.anonymous, merged.users.len()), (5, 2, 2));
        assert_eq!(merged.users[0].1.connections, 2, "who stands in two is one");
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_come_free_when_they_are_taken() {
        let (sender, mut receiver) = reach_queue();
        let of_64k = limits::REACH_QUEUE_BYTES_LIMIT / 65_536;
        for _ in 0..=of_64k {
            assert_eq!(sender.put(direct(65_536)), Ok(()));
        }
        assert_eq!(sender.put(direct(1)), Err(NoRoom::Full));
        assert_eq!(sender.put(RouterSays::Ring(7)), Ok(()), "what weighs nothing goes on");
        let batch = receiver.next(128).await;
        assert_eq!(batch.len(), limits::DELIVER_BATCH_BYTES / 65_536, "no more than a message holds");
        assert_eq!(sender.put(direct(1)), Ok(()));
        drop(receiver);
        assert_eq!(sender.put(direct(1)), Err(NoRoom::Ended));
    }
}
