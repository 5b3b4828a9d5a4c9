//! Keys and values of the history in the store.
//!
//! A channel's name stands in a key behind its length, so no channel's keys are a prefix of another's; numbers are
//! big-endian, so the store's order is the order of offsets. The generation is counted up by every reset: what an
//! older one left is invisible at once and swept away later.

use bytes::Bytes;
use tidegate_vocab::{Channel, LogEpoch, Offset, PartitionId, Topic};

use crate::Interval;

/// topic (1) + partition (4) + generation (8).
const GENERATION_PREFIX_BYTES: usize = 13;
const INTERVAL: u8 = 1;
const CHANNEL: u8 = 2;

/// The store's bytes are not what this module wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stored history is malformed")]
pub(crate) struct Malformed;

/// What is known of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionState {
    pub(crate) interval: Interval,
    pub(crate) generation: u64,
    /// The newest record's time: what age is measured from.
    pub(crate) newest_ms: u64,
}

/// What is known of a channel besides its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ChannelMeta {
    /// Rows in the store, those below `evicted` that are still to be deleted included.
    pub(crate) count: u32,
    /// The first row's offset; nothing is stored below it.
    pub(crate) first: u64,
    /// The first row's time.
    pub(crate) first_ms: u64,
    /// Rows below may be missing; none is shown.
    pub(crate) evicted: u64,
}

/// The start of all keys of a channel's rows.
pub(crate) fn row_prefix(partition: PartitionId, generation: u64, channel: &[u8]) -> Vec<u8> {
    debug_assert!(channel.len() <= usize::from(u8::MAX));
    let mut key = Vec::with_capacity(GENERATION_PREFIX_BYTES + 1 + channel.len() + 8);
    push_partition(&mut key, partition);
    key.extend_from_slice(&generation.to_be_bytes());
    key.push(channel.len() as u8);
    key.extend_from_slice(channel);
    key
}

/// The key of the row at `offset` behind a prefix of [`row_prefix`].
pub(crate) fn row_key(prefix: &[u8], offset: u64) -> Vec<u8> {
    [prefix, &offset.to_be_bytes()].concat()
}

pub(crate) fn row_offset(key: &[u8]) -> Result<u64, Malformed> {
    key.last_chunk().copied().map(u64::from_be_bytes).ok_or(Malformed)
}

pub(crate) fn row_value(time_ms: u64, value: &[u8]) -> Vec<u8> {
    [&time_ms.to_be_bytes()[..], value].concat()
}

/// Time and payload of a row. The payload is copied: a slice would pin a whole block of the store's cache.
pub(crate) fn row(stored: &[u8]) -> Result<(u64, Bytes), Malformed> {
    let (time, value) = stored.split_first_chunk().ok_or(Malformed)?;
    Ok((u64::from_be_bytes(*time), Bytes::copy_from_slice(value)))
}

pub(crate) fn row_time(stored: &[u8]) -> Result<u64, Malformed> {
    stored.first_chunk().copied().map(u64::from_be_bytes).ok_or(Malformed)
}

pub(crate) fn interval_key(partition: PartitionId) -> Vec<u8> {
    let mut key = vec![INTERVAL];
    push_partition(&mut key, partition);
    key
}

/// All keys of intervals.
pub(crate) fn all_intervals() -> [u8; 1] {
    [INTERVAL]
}

/// The partition in a key of [`interval_key`].
pub(crate) fn interval_partition(key: &[u8]) -> Result<PartitionId, Malformed> {
    pull_partition(key.get(1..).ok_or(Malformed)?).map(|(partition, _)| partition)
}

pub(crate) fn interval_value(state: &PartitionState) -> Vec<u8> {
    let Interval { epoch, floor, h } = state.interval;
    [epoch.0, floor.0, h.0, state.newest_ms, state.generation].map(u64::to_be_bytes).concat()
}

pub(crate) fn partition_state(stored: &[u8]) -> Result<PartitionState, Malformed> {
    let mut fields = Fields(stored);
    let interval =
        Interval { epoch: LogEpoch(fields.u64()?), floor: Offset(fields.u64()?), h: Offset(fields.u64()?) };
    Ok(PartitionState { interval, newest_ms: fields.u64()?, generation: fields.u64()? })
}

