//! Subject -> places: the one module that names dashmap.
//!
//! One task writes (the owner of [`Member`](crate::Member)), any thread reads. Guards stay in here: callers pass closures
//! and must not call back into the table from them. The writer holds one lock at a time, a reader may hold many.

mod locate;

use std::hash::BuildHasher as _;
use std::num::NonZeroU16;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use tidegate_vocab::Incarnation;

use crate::frame::{Holding, SubjectKind, Transports};
use crate::id::{CompactId, Seeded};

/// Parts that a pass visits one at a time: 16,000 subjects each at a million.
pub(crate) const STRIPES: usize = 64;
/// Locks within a part: the least that dashmap takes.
const SHARDS: usize = 2;

/// A node's index at this member, from 1; reused once no place names it.
pub(crate) type NodeIndex = NonZeroU16;

/// A subject on a node, as stored: 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The session that wrote it.
    pub(crate) generation: u32,
    pub(crate) connections: u32,
    pub(crate) since_s: u32,
    pub(crate) node: NodeIndex,
    pub(crate) transports: u8,
}

impl Stored {
    pub(crate) fn state(&self) -> Holding {
        let (connections, since_s) = (self.connections, self.since_s);
        Holding { connections, since_s, transports: Transports(self.transports) }
    }
}

/// What is known of a subject.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    first: Option<Stored>,
    /// Almost nobody is on two nodes.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24 in every entry")]
    more: Option<Box<Vec<Stored>>>,
    /// When the last place went, in milliseconds modulo 2^32.
    pub(crate) absent_ms: u32,
    pub(crate) is_absent: bool,
    /// What the topic says.
    pub(crate) is_online: bool,
    /// This member is the primary of the key under its own ring.
    pub(crate) is_primary: bool,
    /// A user, not a channel.
    pub(crate) is_user: bool,
}

const _: () = assert!(size_of::<Entry>() == 32 && size_of::<Stored>() == 16);

impl Entry {
    pub(crate) fn places(&self) -> impl Iterator<Item = &Stored> {
        self.first.iter().chain(self.more.iter().flat_map(|more| more.iter()))
    }

    /// Puts the node's place and gives back the one it had.
    pub(crate) fn put(&mut self, place: Stored) -> Option<Stored> {
        let more = self.more.iter_mut().flat_map(|more| more.iter_mut());
        if let Some(old) = self.first.iter_mut().chain(more).find(|old| old.node == place.node) {
            return Some(std::mem::replace(old, place));
        }
        match self.first {
            None => self.first = Some(place),
            Some(_) => self.more.get_or_insert_default().push(place),
        }
        None
    }

    /// Takes the places out that do not fit.
    pub(crate) fn retain(&mut self, mut fits: impl FnMut(&Stored) -> bool) {
        if let Some(more) = &mut self.more {
            more.retain(&mut fits);
        }
        if self.first.as_ref().is_some_and(|first| !fits(first)) {
            self.first = None;
        }
        if self.first.is_none() {
            self.first = self.more.as_mut().and_then(|more| more.pop());
        }
        if self.more.as_ref().is_some_and(|more| more.is_empty()) {
            self.more = None;
        }
    }

    /// Reads where the entry ends.
    fn touch(&self) -> u8 {
        u8::from(self.is_primary)
    }

    fn is_empty(&self) -> bool {
        self.first.is_none() && !self.is_online
    }
}

/// Which generations of a node's places count: none of a dead node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Valid {
    pub(crate) node: Incarnation,
    pub(crate) from: u32,
    pub(crate) upto: u32,
}

impl Valid {
    /// Nothing counts.
    pub(crate) const NOTHING: Self = Self { node: Incarnation(0), from: 1, upto: 0 };

    pub(crate) fn covers(&self, generation: u32) -> bool {
        (self.from..=self.upto).contains(&generation)
    }
}

/// The subjects of a member, and which of their places count.
pub struct Table {
    stripes: Vec<DashMap<CompactId, Entry, Seeded>>,
    hasher: Seeded,
    /// By node index - 1.
    valid: ArcSwap<Vec<Valid>>,
}

impl Table {
    pub(crate) fn new(seed: u64) -> Self {
        let hasher = Seeded(seed);
        let stripe = || DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher, SHARDS);
        Self {
            stripes: std::iter::repeat_with(stripe).take(STRIPES).collect(),
            hasher,
            valid: ArcSwap::from_pointee(Vec::new()),
        }
    }

    fn stripe(&self, key: &[u8]) -> &DashMap<CompactId, Entry, Seeded> {
        &self.stripes[stripe_of(self.hasher.hash_one(key))] // invariant: a remainder by their count
    }

    /// How many subjects are stored: those that are somewhere, those that the topic calls online, those not swept yet.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.stripes.iter().map(DashMap::len).sum()
    }

    pub(crate) fn set_valid(&self, valid: Vec<Valid>) {
        self.valid.store(Arc::new(valid));
    }

    /// Changes the entry of a key, which is there for the call at least. The closure hears whether it is new.
    pub(crate) fn change<R>(&self, id: &CompactId, f: impl FnOnce(&mut Entry, bool) -> R) -> R {
        let key = id.as_bytes();
        let stripe = self.stripe(key);
        if let Some(mut entry) = stripe.get_mut(key) {
            let answer = f(&mut entry, false);
            let is_empty = entry.is_empty();
            drop(entry);
            if is_empty {
                stripe.remove(key);
            }
            return answer;
        }
        let mut entry = Entry { is_user: id.kind() == SubjectKind::User, ..Entry::default() };
        let answer = f(&mut entry, true);
        if !entry.is_empty() {
            match stripe.entry(id.clone()) {
                Slot::Vacant(vacant) => drop(vacant.insert(entry)),
                // Cannot be: one task writes.
                Slot::Occupied(mut occupied) => drop(occupied.insert(entry)),
            }
        }
        answer
    }

    /// Visits every entry of a part.
    pub(crate) fn sweep(&self, stripe: usize, mut f: impl FnMut(&CompactId, &mut Entry)) {
        let Some(stripe) = self.stripes.get(stripe) else { return };
        stripe.retain(|id, entry| {
            f(id, entry);
            !entry.is_empty()
        });
        // A dead node's share does not stay reserved.
        if stripe.capacity() > 4 * stripe.len() + 1024 {
            stripe.shrink_to_fit();
        }
    }
}

/// By bits that neither dashmap's shards nor its buckets use.
fn stripe_of(hash: u64) -> usize {
    (hash >> 40) as usize % STRIPES
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({} subjects)", self.stored())
    }
}
