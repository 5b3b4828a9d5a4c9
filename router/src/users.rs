//! What is addressed to users now: direct messages, disconnects, and where a user is.
//!
//! One hop: the registry says on which nodes a user is, and these nodes are asked; besides them every attached node about
//! which the answering member was not current, so that a ring in change or a member that died costs questions, never a
//! user (invariant 18). Without a registry all attached nodes are asked. At most once: nothing is put again.

mod check;
mod occupants;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use tidegate_link::{Held, NodeAnswer, NodeAsk, Reached};
use tidegate_registry::{Found, Transports};
use tidegate_vocab::{Channel, ErrorKind, Event, Incarnation, Problem, UserId, limits};

use crate::Router;
use crate::publish::{Data, PublishRequest, Target};
pub(crate) use check::parse_user;
pub(crate) use occupants::OccupantsCache;
pub use occupants::{Occupant, Occupants, OccupantsRequest};

/// What became of a direct message to one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// Nodes to which it was sent.
    pub routed: u32,
    /// Connections that took it.
    pub accepted: u32,
    /// Of these, connections whose socket has taken all of it.
    pub written: u32,
    /// Nodes that may have the user and did not answer: whether it reached them is not known.
    pub unanswered: u32,
}

/// Where a user is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Whereabouts {
    /// The nodes, by name.
    pub places: Vec<Whereabout>,
    /// Nodes that may have the user and did not answer.
    pub unanswered: u32,
}

/// A user on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabout {
    /// The node's process start.
    pub node: Incarnation,
    /// What operators call it; empty when it is attached to another router only.
    pub name: String,
    /// What it has of the user.
    pub held: Held,
}

/// The names of the transports in a registry's bits.
#[must_use]
pub fn transport_names(bits: u8) -> Vec<&'static str> {
    let all = [
        (Transports::WEBSOCKET, "ws"),
        (Transports::SSE, "sse"),
        (Transports::STREAM, "ndjson"),
        (Transports::POLL, "poll"),
    ];
    all.into_iter().filter(|(transport, _)| bits & transport.0 != 0).map(|(_, name)| name).collect()
}

impl Router {
    /// Hands an event to the connections that its users have now, without the log.
    ///
    /// # Errors
    /// When the message itself is wrong; what became of it is said per user, in their order.
    pub async fn direct(&self, request: PublishRequest) -> Result<Vec<(String, Told)>, Problem> {
        let begun = Instant::now();
        let outcome = self.direct_in_one_hop(request).await;
        let code = outcome.as_ref().err().map(|problem| problem.kind);
        self.context.metrics.direct(code, begun.elapsed());
        if let Ok(told) = &outcome {
            let reached = told.iter().filter(|(_, told)| told.accepted > 0).count();
            self.context.metrics.direct_users(reached, told.len() - reached);
        }
        outcome
    }

    async fn direct_in_one_hop(&self, request: PublishRequest) -> Result<Vec<(String, Told)>, Problem> {
        let draft = check::direct(request)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let channels: Vec<Channel> = draft.users.iter().map(Channel::of_user).collect();
        let found = self.find(channels.clone()).await?;
        let telling = channels.into_iter().zip(found).map(|(channel, found)| {
            let event = Arc::new(Event {
                channel,
                name: draft.name.clone(),
                payload: draft.payload.clone(),
                time_ms: now.as_millis() as u64,
                offset: None,
                expires_ms: None,
                trace: draft.trace,
            });
            self.tell(found, NodeAsk::Direct(event))
        });
        // Begun as there is room, so that a call does not fill the queue of one node by itself.
        let telling: Vec<_> = telling.collect();
        let told = stream::iter(telling).buffered(limits::DIRECT_IN_FLIGHT_LIMIT).collect::<Vec<_>>().await;
        Ok(draft.users.iter().map(ToString::to_string).zip(told).collect())
    }

    async fn tell(&self, found: Found, ask: NodeAsk) -> Told {
        let nodes = nodes_of(&found);
        let asked = nodes.iter().map(|node| self.nodes.ask(*node, ask.clone()));
        let mut told = Told::default();
        for answer in join_all(asked.collect::<Vec<_>>()).await {
            match answer {
                Ok(NodeAnswer::Direct(Reached { accepted, written })) => {
                    told.routed += 1;
                    told.accepted += accepted;
                    told.written += written;
                }
                Ok(NodeAnswer::Disconnected(count)) => {
                    told.routed += 1;
                    told.accepted += count;
                }
                Ok(_) => told.unanswered += 1,
                Err(problem) => {
                    tracing::debug!(%problem, "node did not answer");
                    told.unanswered += 1;
                }
            }
        }
        if told.accepted == 0 {
            told.unanswered += self.nodes.may_be_missing();
        }
        told
    }

