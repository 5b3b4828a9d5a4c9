//! Who is here: per subject, how many connections by transport, as the shards' own tables have it.
//!
//! Shards count under short locks when a connection opens or ends, never to deliver (invariant 6). One task takes what has
//! changed and tells the registry's announcer absolute values, so that nothing queues: a subject that changes a thousand times
//! meanwhile is told once. A poller stays for its wait and 10 s.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_link::Held;
use tidegate_registry::client::AnnounceHandle;
use tidegate_registry::{Count, Transports};
use tidegate_vocab::{Channel, limits};
use tokio::sync::Notify;

use crate::clock::{Clock, unix_ms};
use crate::config::PresenceConfig;
use crate::request::Transport;

/// Locks, so that shards seldom meet.
const STRIPES: usize = 16;
/// Changes gather for so long before they are told.
const GATHER: Duration = Duration::from_millis(5);
/// Between two looks at lingering pollers.
const LOOK: Duration = Duration::from_millis(250);

/// Subjects for which a stripe keeps room, however few there are.
const KEPT: usize = 1_024;

type Hasher = foldhash::fast::RandomState;

/// See the module.
pub(crate) struct Presences {
    scope: PresenceConfig,
    clock: Clock,
    hasher: Hasher,
    stripes: [Mutex<HashMap<Channel, Counted, Hasher>>; STRIPES],
    /// What has changed since it was told, each once.
    changed: Mutex<Vec<Channel>>,
    wake: Notify,
}

#[derive(Debug, Default, Clone)]
struct Counted {
    /// In the order of [`Transport::ALL`].
    connections: [u32; 4],
    since_s: u32,
    is_changed: bool,
    /// Of one that has polled.
    linger: Option<Box<Linger>>,
}

// A node has one for each user.
const _: () = assert!(size_of::<(Channel, Counted)>() == 40);

/// How a poller stays between its polls.
#[derive(Debug, Default, Clone, Copy)]
struct Linger {
    /// For how long behind a poll, by the longest of its waits.
    time_ms: u32,
    until_ms: u64,
    /// There is a look at it to come.
    is_awaited: bool,
}

impl Counted {
    fn total(&self) -> u32 {
        self.connections.iter().sum()
    }

    fn linger_until_ms(&self) -> u64 {
        self.linger.as_ref().map_or(0, |linger| linger.until_ms)
    }

    fn is_gone(&self, now_ms: u64) -> bool {
        self.total() == 0 && self.linger_until_ms() <= now_ms
    }

    fn transports(&self, now_ms: u64) -> u8 {
        let open = (0..4).filter(|at| self.connections[*at] > 0).fold(0, |bits, at| bits | 1 << at);
        open | if self.linger_until_ms() > now_ms { Transports::POLL.0 } else { 0 }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is whole: a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PresenceConfig {
    /// Whether it is announced who follows the channel. A user always is: its own channel stands for it.
    fn covers(&self, channel: &Channel) -> bool {
        let named = || self.namespaces.get(channel.namespace()).copied().unwrap_or(self.default);
        channel.is_user() || (!channel.is_reserved() && named())
    }
}

impl Presences {
    pub(crate) fn new(scope: PresenceConfig, clock: Clock) -> Self {
        let hasher = Hasher::default();
        Self {
            scope,
            clock,
            stripes: std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))),
            hasher,
            changed: Mutex::default(),
            wake: Notify::new(),
        }
    }

    fn stripe(&self, subject: &Channel) -> MutexGuard<'_, HashMap<Channel, Counted, Hasher>> {
        lock(&self.stripes[(self.hasher.hash_one(subject) >> 32) as usize % STRIPES])
    }

    /// A connection follows these channels now. `wait_ms` is a poll's.
    pub(crate) fn come<'a>(
        &self,
        channels: impl Iterator<Item = &'a Channel>,
        transport: Transport,
        wait_ms: u64,
    ) {
        for channel in channels.filter(|channel| self.scope.covers(channel)) {
            self.change(channel, |counted| {
                if counted.is_gone(self.clock.now_ms()) {
                    counted.since_s = (unix_ms() / 1_000) as u32;
                }
                counted.connections[transport as usize] += 1;
                if transport == Transport::Poll {
                    let linger_ms = wait_ms.saturating_add(limits::POLL_LINGER_MS);
                    let linger = counted.linger.get_or_insert_default();
                    linger.time_ms = linger.time_ms.max(linger_ms.min(u64::from(u32::MAX)) as u32);
                }
            });
        }
    }

    /// A connection that followed these channels no longer does.
    pub(crate) fn go<'a>(&self, channels: impl Iterator<Item = &'a Channel>, transport: Transport) {
        for channel in channels.filter(|channel| self.scope.covers(channel)) {
            self.change(channel, |counted| {
                let connections = &mut counted.connections[transport as usize];
                debug_assert!(*connections > 0, "who goes has come");
                *connections = connections.saturating_sub(1);
                if transport == Transport::Poll {
                    let linger = counted.linger.get_or_insert_default();
                    linger.until_ms = self.clock.now_ms() + u64::from(linger.time_ms);
                }
            });
        }
    }

    /// Open connections and polls of a subject.
    pub(crate) fn connections_of(&self, subject: &Channel) -> u32 {
        self.stripe(subject).get(subject).map_or(0, Counted::total)
    }

    fn change(&self, channel: &Channel, change: impl FnOnce(&mut Counted)) {
        let is_first = {
            let mut stripe = self.stripe(channel);
            let counted = match stripe.get_mut(channel) {
                Some(counted) => counted,
                None => stripe.entry(channel.clone()).or_default(),
            };
            change(counted);
            !std::mem::replace(&mut counted.is_changed, true)
        };
        if is_first {
            lock(&self.changed).push(channel.clone());
            self.wake.notify_one();
        }
    }

    /// What this node has of a subject.
    pub(crate) fn held(&self, subject: &Channel) -> Option<Held> {
        let now_ms = self.clock.now_ms();
        let counted =
            self.stripe(subject).get(subject).cloned().filter(|counted| !counted.is_gone(now_ms))?;
        Some(Held {
            connections: counted.total(),
            transports: counted.transports(now_ms),
            since_s: counted.since_s,
        })
    }

    /// How many subjects are here.
    pub(crate) fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).len()).sum()
    }

    /// Tells the announcer what changes, until it is dropped. Without a registry it only forgets who is gone.
    pub(crate) async fn announce(self: Arc<Self>, announcer: Option<AnnounceHandle>) {
        let mut lingering: BTreeMap<(u64, u64), Channel> = BTreeMap::new();
        let mut number = 0;
        loop {
            tokio::select! {
                () = self.wake.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(LOOK), if !lingering.is_empty() => {}
            }
            let now_ms = self.clock.now_ms();
            let mut changed = std::mem::take(&mut *lock(&self.changed));
            while let Some(first) = lingering.first_entry().filter(|first| first.key().0 <= now_ms) {
                let subject = first.remove();
                let mut stripe = self.stripe(&subject);
                if let Some(linger) = stripe.get_mut(&subject).and_then(|counted| counted.linger.as_mut()) {
                    linger.is_awaited = false;
                }
                drop(stripe);
                changed.push(subject);
            }
            for subject in changed {
                let Some((counted, is_new)) = self.take_changed(&subject, now_ms) else { continue };
                if is_new {
                    number += 1;
                    lingering.insert((counted.linger_until_ms(), number), subject.clone());
                }
                if let Some(announcer) = &announcer {
                    announcer.count(subject, count(&counted, now_ms)).await;
                }
            }
        }
    }

    /// The subject as it is, which counts as told from now on, and whether it is to be looked at when its lingering ends; of
    /// such looks there is one at a time. An entry that is gone goes.
    fn take_changed(&self, subject: &Channel, now_ms: u64) -> Option<(Counted, bool)> {
        let mut stripe = self.stripe(subject);
        let counted = stripe.get_mut(subject)?;
        counted.is_changed = false;
        let lingers = counted.total() == 0 && counted.linger_until_ms() > now_ms;
        let is_new = match counted.linger.as_mut().filter(|_| lingers) {
            Some(linger) => !std::mem::replace(&mut linger.is_awaited, true),
            None => false,
        };
        let taken = counted.clone();
        if taken.is_gone(now_ms) {
            stripe.remove(subject);
            if stripe.capacity() > KEPT && stripe.len() * 8 < stripe.capacity() {
                let len = stripe.len();
                stripe.shrink_to(len * 2); // After a burst.
            }
        }
        Some((taken, is_new))
    }
}

