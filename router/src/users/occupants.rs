//! Who follows a channel: asked of the nodes that have it, capped and paged, and the answer used again for a second.

use std::collections::{BTreeMap, HashMap};
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
        let mut pages = Pages::default();
        for answer in join_all(answers.collect::<Vec<_>>()).await {
            match answer {
                Ok(NodeAnswer::Occupants(page)) => pages.add(page),
                _ => pages.all.unanswered += 1,
            }
        }
        let answer = Arc::new(pages.merged(request.limit));
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

/// What the nodes answered, on its way into one page.
#[derive(Default)]
struct Pages {
    all: Occupants,
    users: BTreeMap<UserId, Occupant>,
    /// Behind the last user of a page that has more, nothing is known of that node.
    known_upto: Option<UserId>,
}

impl Pages {
    fn add(&mut self, page: OccupantsPage) {
        self.all.connections += page.connections;
        self.all.anonymous += page.anonymous;
        self.all.nodes += u32::from(page.connections > 0);
        if let (true, Some((last, _))) = (page.has_more, page.users.last()) {
            self.known_upto = Some(match self.known_upto.take() {
                Some(known) if known < *last => known,
                _ => last.clone(),
            });
        }
        for (user, held) in page.users {
            let new = Occupant { user: user.clone(), nodes: 0, held: Held::default() };
            let occupant = self.users.entry(user).or_insert(new);
            occupant.nodes += 1;
            occupant.held.connections += held.connections;
            occupant.held.transports |= held.transports;
        }
    }

    fn merged(self, limit: usize) -> Occupants {
        let Self { mut all, users, known_upto } = self;
        let known = |user: &UserId| known_upto.as_ref().is_none_or(|upto| user <= upto);
        all.has_more = known_upto.is_some() || users.len() > limit;
        all.users = users.into_iter().filter(|(user, _)| known(user)).map(|(_, it)| it).take(limit).collect();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(users: &[&str], has_more: bool) -> OccupantsPage {
        let user = |id: &&str| {
            let held = Held { connections: 1, transports: 1, since_s: 0 };
            (UserId::parse(id).expect("valid"), held)
        };
        let users: Vec<_> = users.iter().map(user).collect();
        OccupantsPage { connections: users.len() as u64 + 1, anonymous: 1, users, has_more }
    }

    fn merged(pages: &[OccupantsPage], limit: usize) -> (Vec<String>, bool) {
        let mut all = Pages::default();
        pages.iter().cloned().for_each(|page| all.add(page));
        let merged = all.merged(limit);
        (merged.users.iter().map(|occupant| occupant.user.to_string()).collect(), merged.has_more)
    }

    #[test]
    fn pages_of_several_nodes_make_one_page_without_a_hole() {
        let check = |pages: &[OccupantsPage], limit: usize, users: &[&str], has_more: bool| {
            let users: Vec<String> = users.iter().map(|id| (*id).to_owned()).collect();
            assert_eq!(merged(pages, limit), (users, has_more));
        };
        check(&[], 2, &[], false);
        check(&[page(&["a", "c"], false), page(&["b"], false)], 3, &["a", "b", "c"], false);
        check(&[page(&["a", "c"], false), page(&["b"], false)], 2, &["a", "b"], true);
        // The second node may have users between b and y: they would be missing in a page that went on to y.
        check(&[page(&["x", "y"], false), page(&["a", "b"], true)], 4, &["a", "b"], true);
        check(&[page(&["a", "z"], true), page(&["b", "c"], true)], 2, &["a", "b"], true);
    }

    #[test]
    fn a_user_on_two_nodes_is_one_occupant() {
        let mut all = Pages::default();
        all.add(page(&["a"], false));
        all.add(page(&["a", "b"], false));
        let merged = all.merged(10);
        assert_eq!((merged.connections, merged.anonymous, merged.nodes), (5, 2, 2));
        let found: Vec<_> =
            merged.users.iter().map(|it| (it.user.to_string(), it.nodes, it.held.connections)).collect();
        assert_eq!(found, [("a".to_owned(), 2, 2), ("b".to_owned(), 1, 1)]);
    }
}