/// Where all keys of channels lie.
pub(crate) fn all_channels() -> [u8; 1] {
    [CHANNEL]
}

pub(crate) fn channel_key(partition: PartitionId, generation: u64, channel: &[u8]) -> Vec<u8> {
    [&[CHANNEL], &row_prefix(partition, generation, channel)[..]].concat()
}

/// Partition, generation and channel in a key of [`channel_key`].
pub(crate) fn channel_of_key(key: &[u8]) -> Result<(PartitionId, u64, Channel), Malformed> {
    let (partition, rest) = pull_partition(key.get(1..).ok_or(Malformed)?)?;
    let (generation, rest) = rest.split_first_chunk().ok_or(Malformed)?;
    let name = rest.get(1..).and_then(|name| std::str::from_utf8(name).ok()).ok_or(Malformed)?;
    let channel = Channel::parse(name).map_err(|_| Malformed)?;
    Ok((partition, u64::from_be_bytes(*generation), channel))
}

pub(crate) fn channel_value(meta: &ChannelMeta) -> Vec<u8> {
    let mut value = Vec::with_capacity(28);
    for field in [meta.first, meta.first_ms, meta.evicted] {
        value.extend_from_slice(&field.to_be_bytes());
    }
    value.extend_from_slice(&meta.count.to_be_bytes());
    value
}

pub(crate) fn channel_meta(stored: &[u8]) -> Result<ChannelMeta, Malformed> {
    let mut fields = Fields(stored);
    let (first, first_ms, evicted) = (fields.u64()?, fields.u64()?, fields.u64()?);
    Ok(ChannelMeta { count: fields.u32()?, first, first_ms, evicted })
}

fn push_partition(key: &mut Vec<u8>, partition: PartitionId) {
    key.push(partition.topic as u8);
    key.extend_from_slice(&partition.number.to_be_bytes());
}

fn pull_partition(key: &[u8]) -> Result<(PartitionId, &[u8]), Malformed> {
    let (topic, rest) = key.split_first().ok_or(Malformed)?;
    let (number, rest) = rest.split_first_chunk().ok_or(Malformed)?;
    let topic = Topic::from_number(*topic).ok_or(Malformed)?;
    Ok((PartitionId { topic, number: u32::from_be_bytes(*number) }, rest))
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u64(&mut self) -> Result<u64, Malformed> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*field))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId { topic: Topic::Events, number: 3 };

    #[test]
    fn no_channel_is_a_prefix_of_another() {
        let names = ["a", "a:b", "aa", "ab", "b", "a:", &"a".repeat(255)];
        for one in names {
            for other in names.iter().filter(|other| **other != one) {
                let prefix = row_prefix(P, 1, one.as_bytes());
                assert!(
                    !row_key(&row_prefix(P, 1, other.as_bytes()), 7).starts_with(&prefix),
                    "{one} {other}"
                );
            }
        }
    }

    #[test]
    fn everything_reads_back() {
        let interval = Interval { epoch: LogEpoch(9), floor: Offset(1), h: Offset(u64::MAX) };
        let state = PartitionState { interval, generation: 4, newest_ms: 5 };
        assert_eq!(partition_state(&interval_value(&state)), Ok(state));
        let meta = ChannelMeta { count: 1, first: 2, first_ms: 3, evicted: 4 };
        assert_eq!(channel_meta(&channel_value(&meta)), Ok(meta));
        let channel = Channel::parse("chat:1").expect("valid");
        let key = channel_key(P, 4, channel.as_str().as_bytes());
        assert_eq!(channel_of_key(&key), Ok((P, 4, channel)));
        assert_eq!(interval_partition(&interval_key(P)), Ok(P));
        assert_eq!(row(&row_value(6, b"x")), Ok((6, Bytes::from_static(b"x"))));
        assert_eq!(row_offset(&row_key(b"prefix", 8)), Ok(8));
        for broken in [&b""[..], b"abc"] {
            assert!(
                partition_state(broken).is_err() && channel_meta(broken).is_err() && row(broken).is_err()
            );
        }
    }
}
