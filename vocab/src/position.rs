//! Offsets, terms, log epochs and positions.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_64;

use crate::partition::{PartitionId, Topic};

/// A place in a partition. Unless it is an event's own `pos`, it is always **next**: the first offset not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of one tenure of one owner: its takeover record's offset + 1; 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Term(pub u64);

impl Term {
    /// No tenure has been heard of.
    pub const NONE: Self = Self(0);

    /// The term that the takeover record at `offset` opens.
    #[must_use]
    pub fn of_takeover_at(offset: Offset) -> Self {
        Self(offset.0 + 1)
    }
}

/// Which log the offsets belong to: derived from (topic id, partition count, the operator's salt), never decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LogEpoch(pub u64);

impl LogEpoch {
    /// Derives the epoch of a topic.
    #[must_use]
    pub fn derive(topic: Topic, topic_id: &[u8; 16], partitions: u32, salt: &str) -> Self {
        let mut bytes = Vec::with_capacity(21 + salt.len());
        bytes.push(topic as u8);
        bytes.extend_from_slice(topic_id);
        bytes.extend_from_slice(&partitions.to_le_bytes());
        bytes.extend_from_slice(salt.as_bytes());
        Self(xxh3_64(&bytes))
    }
}

impl fmt::Display for LogEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for LogEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The `pos` of an event: `<log epoch>.<partition>.<offset>`, its place in the log.
///
/// The epoch names the topic, so the topic itself is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The epoch of the topic.
    pub epoch: LogEpoch,
    /// The partition's number within the topic.
    pub partition: u32,
    /// The record's own offset.
    pub offset: Offset,
}

/// The text is not `<16 hex digits>.<partition>.<offset>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("position is not of the form epoch.partition.offset")]
pub struct PositionError;

impl Position {
    /// The position of the record at `offset` of `partition`.
    #[must_use]
    pub fn new(epoch: LogEpoch, partition: PartitionId, offset: Offset) -> Self {
        Self { epoch, partition: partition.number, offset }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or(PositionError);
        let (epoch, partition, offset) = (part()?, part()?, part()?);
        let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if epoch.len() != 16
            || !epoch.bytes().all(|b| b.is_ascii_hexdigit())
            || !plain(partition)
            || !plain(offset)
        {
            return Err(PositionError);
        }
        Ok(Self {
            epoch: LogEpoch(u64::from_str_radix(epoch, 16).map_err(|_| PositionError)?),
            partition: partition.parse().map_err(|_| PositionError)?,
            offset: Offset(offset.parse().map_err(|_| PositionError)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back() {
        let pos = Position { epoch: LogEpoch(0xabc), partition: 7, offset: Offset(42) };
        assert_eq!(pos.to_string(), "0000000000000abc.7.42");
        assert_eq!(pos.to_string().parse(), Ok(pos));
        for bad in [
            "",
            "1.2.3",
            "0000000000000abc.7",
            "0000000000000abc.-7.1",
            "0000000000000abc.7.1.1",
            "+000000000000abc.7.1",
        ] {
            assert_eq!(bad.parse::<Position>(), Err(PositionError), "{bad}");
        }
    }

    #[test]
    fn the_epoch_depends_on_each_part() {
        let base = LogEpoch::derive(Topic::Events, &[1; 16], 8, "");
        assert_eq!(base, LogEpoch::derive(Topic::Events, &[1; 16], 8, ""));
        assert_ne!(base, LogEpoch::derive(Topic::Inbox, &[1; 16], 8, ""));
        assert_ne!(base, LogEpoch::derive(Topic::Events, &[2; 16], 8, ""));
        assert_ne!(base, LogEpoch::derive(Topic::Events, &[1; 16], 9, ""));
        assert_ne!(base, LogEpoch::derive(Topic::Events, &[1; 16], 8, "s"));
    }
}
