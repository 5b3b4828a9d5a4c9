//! A node's side: what it has, what each member has heard of it, and which members are current.
//!
//! Sans-io. Whoever owns an `Announcer` dials the members it [wants](Announcer::wanted), passes on what they say, and after every
//! call asks for batches and for the node's word on who is current. What waits for a slow member is a set of subjects,
//! never a list of messages: a batch is built from what is true when it leaves.

mod link;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tidegate_vocab::{Channel, Incarnation, limits};

use crate::frame::{Batch, Current, Hello, Holding, Transports, Update};
use crate::ring::{MemberId, REPLICAS, Ring};
use link::{Link, Stream};

/// Subjects for which there is room, however few there are.
const KEPT: usize = 1_024;

/// How many connections a subject has on a node: those of a user, or those that follow a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Open connections and waiting polls.
    pub connections: u32,
    /// Their transports.
    pub transports: Transports,
    /// For how long the subject stays present without a connection, in milliseconds: for a poller its wait and 10 s, else 0.
    pub linger_ms: u64,
}

/// What the node has of a subject, and what of that it has announced.
#[derive(Debug)]
struct Known {
    announced_ms: u64,
    /// Of one that has stayed without a connection.
    linger: Option<Box<Linger>>,
    state: Holding,
    /// A count waits for its second.
    is_due: bool,
}

// A node has one for each user.
const _: () = assert!(size_of::<(Channel, Known)>() == 40);

/// How long a subject stays between two polls.
#[derive(Debug, Default)]
struct Linger {
    /// Until when it stays without a connection.
    until_ms: Option<u64>,
    /// For when there is a reminder of that: one at a time, however often it is prolonged.
    due_ms: Option<u64>,
}

/// A node's side of the registry. See the module.
#[derive(Debug)]
pub struct Announcer {
    node: Incarnation,
    address: String,
    /// Those that an attached router may speak, the newest last. Never empty.
    rings: Vec<Arc<Ring>>,
    subjects: HashMap<Channel, Known, foldhash::fast::RandomState>,
    links: BTreeMap<MemberId, Link>,
    /// When something about a subject is due: a count, or a linger's end.
    due: BTreeMap<(u64, u64), Channel>,
    dues: u64,
    /// The rings of the attached routers, as far as is known.
    spoken: Vec<u64>,
    said: BTreeSet<Current>,
}

impl Announcer {
    /// A node that has nothing.
    #[must_use]
    pub fn new(node: Incarnation, address: String, ring: Arc<Ring>) -> Self {
        let mut announcer = Self {
            node,
            address,
            rings: vec![ring],
            subjects: HashMap::default(),
            links: BTreeMap::new(),
            due: BTreeMap::new(),
            dues: 0,
            spoken: Vec::new(),
            said: BTreeSet::new(),
        };
        announcer.meet_members();
        announcer
    }

    /// The members to which a stream is to be open.
    pub fn wanted(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.links.iter().filter(|(_, link)| link.is_wanted).map(|(member, _)| *member)
    }

    /// The members to which no stream is open or being opened.
    #[must_use]
    pub fn unlinked(&self) -> Vec<MemberId> {
        self.links.iter().filter(|(_, link)| link.needs_stream()).map(|(member, _)| *member).collect()
    }

