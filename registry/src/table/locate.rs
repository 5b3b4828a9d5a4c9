//! Lookups in batches: keys wait for memory together.
//!
//! With a million users nearly every key waits two or three times: for its group of control bytes and for the entry, which
//! mostly lies on two cache lines. A processor overlaps such waits only where nothing orders them, and a lock does. So
//! the locks of many keys are taken first, then the words of all of them are touched, and then the answers are read.

use std::borrow::Cow;
use std::hash::BuildHasher as _;
use std::hint::black_box;

use tidegate_vocab::Channel;

use super::{Entry, SHARDS, STRIPES, Stored, Table, Valid, stripe_of};
use crate::frame::{Location, Place};
use crate::id::{CompactId, key_of};

/// Keys that wait together. A writer may wait for as many.
const TOGETHER: usize = 128;
const LOCKS: usize = STRIPES * SHARDS;
/// Of a lock that is not taken.
const NOT_TAKEN: u8 = u8::MAX;

const _: () = assert!(TOGETHER <= NOT_TAKEN as usize && LOCKS <= NOT_TAKEN as usize);

/// A key, and where it is if it is anywhere.
struct Asked<'a> {
    key: Cow<'a, str>,
    hash: u64,
    stripe: usize,
    shard: usize,
}

impl Asked<'_> {
    fn lock(&self) -> usize {
        self.stripe * SHARDS + self.shard
    }

    fn is(&self, id: &CompactId) -> bool {
        id.as_bytes() == self.key.as_bytes()
    }
}

impl Table {
    /// Where these subjects are, in their order. Safe on any thread.
    #[must_use]
    pub fn locate(&self, subjects: &[Channel]) -> Vec<Location> {
        self.locate_each(subjects.iter().map(Channel::as_str))
    }

    /// As [`locate`](Self::locate), for names that stand elsewhere. What is no name of a channel is nowhere.
    pub fn locate_each<'a>(&self, subjects: impl IntoIterator<Item = &'a str>) -> Vec<Location> {
        let valid = self.valid.load();
        let mut names = subjects.into_iter();
        let mut found = Vec::with_capacity(names.size_hint().0);
        let mut asked = Vec::with_capacity(names.size_hint().0.min(TOGETHER));
        loop {
            asked.clear();
            asked.extend(names.by_ref().take(TOGETHER).map(|name| self.asked(name)));
            if asked.is_empty() {
                return found;
            }
            self.locate_together(&asked, |entry| {
                found.push(entry.map(|entry| location(entry, &valid)).unwrap_or_default());
            });
        }
    }

    fn asked<'a>(&self, name: &'a str) -> Asked<'a> {
        let key = key_of(name);
        let hash = self.hasher.hash_one(key.as_bytes());
        let stripe = stripe_of(hash);
        let shard = self.stripes[stripe].determine_shard(hash as usize); // invariant: a remainder by their count
        Asked { key, hash, stripe, shard }
    }

    /// Says the entry of each key, or that there is none. One task writes and holds one lock at a time: so readers may hold many.
    fn locate_together(&self, asked: &[Asked<'_>], mut say: impl FnMut(Option<&Entry>)) {
        let mut guards = Vec::with_capacity(asked.len().min(LOCKS));
        let mut numbers = [NOT_TAKEN; LOCKS];
        for asked in asked {
            // invariant: what `asked` computes is within their counts
            let number = &mut numbers[asked.lock()];
            if *number == NOT_TAKEN {
                *number = guards.len() as u8;
                guards.push(self.stripes[asked.stripe].shards()[asked.shard].read());
            }
        }
        // invariant: its lock was taken above
        let shard_of = |asked: &Asked<'_>| &guards[usize::from(numbers[asked.lock()])];
        // The control bytes: the entry that seven bits of the hash point to is nearly always the right one. It is not read yet.
        let likely: Vec<_> = asked.iter().map(|asked| shard_of(asked).get(asked.hash, |_| true)).collect();
        let touched = likely.iter().flatten().map(|(id, entry)| id.touch() ^ entry.get().touch());
        black_box(touched.fold(0, |all, one| all ^ one));
        for (asked, likely) in asked.iter().zip(likely) {
            let found = match likely {
                Some((id, _)) if !asked.is(id) => shard_of(asked).get(asked.hash, |(id, _)| asked.is(id)),
                found => found,
            };
            say(found.map(|(_, entry)| entry.get()));
        }
    }
}

fn location(entry: &Entry, valid: &[Valid]) -> Location {
    let place = |stored: &Stored| {
        let valid = valid.get(usize::from(stored.node.get()) - 1)?;
        let counts = valid.covers(stored.generation);
        counts.then(|| Place { node: valid.node, state: stored.state() })
    };
    let mut location = Location::default();
    // Almost always one: what a growing list reserves would cost more than the lookup's own work.
    location.places.reserve_exact(entry.places().count());
    location.places.extend(entry.places().filter_map(place));
    location
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tidegate_vocab::Incarnation;

    use super::*;
    use crate::table::NodeIndex;

    const NAMES: u32 = 5_000;

    fn name(number: u32) -> String {
        let prefix = ["user:", "", ":", "a-namespace-that-makes-a-long-name:"][number as usize % 4];
        format!("{prefix}{number}")
    }

    /// Every name whose number is even, on node 1, with as many connections as its number.
    fn table() -> Table {
        let table = Table::new(7);
        table.set_valid(vec![Valid { node: Incarnation(9), from: 1, upto: 1 }]);
        (0..NAMES).step_by(2).for_each(|number| put(&table, number));
        table
    }

    fn put(table: &Table, number: u32) {
        let node = NodeIndex::MIN;
        let stored = Stored { generation: 1, connections: number, since_s: 0, node, transports: 0 };
        table.change(&CompactId::new(&name(number)), |entry, _| entry.put(stored));
    }

    fn take(table: &Table, number: u32) {
        table.change(&CompactId::new(&name(number)), |entry, _| entry.retain(|_| false));
    }

    /// In no order, each several times, more than wait together.
    fn check(table: &Table, numbers: impl Iterator<Item = u32>) {
        let numbers: Vec<u32> = numbers.map(|number| number.wrapping_mul(7_919) % NAMES).collect();
        let names: Vec<String> = numbers.iter().map(|number| name(*number)).collect();
        let located = table.locate_each(names.iter().map(String::as_str));
        assert_eq!(located.len(), numbers.len());
        for (number, location) in numbers.iter().zip(located) {
            let connections: Vec<u32> = location.places.iter().map(|place| place.state.connections).collect();
            let expected = number.is_multiple_of(2).then_some(*number);
            assert_eq!(connections, expected.into_iter().collect::<Vec<_>>(), "{}", name(*number));
        }
    }

    #[test]
    fn every_key_gets_its_own_answer_in_its_order() {
        let table = table();
        for count in [0, 1, 2, 127, 128, 129, 20_000] {
            check(&table, 0..count);
        }
    }

    #[test]
    fn readers_that_hold_many_locks_and_a_writer_get_on() {
        let table = table();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (table, is_over) = (&table, &is_over);
                scope.spawn(move || {
                    for round in 0..400 {
                        check(table, (reader * 100 + round)..(reader * 100 + round + 300));
                    }
                    is_over.store(true, Ordering::Relaxed);
                });
            }
            while !is_over.load(Ordering::Relaxed) {
                for number in (NAMES..NAMES + 500).rev() {
                    put(&table, number);
                    take(&table, number);
                }
                (0..STRIPES).for_each(|stripe| table.sweep(stripe, |_, _| {}));
            }
        });
        assert_eq!(table.stored(), NAMES as usize / 2);
    }
}
