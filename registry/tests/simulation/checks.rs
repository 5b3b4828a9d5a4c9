//! The promises, and what is needed to judge them.

use std::collections::BTreeMap;

use tidegate_registry::{Found, Online, Presence, SubjectKind, Transition};

use crate::world::{
    DEBOUNCE_MS, NodeAt, RingOf, SLOW_MS_LIMIT, STEP_MS_LIMIT, Truth, UserAt, WORD_MS_LIMIT, World,
};

/// A broken promise, by name.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) promise: &'static str,
    pub(crate) detail: String,
}

pub(crate) type Check = Result<(), Violation>;

pub(crate) fn hold(holds: bool, promise: &'static str, detail: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Violation { promise, detail: detail() }) }
}

/// From when on a user must be found: the lag that a node tolerates, a step of its task, and its word on the way.
pub(crate) const FOUND_MS: u64 = 100 + 2 * STEP_MS_LIMIT + WORD_MS_LIMIT + 10;
/// Until when a user may be named: messages on the way (a full window of a slow stream included), the lease by the slowest
/// clock, and steps.
pub(crate) const GONE_MS: u64 = 3 * SLOW_MS_LIMIT + 3_000 * 100 / 95 + 6 * STEP_MS_LIMIT;

/// A lookup as it was begun.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) at_ms: u64,
    pub(crate) users: Vec<UserAt>,
    /// Nodes that were attached then.
    pub(crate) attached: Vec<NodeAt>,
}

impl World {
    /// A result against the truth.
    pub(crate) fn judge_lookup(&mut self, router: usize, begun: &Begun, found: &[Found]) -> Check {
        for (user, found) in begun.users.iter().zip(found) {
            for node in begun.attached.iter().copied() {
                let is_attached = self.routers[router].attached.contains(&node);
                let since = self.nodes[node].users.get(user).map(|truth| truth.since_ms);
                let is_due = since.is_some_and(|since| since + FOUND_MS <= begun.at_ms);
                if !(self.nodes[node].is_alive && is_attached && is_due) {
                    continue;
                }
                let incarnation = self.nodes[node].incarnation;
                let is_found = found.also.contains(&incarnation)
                    || found.location.places.iter().any(|place| place.node == incarnation);
                hold(is_found, "connected_is_found", || {
                    format!("user {user} on node {node} since {since:?}, asked at {}: {found:?}", begun.at_ms)
                })?;
            }
            for place in &found.location.places {
                let node = self.node_of(place.node);
                let last = self.last_seen(node, *user);
                let may_be = last.is_some_and(|last| last + GONE_MS >= begun.at_ms);
                hold(may_be, "gone_is_not_located", || {
                    format!("user {user} on node {node}, last seen {last:?}, asked at {}", begun.at_ms)
                })?;
            }
            let what = if found.also.is_empty() && !begun.attached.is_empty() {
                "a lookup was exact"
            } else if found.location.places.is_empty() && found.also.len() >= begun.attached.len() {
                "a lookup went to all nodes"
            } else {
                "a lookup was completed by nodes"
            };
            self.see(what);
        }
        Ok(())
    }

    /// When a user was last there, by the truth: now if it still is.
    fn last_seen(&self, node: NodeAt, user: UserAt) -> Option<u64> {
        let node = &self.nodes[node];
        if node.is_alive && node.users.contains_key(&user) {
            return Some(self.now_ms);
        }
        node.left.get(&user).copied()
    }

    /// Notes whom a member must know to be connected: the node counts it as current, and the lag is over.
    pub(crate) fn note_known(&mut self) {
        for node in self.nodes.iter().filter(|node| node.is_alive) {
            let said = node.announcer.said();
            let must_be_known = |truth: &&Truth| truth.since_ms + 100 + 2 * STEP_MS_LIMIT <= self.now_ms;
            for (user, _) in node.users.iter().filter(|(_, truth)| must_be_known(truth)) {
                for current in &said {
                    let home = |ring: &RingOf| {
                        ring.ring.digest() == current.digest
                            && ring.homes[*user]
                                .iter()
                                .any(|member| self.members[*member].incarnation == current.member)
                    };
                    if self.rings.iter().any(home) {
                        self.known.insert((current.member, *user), self.now_ms);
                    }
                }
            }
        }
    }