    /// Closes the user's connections, wherever they are now. Nothing keeps the user from coming back.
    ///
    /// # Errors
    /// When the reason is too long, or the registry cannot be asked.
    pub async fn disconnect(&self, user: &UserId, reason: &str) -> Result<Told, Problem> {
        let reason = check::reason(reason)?;
        let found = self.find(vec![Channel::of_user(user)]).await?.pop().unwrap_or_default();
        let told = self.tell(found, NodeAsk::Disconnect { user: user.clone(), reason }).await;
        self.context.metrics.disconnects.inc_by(u64::from(told.accepted));
        Ok(told)
    }

    /// Where a user is: what the registry says, and where it cannot be sure, what the nodes themselves say.
    ///
    /// # Errors
    /// When too many lookups wait.
    pub async fn locate_user(&self, user: &UserId) -> Result<Whereabouts, Problem> {
        let subject = Channel::of_user(user);
        let found = self.find(vec![subject.clone()]).await?.pop().unwrap_or_default();
        let mut held: BTreeMap<Incarnation, Held> = BTreeMap::new();
        for place in &found.location.places {
            let (connections, since_s) = (place.state.connections, place.state.since_s);
            let transports = place.state.transports.0;
            held.insert(place.node, Held { connections, transports, since_s });
        }
        let asked = found.also.iter().map(|node| self.nodes.ask(*node, NodeAsk::Holding(subject.clone())));
        let mut unanswered = 0;
        for (node, answer) in found.also.iter().zip(join_all(asked.collect::<Vec<_>>()).await) {
            match answer {
                Ok(NodeAnswer::Holding(Some(here))) => drop(held.insert(*node, here)),
                Ok(NodeAnswer::Holding(None)) => drop(held.remove(node)),
                _ => unanswered += 1,
            }
        }
        let mut places: Vec<_> = held
            .into_iter()
            .map(|(node, held)| Whereabout { node, name: self.nodes.name(node).unwrap_or_default(), held })
            .collect();
        if places.is_empty() {
            unanswered += self.nodes.may_be_missing();
        }
        places.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Whereabouts { places, unanswered })
    }

    /// Whom to ask about these subjects, in their order.
    async fn find(&self, subjects: Vec<Channel>) -> Result<Vec<Found>, Problem> {
        match &self.locate {
            Some(locate) => locate.locate(subjects).await,
            None => {
                let also: Arc<[Incarnation]> = self.nodes.all().into();
                let found = || Found { also: Arc::clone(&also), ..Found::default() };
                Ok(subjects.iter().map(|_| found()).collect())
            }
        }
    }

    /// The gateways that this router can ask something now.
    #[must_use]
    pub fn list_nodes(&self) -> Vec<crate::ListedNode> {
        self.nodes.list()
    }

    /// Tells a node, named by its process start or by its name, to end as on SIGTERM.
    ///
    /// # Errors
    /// When no such node is attached, or the name is that of several.
    pub async fn drain_node(&self, name: &str) -> Result<Incarnation, Problem> {
        let meant = |node: &crate::nodes::ListedNode| {
            node.hello.name == name || node.hello.incarnation.to_string() == name
        };
        let nodes: Vec<_> = self.nodes.list().into_iter().filter(meant).collect();
        let node = match nodes.as_slice() {
            [one] => one.hello.incarnation,
            [] => {
                let detail = format!("no gateway {name:?} is attached; GET /v1/gateways lists them");
                return Err(Problem::new(ErrorKind::NotFound, detail));
            }
            _ => {
                let detail = format!("{} gateways are named {name:?}: give the incarnation", nodes.len());
                return Err(Problem::new(ErrorKind::BadRequest, detail));
            }
        };
        match self.nodes.ask(node, NodeAsk::Drain).await? {
            NodeAnswer::Draining => Ok(node),
            _ => Err(Problem::new(ErrorKind::Internal, "the node's answer is not of its form")),
        }
    }
}

/// Each once.
fn nodes_of(found: &Found) -> Vec<Incarnation> {
    let mut nodes: Vec<_> = found.location.places.iter().map(|place| place.node).collect();
    nodes.extend(found.also.iter());
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// A direct message as a publish is asked for: users only.
#[must_use]
pub fn direct_request(users: Vec<String>, event: Option<String>, data: Data) -> PublishRequest {
    let targets = users.into_iter().map(Target::User).collect();
    PublishRequest { targets, event, data, idempotency_key: None, ttl_ms: None, ephemeral: true, trace: None }
}
