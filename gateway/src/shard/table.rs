//! Who follows what on one shard.
//!
//! Connections that follow the same channels share one **follow set**, so a broadcast makes one cursor and one frame per
//! set and a connection keeps nothing per channel. A connection knows its place in its set, and a set its place in each
//! channel, so that leaving is O(channels) whatever the number of connections.

mod few;

use std::hash::{BuildHasher as _, Hash};

use hashbrown::HashTable;
use slab::Slab;
use tidegate_vocab::{Channel, PartitionCounts, PartitionId, Topic};

use crate::config::{SlowConfig, SlowPolicy};
use few::Few;

/// Index of a channel in the table.
pub(crate) type ChannelIdx = u32;
/// Index of a follow set in the table.
pub(crate) type SetIdx = u32;
/// Index of a connection in the shard.
pub(crate) type ConnIdx = u32;

/// A channel that some connection of this shard follows.
#[derive(Debug)]
pub(crate) struct ChannelEntry {
    pub(crate) name: Channel,
    sets: Few,
    pub(crate) fingerprint: u32,
    part: u16,
    /// What becomes of its events for a client that reads too slowly.
    pub(crate) slow: SlowPolicy,
}

// A node with a channel for each connection has millions: the name, its table's index and this is all a shard keeps.
const _: () = assert!(size_of::<ChannelEntry>() == 32);

impl ChannelEntry {
    /// The partition's dense index on this shard.
    pub(crate) fn part(&self) -> usize {
        self.part.into()
    }
}

/// Some channels, followed by some connections.
#[derive(Debug)]
pub(crate) struct FollowSet {
    /// Each channel, in order, and this set's place in its `sets`.
    channels: Box<[(ChannelIdx, u32)]>,
    members: Few,
    /// At most one of its channels was named by the client: then every event carries the cursor.
    pub(crate) is_small: bool,
}

impl FollowSet {
    pub(crate) fn channels(&self) -> impl Iterator<Item = ChannelIdx> + '_ {
        self.channels.iter().map(|(channel, _)| *channel)
    }

    pub(crate) fn members(&self) -> &[ConnIdx] {
        self.members.as_slice()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    counts: PartitionCounts,
    /// By their dense index.
    partitions: Box<[PartitionId]>,
    slow_consumers: SlowConfig,
    hasher: foldhash::fast::RandomState,
    by_name: HashTable<ChannelIdx>,
    channels: Slab<ChannelEntry>,
    by_channels: HashTable<SetIdx>,
    sets: Slab<FollowSet>,
}

impl Table {
    pub(crate) fn new(counts: PartitionCounts, slow_consumers: SlowConfig) -> Self {
        Self {
            counts,
            partitions: counts.followed().collect(),
            slow_consumers,
            hasher: foldhash::fast::RandomState::default(),
            by_name: HashTable::new(),
            channels: Slab::new(),
            by_channels: HashTable::new(),
            sets: Slab::new(),
        }
    }

    /// How many partitions a shard keeps a view of.
    pub(crate) fn parts_len(counts: PartitionCounts) -> usize {
        counts.followed().count()
    }

    /// The dense index of a followed partition; `None` for one that is not of this cluster.
    pub(crate) fn part_of(counts: PartitionCounts, partition: PartitionId) -> Option<usize> {
        let mut base = 0;
        for topic in Topic::FOLLOWED {
            if topic == partition.topic {
                return (partition.number < counts.of(topic)).then_some(base + partition.number as usize);
            }
            base += counts.of(topic) as usize;
        }
        None
    }

    /// Adds a connection that follows these channels; says its set and its place there.
    pub(crate) fn join(&mut self, names: &[Channel], conn: ConnIdx) -> (SetIdx, u32) {
        let mut key: Vec<ChannelIdx> = names.iter().map(|name| self.channel(name)).collect();
        key.sort_unstable();
        key.dedup();
        let hash = hash_of_set(&self.hasher, key.iter().copied());
        let is_it = |set: &SetIdx| self.sets[*set as usize].channels().eq(key.iter().copied());
        match self.by_channels.find(hash, is_it).copied() {
            Some(set) => (set, self.sets[set as usize].members.push(conn)),
            None => (self.new_set(&key, hash, names, conn), 0),
        }
    }

    fn new_set(&mut self, key: &[ChannelIdx], hash: u64, names: &[Channel], first: ConnIdx) -> SetIdx {
        let Self { channels, sets, by_channels, hasher, .. } = self;
        let set = sets.vacant_key() as SetIdx;
        let places = key.iter().map(|channel| (*channel, channels[*channel as usize].sets.push(set)));
        let places = places.collect();
        let is_small = names.iter().filter(|name| !name.is_reserved()).count() <= 1;
        sets.insert(FollowSet { channels: places, members: Few::One(first), is_small });
        by_channels.insert_unique(hash, set, |set| hash_of_set(hasher, sets[*set as usize].channels()));
        set
    }

    fn channel(&mut self, name: &Channel) -> ChannelIdx {
        if let Some(channel) = self.find(name) {
            return channel;
        }
        let part = Self::part_of(self.counts, self.counts.partition_of(name)).unwrap_or_default();
        let entry = ChannelEntry {
            name: name.clone(),
            sets: Few::default(),
            fingerprint: name.fingerprint(),
            // invariant: configuration allows 1,024 partitions of a topic
            part: u16::try_from(part).unwrap_or_default(),
            slow: self.slow_consumers.of(name),
        };
        let Self { channels, by_name, hasher, .. } = self;
        let channel = channels.insert(entry) as ChannelIdx;
        let hash = hasher.hash_one(name);
        by_name.insert_unique(hash, channel, |channel| hasher.hash_one(&channels[*channel as usize].name));
        channel
    }