fn count(counted: &Counted, now_ms: u64) -> Count {
    let connections = counted.total();
    let linger_ms = if connections == 0 { counted.linger_until_ms().saturating_sub(now_ms) } else { 0 };
    Count { connections, transports: Transports(counted.transports(now_ms)), linger_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> Channel {
        Channel::parse(name).expect("valid")
    }

    fn presences() -> Presences {
        let namespaces = BTreeMap::from([("room".to_owned(), true)]);
        Presences::new(PresenceConfig { default: false, namespaces }, Clock::start())
    }

    #[test]
    fn users_and_the_configured_namespaces_are_counted_and_nothing_else() {
        let presences = presences();
        let all = ["user:alice", "room:1", "score:1", "everyone"].map(channel);
        presences.come(all.iter(), Transport::WebSocket, 0);
        presences.come(all.iter(), Transport::Sse, 0);
        let held =
            |name: &str| presences.held(&channel(name)).map(|held| (held.connections, held.transports));
        assert_eq!(held("user:alice"), Some((2, 3)));
        assert_eq!(held("room:1"), Some((2, 3)));
        assert_eq!((held("score:1"), held("everyone"), presences.len()), (None, None, 2));
        presences.go(all.iter(), Transport::WebSocket);
        assert_eq!(held("room:1"), Some((1, 2)));
        presences.go(all.iter(), Transport::Sse);
        assert_eq!(held("room:1"), None);
        assert_eq!(lock(&presences.changed).len(), 2, "each once, however often it changed");
    }

    #[test]
    fn a_poller_stays_for_its_wait_and_ten_seconds() {
        let presences = presences();
        let all = [channel("user:alice")];
        presences.come(all.iter(), Transport::Poll, 25_000);
        presences.go(all.iter(), Transport::Poll);
        let held = presences.held(&all[0]).expect("lingers");
        assert_eq!((held.connections, held.transports), (0, 8));
        let now_ms = presences.clock.now_ms();
        let (counted, is_new) = presences.take_changed(&all[0], now_ms).expect("there");
        assert!(is_new);
        for _ in 0..3 {
            presences.come(all.iter(), Transport::Poll, 0);
            presences.go(all.iter(), Transport::Poll);
            let (_, is_new) = presences.take_changed(&all[0], now_ms).expect("there");
            assert!(!is_new, "one look is to come, however often it polls");
        }
        let told = count(&counted, now_ms);
        assert!(told.connections == 0 && (34_000..=35_000).contains(&told.linger_ms), "{told:?}");
        assert!(presences.take_changed(&all[0], now_ms + 36_000).is_some());
        assert_eq!((presences.held(&all[0]), presences.len()), (None, 0), "gone after that");
    }
}