    /// Every member has heard and acknowledged everything: what is due next is a lease's renewal, or a subject's second.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.links.values().filter(|link| link.is_wanted).all(Link::is_calm)
    }

    /// The members that a subject's key has under all rings in use.
    fn homes(&self, subject: &Channel) -> Vec<MemberId> {
        homes(&self.rings, subject)
    }

    fn meet_members(&mut self) {
        let members: BTreeSet<MemberId> = self.rings.iter().flat_map(|ring| ring.members()).collect();
        for link in self.links.values_mut() {
            link.is_wanted = false;
        }
        for member in members {
            self.links.entry(member).or_default().is_wanted = true;
        }
        for link in self.links.values_mut().filter(|link| !link.is_wanted) {
            link.hang_up();
        }
    }

    /// How many connections a subject has now. The first and the last are announced at once, other counts at most once a second.
    pub fn count(&mut self, subject: &Channel, count: Count, unix_s: u32, now_ms: u64) {
        let linger_until_ms = now_ms + count.linger_ms;
        let Some(known) = self.subjects.get_mut(subject) else {
            if count.connections > 0 || count.linger_ms > 0 {
                self.appear(subject, count, unix_s, now_ms);
            }
            return;
        };
        if count.connections == 0 {
            if count.linger_ms > 0 {
                // A poll between two: nothing is announced, or every poll would cost two announcements.
                let linger = known.linger.get_or_insert_default();
                linger.until_ms = Some(linger_until_ms);
                if linger.due_ms.is_none_or(|due_ms| due_ms > linger_until_ms) {
                    linger.due_ms = Some(linger_until_ms);
                    self.remind(linger_until_ms, subject);
                }
            } else {
                self.disappear(subject, now_ms);
            }
            return;
        }
        if let Some(linger) = &mut known.linger {
            linger.until_ms = None;
        }
        let new = Holding { connections: count.connections, transports: count.transports, ..known.state };
        if known.state == new {
            return;
        }
        known.state = new;
        let due_ms = known.announced_ms + limits::REGISTRY_COUNT_INTERVAL_MS;
        if due_ms <= now_ms {
            known.announced_ms = now_ms;
            self.announce(subject, now_ms);
        } else if !std::mem::replace(&mut known.is_due, true) {
            self.remind(due_ms, subject);
        }
    }

    fn appear(&mut self, subject: &Channel, count: Count, unix_s: u32, now_ms: u64) {
        let state = Holding { connections: count.connections, transports: count.transports, since_s: unix_s };
        let lingers = count.connections == 0;
        let linger_until_ms = lingers.then_some(now_ms + count.linger_ms);
        let linger =
            linger_until_ms.map(|_| Box::new(Linger { until_ms: linger_until_ms, due_ms: linger_until_ms }));
        let new = Known { state, linger, announced_ms: now_ms, is_due: false };
        self.subjects.insert(subject.clone(), new);
        if let Some(until_ms) = linger_until_ms {
            self.remind(until_ms, subject);
        }
        self.announce(subject, now_ms);
    }

    fn disappear(&mut self, subject: &Channel, now_ms: u64) {
        self.subjects.remove(subject);
        if self.subjects.capacity() > KEPT && self.subjects.len() * 8 < self.subjects.capacity() {
            self.subjects.shrink_to(self.subjects.len() * 2); // After a burst.
        }
        self.announce(subject, now_ms);
    }

    fn remind(&mut self, due_ms: u64, subject: &Channel) {
        self.dues += 1;
        self.due.insert((due_ms, self.dues), subject.clone());
    }

    /// Every member of the subject's key is to hear of it.
    fn announce(&mut self, subject: &Channel, now_ms: u64) {
        for member in self.homes(subject) {
            if let Some(stream) = self.links.get_mut(&member).and_then(|link| link.stream.as_mut()) {
                stream.push(subject, now_ms);
            }
        }
    }

    /// Does what has become due. To be called a few times a second at least.
    pub fn tick(&mut self, now_ms: u64) {
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now_ms) {
            let ((at_ms, _), subject) = first.remove_entry();
            let Some(known) = self.subjects.get_mut(&subject) else { continue };
            let until_ms = known.linger.as_ref().and_then(|linger| linger.until_ms);
            if until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
                self.disappear(&subject, now_ms);
                continue;
            }
            if let Some(linger) = known.linger.as_mut().filter(|linger| linger.due_ms == Some(at_ms)) {
                linger.due_ms = linger.until_ms;
                match until_ms {
                    Some(until_ms) => self.remind(until_ms, &subject),
                    None => known.linger = None,
                }
            }
            let Some(known) = self.subjects.get_mut(&subject) else { continue };
            let counts_at_ms = known.announced_ms + limits::REGISTRY_COUNT_INTERVAL_MS;
            if known.is_due && counts_at_ms <= now_ms {
                known.is_due = false;
                known.announced_ms = now_ms;
                self.announce(&subject, now_ms);
            }
        }
    }

    /// A newer member list. Users are announced under the old rings too until [`routers_speak`](Self::routers_speak) says that
    /// nobody needs them.
    pub fn set_ring(&mut self, ring: Arc<Ring>, now_ms: u64) {
        let digest = ring.digest();
        if self.rings.last().is_some_and(|newest| newest.digest() == digest) {
            return;
        }
        let before = self.rings.clone();
        // A ring that comes back becomes the newest.
        self.rings.retain(|known| known.digest() != digest);
        if self.rings.len() == limits::RINGS_LIMIT {
            self.rings.remove(0);
        }
        self.rings.push(ring);
        self.meet_members();
        self.announce_moved(&before, now_ms);
        let newest: BTreeSet<MemberId> =
            self.rings.last().into_iter().flat_map(|ring| ring.members()).collect();
        for (_, link) in self.links.iter_mut().filter(|(member, _)| newest.contains(member)) {
            link.begin_ring(digest);
        }
        self.drop_rings(now_ms);
    }

    /// The rings of all attached routers, whenever that changes. What is not the newest and nobody speaks is dropped; while no
    /// router is attached, nothing is.
    pub fn routers_speak(&mut self, digests: &[u64], now_ms: u64) {
        self.spoken = digests.to_vec();
        self.drop_rings(now_ms);
    }

    fn drop_rings(&mut self, now_ms: u64) {
        let Self { rings, spoken, .. } = self;
        let newest = rings.last().map(|ring| ring.digest());
        let is_needed = |ring: &Arc<Ring>| Some(ring.digest()) == newest || spoken.contains(&ring.digest());
        if spoken.is_empty() || rings.iter().all(is_needed) {
            return;
        }
        let before = rings.clone();
        rings.retain(is_needed);
        self.announce_moved(&before, now_ms);
        self.meet_members();
    }

    /// Announces, or withdraws, where the rings differ.
    fn announce_moved(&mut self, before: &[Arc<Ring>], now_ms: u64) {
        for subject in self.subjects.keys() {
            let (old, new) = (homes(before, subject), homes(&self.rings, subject));
            let only = |these: &[MemberId], others: &[MemberId]| -> Vec<MemberId> {
                these.iter().filter(|member| !others.contains(member)).copied().collect()
            };
            for member in only(&old, &new).into_iter().chain(only(&new, &old)) {
                if let Some(stream) = self.links.get_mut(&member).and_then(|link| link.stream.as_mut()) {
                    stream.push(subject, now_ms);
                }
            }
        }
    }

    /// A stream to the member is being opened: what to say first, and the number by which this stream is known. `None` if no
    /// ring has the member any more.
    pub fn hello(&mut self, member: MemberId) -> Option<(Hello, u64)> {
        let digest = self.rings.last()?.digest();
        let session = self.links.get_mut(&member).filter(|link| link.is_wanted)?.dial();
        Some((Hello { node: self.node, digest, address: self.address.clone() }, session))
    }

    /// The member answered. A full snapshot follows.
    pub fn opened(&mut self, member: MemberId, session: u64, incarnation: Incarnation, now_ms: u64) {
        if self.links.get(&member).is_none_or(|link| !link.is_wanted || link.session != session) {
            return;
        }
        let mut stream = Stream::new(incarnation, now_ms);
        for subject in self.subjects.keys().filter(|subject| self.homes(subject).contains(&member)) {
            stream.push(subject, now_ms);
        }
        stream.end_of_snapshot();
        for ring in self.rings.iter().filter(|ring| ring.members().any(|it| it == member)) {
            stream.begin_ring(ring.digest());
        }
        if let Some(link) = self.links.get_mut(&member) {
            link.stream = Some(stream);
        }
    }

    /// The member applied everything up to this batch.
    pub fn acked(&mut self, member: MemberId, session: u64, seq: u64) {
        if let Some(stream) = self.stream(member, session) {
            stream.acked(seq);
        }
    }

    /// The stream ended, or could not be opened.
    pub fn closed(&mut self, member: MemberId, session: u64) {
        if let Some(link) = self.links.get_mut(&member).filter(|link| link.session == session) {
            link.hang_up();
        }
    }

    /// Streams whose member has acknowledged nothing for a lease: end them and dial anew.
    #[must_use]
    pub fn stuck(&self, now_ms: u64) -> Vec<(MemberId, u64)> {
        let streams =
            self.links.iter().filter_map(|(member, link)| Some((member, link, link.stream.as_ref()?)));
        let stuck = streams.filter(|(_, _, stream)| stream.is_stuck(now_ms));
        stuck.map(|(member, link, _)| (*member, link.session)).collect()
    }

    fn stream(&mut self, member: MemberId, session: u64) -> Option<&mut Stream> {
        self.links.get_mut(&member).filter(|link| link.session == session)?.stream.as_mut()
    }

    /// The next batch for the stream, if there is something to say and few are on the way.
    pub fn next_batch(&mut self, member: MemberId, session: u64, now_ms: u64) -> Option<Batch> {
        let Self { links, subjects, rings, .. } = self;
        let link = links.get_mut(&member).filter(|link| link.session == session)?;
        let to_say = link.stream.as_mut()?.take(now_ms)?;
        let update = |subject: Channel| {
            let known = subjects.get(&subject).filter(|_| homes(rings, &subject).contains(&member));
            Update { state: known.map(|known| known.state), subject }
        };
        let updates = to_say.subjects.into_iter().map(update).collect();
        let seq = link.number(now_ms, to_say.oldest_ms)?;
        Some(Batch { seq, updates, ends_snapshot: to_say.ends_snapshot })
    }

    /// Which members are current about this node.
    fn current_now(&self, now_ms: u64) -> BTreeSet<Current> {
        let streams = self.links.values().filter_map(|link| link.stream.as_ref());
        streams.flat_map(|stream| stream.current(&self.rings, now_ms)).collect()
    }

    /// The node's word for its routers, when it differs from what was said last.
    pub fn current(&mut self, now_ms: u64) -> Option<Vec<Current>> {
        let current = self.current_now(now_ms);
        if current == self.said {
            return None;
        }
        self.said = current;
        Some(self.said.iter().copied().collect())
    }

    /// What was said last: for a router that attaches.
    #[must_use]
    pub fn said(&self) -> Vec<Current> {
        self.said.iter().copied().collect()
    }

    /// How many members are current under the newest ring, by what was said last.
    #[must_use]
    pub fn members_current(&self) -> usize {
        let newest = self.rings.last().map(|ring| ring.digest());
        self.said.iter().filter(|current| Some(current.digest) == newest).count()
    }

    /// How many subjects are announced.
    #[must_use]
    pub fn subjects(&self) -> usize {
        self.subjects.len()
    }
}

fn homes(rings: &[Arc<Ring>], subject: &Channel) -> Vec<MemberId> {
    let mut homes = Vec::with_capacity(REPLICAS * rings.len());
    for member in rings.iter().flat_map(|ring| ring.replicas(subject.as_str(), REPLICAS)) {
        if !homes.contains(&member) {
            homes.push(member);
        }
    }
    homes
}

#[cfg(test)]
mod tests;
