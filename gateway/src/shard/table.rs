//! Who follows what on one shard.
//!
//! Connections that follow the same channels share one **follow set**, so a broadcast makes one cursor and one frame per
//! set and a connection keeps nothing per channel. A connection knows its place in its set, and a set its place in each
//! channel, so that leaving is O(channels) whatever the number of connections.

use slab::Slab;
use tidegate_vocab::{Channel, PartitionCounts, PartitionId, Topic};

use crate::config::{SlowConfig, SlowPolicy};

type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

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
    pub(crate) partition: PartitionId,
    /// The partition's dense index on this shard.
    pub(crate) part: usize,
    pub(crate) fingerprint: u32,
    /// What becomes of its events for a client that reads too slowly.
    pub(crate) slow: SlowPolicy,
    sets: Vec<SetIdx>,
}

/// Some channels, followed by some connections.
#[derive(Debug)]
pub(crate) struct FollowSet {
    /// Each channel, and this set's place in its `sets`.
    channels: Box<[(ChannelIdx, u32)]>,
    members: Vec<ConnIdx>,
    /// At most one of its channels was named by the client: then every event carries the cursor.
    pub(crate) is_small: bool,
}

impl FollowSet {
    pub(crate) fn channels(&self) -> impl Iterator<Item = ChannelIdx> + '_ {
        self.channels.iter().map(|(channel, _)| *channel)
    }

    pub(crate) fn members(&self) -> &[ConnIdx] {
        &self.members
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    counts: PartitionCounts,
    slow_consumers: SlowConfig,
    by_name: Map<Channel, ChannelIdx>,
    channels: Slab<ChannelEntry>,
    by_channels: Map<Box<[ChannelIdx]>, SetIdx>,
    sets: Slab<FollowSet>,
}

impl Table {
    pub(crate) fn new(counts: PartitionCounts, slow_consumers: SlowConfig) -> Self {
        Self {
            counts,
            slow_consumers,
            by_name: Map::default(),
            channels: Slab::new(),
            by_channels: Map::default(),
            sets: Slab::new(),
        }
    }

    /// How many partitions a shard keeps a view of.
    pub(crate) fn parts_len(counts: PartitionCounts) -> usize {
        Topic::FOLLOWED.iter().map(|topic| counts.of(*topic) as usize).sum()
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
        let set = match self.by_channels.get(key.as_slice()) {
            Some(set) => *set,
            None => self.new_set(key.into_boxed_slice(), names),
        };
        let members = &mut self.sets[set as usize].members;
        members.push(conn);
        (set, members.len() as u32 - 1)
    }

    fn new_set(&mut self, key: Box<[ChannelIdx]>, names: &[Channel]) -> SetIdx {
        let entry = self.sets.vacant_entry();
        let set = entry.key() as SetIdx;
        let channels = key
            .iter()
            .map(|channel| {
                let sets = &mut self.channels[*channel as usize].sets;
                sets.push(set);
                (*channel, sets.len() as u32 - 1)
            })
            .collect();
        let is_small = names.iter().filter(|name| !name.is_reserved()).count() <= 1;
        entry.insert(FollowSet { channels, members: Vec::with_capacity(1), is_small });
        self.by_channels.insert(key, set);
        set
    }

    fn channel(&mut self, name: &Channel) -> ChannelIdx {
        if let Some(channel) = self.by_name.get(name) {
            return *channel;
        }
        let partition = self.counts.partition_of(name);
        let entry = ChannelEntry {
            name: name.clone(),
            partition,
            part: Self::part_of(self.counts, partition).unwrap_or_default(),
            fingerprint: name.fingerprint(),
            slow: self.slow_consumers.of(name),
            sets: Vec::with_capacity(1),
        };
        let channel = self.channels.insert(entry) as ChannelIdx;
        self.by_name.insert(name.clone(), channel);
        channel
    }

    /// Removes a connection. Returns the member that took its place, whose own place is now `place`.
    pub(crate) fn leave(&mut self, set: SetIdx, place: u32) -> Option<ConnIdx> {
        let members = &mut self.sets[set as usize].members;
        members.swap_remove(place as usize);
        let moved = members.get(place as usize).copied();
        if members.is_empty() {
            self.drop_set(set);
        } else if members.capacity() > 64 && members.len() * 4 < members.capacity() {
            members.shrink_to(members.len() * 2);
        }
        moved
    }

    fn drop_set(&mut self, set: SetIdx) {
        let gone = self.sets.remove(set as usize);
        let key: Box<[ChannelIdx]> = gone.channels().collect();
        self.by_channels.remove(&key);
        for (channel, place) in gone.channels {
            let sets = &mut self.channels[channel as usize].sets;
            sets.swap_remove(place as usize);
            match sets.get(place as usize).copied() {
                Some(moved) => {
                    let places = &mut self.sets[moved as usize].channels;
                    if let Some(entry) = places.iter_mut().find(|(other, _)| *other == channel) {
                        entry.1 = place;
                    }
                }
                None if sets.is_empty() => {
                    let entry = self.channels.remove(channel as usize);
                    self.by_name.remove(&entry.name);
                }
                None => {}
            }
        }
    }

    pub(crate) fn set(&self, set: SetIdx) -> &FollowSet {
        &self.sets[set as usize]
    }

    pub(crate) fn entry(&self, channel: ChannelIdx) -> &ChannelEntry {
        &self.channels[channel as usize]
    }

    /// The channel of this name, if a connection here follows it.
    pub(crate) fn find(&self, name: &Channel) -> Option<ChannelIdx> {
        self.by_name.get(name).copied()
    }

    /// The sets that follow a channel.
    pub(crate) fn sets_of(&self, channel: ChannelIdx) -> &[SetIdx] {
        &self.channels[channel as usize].sets
    }

    /// The channels of a partition that are followed here.
    pub(crate) fn channels_on(&self, part: usize) -> Vec<ChannelIdx> {
        self.channels
            .iter()
            .filter(|(_, entry)| entry.part == part)
            .map(|(channel, _)| channel as ChannelIdx)
            .collect()
    }
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