    /// A transition that a member gives out.
    pub(crate) fn judge_transition(&mut self, member: usize, transition: &Transition) -> Check {
        let user = self.user_of(&transition.subject);
        let ring = &self.rings[self.members[member].ring];
        hold(ring.homes[user].first() == Some(&member), "only_the_primary_emits", || {
            format!("member {member}: {transition:?}, {:?}", ring.homes[user])
        })?;
        // A repeat was true when it was first given out, and what followed it follows again.
        if !self.given.insert((transition.emitter, transition.number)) {
            return Ok(());
        }
        self.see(if transition.presence == Presence::Online { "said online" } else { "said offline" });
        if transition.presence == Presence::Offline {
            let known_ms = self.known.get(&(transition.emitter, user)).copied().unwrap_or_default();
            hold(known_ms != self.now_ms, "no_offline_while_connected", || {
                format!("user {user}, at {}: {transition:?}", self.now_ms)
            })?;
            let debounce_ms = DEBOUNCE_MS * 100 / 106 - 2 * STEP_MS_LIMIT;
            hold(known_ms == 0 || known_ms + debounce_ms <= self.now_ms, "debounce_is_kept", || {
                format!("user {user} was known at {known_ms}, offline at {}", self.now_ms)
            })?;
        }
        Ok(())
    }

    /// Where nothing made a member unsure of what was said, every record changes its user's state.
    pub(crate) fn judge_topic(&self) -> Check {
        if self.is_unsure {
            return Ok(());
        }
        let mut states = BTreeMap::new();
        let mut numbers = BTreeMap::new();
        for record in &self.topic {
            if numbers.insert((record.emitter, record.number), ()).is_some() {
                continue;
            }
            let before = states.insert(record.subject.clone(), record.presence).unwrap_or(Presence::Offline);
            hold(before != record.presence, "nothing_is_said_twice", || format!("{record:?}"))?;
        }
        Ok(())
    }

    /// What must be true once everything has healed for a lease and a debounce.
    pub(crate) fn judge_settled(&mut self) -> Check {
        self.judge_topic()?;
        let mut online = Online::default();
        for user in 0..self.names.len() {
            let is_somewhere = self.nodes.iter().any(|node| node.is_alive && node.users.contains_key(&user));
            match SubjectKind::of(&self.names[user]) {
                SubjectKind::User => online.users += u64::from(is_somewhere),
                SubjectKind::Channel => online.channels += u64::from(is_somewhere),
            }
            let last = self.topic.iter().rev().find(|record| record.subject == self.names[user]);
            let said = last.is_some_and(|record| record.presence == Presence::Online);
            hold(said == is_somewhere, "topic_is_true", || {
                format!("user {user} is online: {is_somewhere}, the topic says {last:?}")
            })?;
        }
        let mut counted = Online::default();
        for member in self.members_of_the_ring() {
            let of = self.members[member].machine().online();
            counted.users += of.users;
            counted.channels += of.channels;
        }
        hold(counted == online, "online_adds_up", || format!("{counted:?} counted, {online:?} online"))?;
        self.judge_members()
    }

    fn judge_members(&mut self) -> Check {
        let ring = self.rings.last().expect("a ring");
        for member in self.members_of_the_ring() {
            let machine = self.members[member].machine();
            let is_home = |user: &UserAt| ring.homes[*user].contains(&member);
            let alive = || self.nodes.iter().filter(|node| node.is_alive);
            let listed = machine.nodes();
            hold(listed.len() == alive().count(), "nodes_are_counted", || {
                format!("member {member}: {listed:?}")
            })?;
            for node in alive() {
                let expected = node.users.keys().filter(|user| is_home(user)).count();
                let users = listed
                    .iter()
                    .find(|info| info.node == node.incarnation)
                    .map(|info| info.subjects as usize);
                hold(users == Some(expected), "nodes_are_counted", || {
                    format!("member {member}: {expected} expected of {:?}: {listed:?}", node.incarnation)
                })?;
            }
            let locations = machine.table().locate(&self.names);
            for (user, location) in locations.iter().enumerate().filter(|(user, _)| is_home(user)) {
                let here: Vec<_> = alive()
                    .filter(|node| node.users.contains_key(&user))
                    .map(|node| node.incarnation)
                    .collect();
                let mut said: Vec<_> = location.places.iter().map(|place| place.node).collect();
                said.sort_unstable_by_key(|node| here.iter().position(|it| it == node));
                hold(said == here, "answers_are_exact", || {
                    format!("member {member}, user {user}: {said:?}, {here:?}")
                })?;
            }
        }
        Ok(())
    }
}