    /// Removes a connection. Returns the member that took its place, whose own place is now `place`.
    pub(crate) fn leave(&mut self, set: SetIdx, place: u32) -> Option<ConnIdx> {
        let members = &mut self.sets[set as usize].members;
        let moved = members.swap_remove(place);
        if members.as_slice().is_empty() {
            self.drop_set(set);
        }
        moved
    }

    fn drop_set(&mut self, set: SetIdx) {
        let hash = hash_of_set(&self.hasher, self.sets[set as usize].channels());
        if let Ok(entry) = self.by_channels.find_entry(hash, |other| *other == set) {
            entry.remove();
        }
        let gone = self.sets.remove(set as usize);
        for (channel, place) in gone.channels {
            let sets = &mut self.channels[channel as usize].sets;
            if let Some(moved) = sets.swap_remove(place) {
                let places = &mut self.sets[moved as usize].channels;
                if let Ok(at) = places.binary_search_by_key(&channel, |(other, _)| *other) {
                    places[at].1 = place;
                }
            } else if sets.as_slice().is_empty() {
                self.drop_channel(channel);
            }
        }
        self.shrink();
    }

    fn drop_channel(&mut self, channel: ChannelIdx) {
        let entry = self.channels.remove(channel as usize);
        let hash = self.hasher.hash_one(&entry.name);
        if let Ok(entry) = self.by_name.find_entry(hash, |other| *other == channel) {
            entry.remove();
        }
    }

    /// Gives room back after a burst.
    fn shrink(&mut self) {
        let Self { channels, sets, by_name, by_channels, hasher, .. } = self;
        if is_roomy(by_name) {
            by_name
                .shrink_to(by_name.len() * 2, |channel| hasher.hash_one(&channels[*channel as usize].name));
            channels.shrink_to_fit();
        }
        if is_roomy(by_channels) {
            let hash = |set: &SetIdx| hash_of_set(hasher, sets[*set as usize].channels());
            by_channels.shrink_to(by_channels.len() * 2, hash);
            sets.shrink_to_fit();
        }
    }

    pub(crate) fn set(&self, set: SetIdx) -> &FollowSet {
        &self.sets[set as usize]
    }

    pub(crate) fn entry(&self, channel: ChannelIdx) -> &ChannelEntry {
        &self.channels[channel as usize]
    }

    pub(crate) fn partition(&self, channel: ChannelIdx) -> PartitionId {
        self.partitions[self.channels[channel as usize].part()]
    }

    /// The channel of this name, if a connection here follows it.
    pub(crate) fn find(&self, name: &Channel) -> Option<ChannelIdx> {
        let is_it = |channel: &ChannelIdx| self.channels[*channel as usize].name == *name;
        self.by_name.find(self.hasher.hash_one(name), is_it).copied()
    }

    /// The sets that follow a channel.
    pub(crate) fn sets_of(&self, channel: ChannelIdx) -> &[SetIdx] {
        self.channels[channel as usize].sets.as_slice()
    }

    /// The channels of a partition that are followed here.
    pub(crate) fn channels_on(&self, part: usize) -> Vec<ChannelIdx> {
        self.channels
            .iter()
            .filter(|(_, entry)| entry.part() == part)
            .map(|(channel, _)| channel as ChannelIdx)
            .collect()
    }
}

fn hash_of_set(hasher: &foldhash::fast::RandomState, channels: impl Iterator<Item = ChannelIdx>) -> u64 {
    let mut state = hasher.build_hasher();
    channels.for_each(|channel| channel.hash(&mut state));
    std::hash::Hasher::finish(&state)
}

/// A table of more than a thousand places whose greater part has been empty for long enough to matter.
fn is_roomy<T>(table: &HashTable<T>) -> bool {
    table.capacity() > 1_024 && table.len() * 8 < table.capacity()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map from connection to channels: members of each channel agree after any joins and leaves.
        #[test]
        fn the_table_agrees_with_a_plain_map(steps in proptest::collection::vec((0_u32..24, proptest::collection::btree_set(0_u8..6, 0..4)), 1..80)) {
            let mut table = Table::new(PartitionCounts::same(4), SlowConfig::default());
            let mut model: BTreeMap<ConnIdx, (BTreeSet<u8>, SetIdx, u32)> = BTreeMap::new();
            for (conn, names) in steps {
                if let Some((_, set, place)) = model.remove(&conn) {
                    if let Some(moved) = table.leave(set, place) {
                        model.get_mut(&moved).expect("known").2 = place;
                    }
                } else {
                    let channels: Vec<_> = names.iter().map(|n| Channel::parse(&format!("c:{n}")).expect("valid")).collect();
                    let (set, place) = table.join(&channels, conn);
                    model.insert(conn, (names, set, place));
                }
                for n in 0..6_u8 {
                    let expected: BTreeSet<ConnIdx> = model.iter().filter(|(_, (names, _, _))| names.contains(&n)).map(|(c, _)| *c).collect();
                    let name = Channel::parse(&format!("c:{n}")).expect("valid");
                    let found: BTreeSet<ConnIdx> = table.find(&name).map(|channel| {
                        table.sets_of(channel).iter().flat_map(|set| table.set(*set).members().to_vec()).collect()
                    }).unwrap_or_default();
                    prop_assert_eq!(&found, &expected);
                    prop_assert_eq!(table.find(&name).is_none(), expected.is_empty());
                }
                for (conn, (_, set, place)) in &model {
                    prop_assert_eq!(table.set(*set).members()[*place as usize], *conn);
                }
            }
        }
    }
}
