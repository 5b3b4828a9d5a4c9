//! Who follows a channel: asked of the nodes that have it, capped and paged, and the answer used again for a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tidegate_link::{Held, NodeAnswer, NodeAsk, OccupantsPage};
use tidegate_vocab::{Channel, ErrorKind, Incarnation, Problem, UserId, limits};

use super::nodes_of;
use crate::Router;

const CACHE_TIME: Duration = Duration::from_millis(limits::OCCUPANTS_CACHE_MS);

/// Which users are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OccupantsRequest {
    /// Of this channel.
    pub channel: Channel,
    /// Behind this user, in the order of their ids.
    pub after: Option<UserId>,
    /// At most so many.
    pub limit: usize,
}

/// A user that follows a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupant {
    /// Who.
    pub user: UserId,
    /// On how many nodes.
    pub nodes: u32,
    /// Over all of them.
    pub held: Held,
}

/// Who follows a channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Occupants {
    /// All connections that follow it.
    pub connections: u64,
    /// Those of them that have no user.
    pub anonymous: u64,
    /// Nodes that have some.
    pub nodes: u32,
    /// Nodes that may have some and did not answer: what they have is missing.
    pub unanswered: u32,
    /// In the order of their ids.
    pub users: Vec<Occupant>,
    /// There are more behind the last.
    pub has_more: bool,
}

/// Answers of the last second.
#[derive(Default)]
pub(crate) struct OccupantsCache(Mutex<HashMap<OccupantsRequest, (Instant, Arc<Occupants>)>>);

impl OccupantsCache {
    fn get(&self, request: &OccupantsRequest) -> Option<Arc<Occupants>> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, answer) = cache.get(request)?;
        (asked.elapsed() < CACHE_TIME).then(|| Arc::clone(answer))
    }

    fn put(&self, request: OccupantsRequest, asked: Instant, answer: &Arc<Occupants>) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= limits::OCCUPANTS_CACHE_LIMIT {
            cache.retain(|_, (asked, _)| asked.elapsed() < CACHE_TIME);
        }
        if cache.len() < limits::OCCUPANTS_CACHE_LIMIT {
            cache.insert(request, (asked, Arc::clone(answer)));
        }
    }
}

impl Router {
    /// Who follows a channel, as of a second ago at most.
    ///
    /// # Errors
    /// When the limit is none, or the channel is everyone's or a user's own.
    pub async fn occupants(&self, request: OccupantsRequest) -> Result<Arc<Occupants>, Problem> {
        if request.limit == 0 || request.limit > limits::OCCUPANTS_LIMIT {
            let detail = format!("limit must be 1 to {}", limits::OCCUPANTS_LIMIT);
            return Err(Problem::new(ErrorKind::BadRequest, detail));
        }
        if request.channel.is_reserved() {
            let detail = format!("{:?} is no channel that clients name", request.channel.as_str());
            return Err(Problem::new(ErrorKind::BadChannel, detail));
        }
        if let Some(answer) = self.occupants_cache.get(&request) {
            return Ok(answer);
        }
        let asked = Instant::now();
        let nodes = self.nodes_with(&request.channel).await?;
        let ask = NodeAsk::Occupants {
            channel: request.channel.clone(),
            after: request.after.clone(),
            limit: request.limit,
        };
        let answers = nodes.iter().map(|node| self.nodes.ask(*node, ask.clone()));
        let (mut pages, mut unanswered) = (Vec::new(), 0);
        for answer in join_all(answers.collect::<Vec<_>>()).await {
            match answer {
                Ok(NodeAnswer::Occupants(page)) => pages.push(page),
                _ => unanswered += 1,
            }
        }
        let answer = Arc::new(Occupants { unanswered, ..occupants(pages, request.limit) });
        self.occupants_cache.put(request, asked, &answer);
        Ok(answer)
    }

    /// The registry knows of the channels whose namespace is announced. Where it knows of nobody, either nobody is there or
    /// the namespace is not announced: all are asked.
    async fn nodes_with(&self, channel: &Channel) -> Result<Vec<Incarnation>, Problem> {
        let found = self.find(vec![channel.clone()]).await?.pop().unwrap_or_default();
        Ok(if found.location.places.is_empty() { self.nodes.all() } else { nodes_of(&found) })
    }
}

/// One page of those of the nodes.
fn occupants(pages: Vec<OccupantsPage>, limit: usize) -> Occupants {
    let nodes = pages.iter().filter(|page| page.connections > 0).count() as u32;
    let mut nodes_of: HashMap<UserId, u32> = HashMap::new();
    for (user, _) in pages.iter().flat_map(|page| &page.users) {
        *nodes_of.entry(user.clone()).or_default() += 1;
    }
    let all = OccupantsPage::merged(pages, limit);
    let users = all.users.into_iter().map(|(user, held)| {
        let nodes = nodes_of.get(&user).copied().unwrap_or_default();
        Occupant { user, nodes, held }
    });
    Occupants {
        connections: all.connections,
        anonymous: all.anonymous,
        nodes,
        unanswered: 0,
        users: users.collect(),
        has_more: all.has_more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_on_two_nodes_is_one_occupant() {
        let page = |users: &[&str]| {
            let held = Held { connections: 1, transports: 1, since_s: 0 };
            let users: Vec<_> = users.iter().map(|id| (UserId::parse(id).expect("valid"), held)).collect();
            OccupantsPage { connections: users.len() as u64, users, ..OccupantsPage::default() }
        };
        let all = occupants(vec![page(&["a"]), page(&["a", "b"]), page(&[])], 10);
        assert_eq!((all.connections, all.nodes), (3, 2), "the third has none");
        let found: Vec<_> =
            all.users.iter().map(|it| (it.user.to_string(), it.nodes, it.held.connections)).collect();
        assert_eq!(found, [("a".to_owned(), 2, 2), ("b".to_owned(), 1, 1)]);
    }
}
