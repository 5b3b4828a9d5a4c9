//! The ring: `consistent_hash_ring` behind our own type, because it is old and has edges.
//!
//! What the wrapper sees to: hashing is XXH3 over bytes that we choose (the crate's default puts adjacent ids together,
//! and the standard library's `Hash` bytes are not promised across versions); 160 virtual nodes a member instead of 10;
//! weights of at least 1 (a weight of 0 makes the crate's replica search loop for ever); built once, then only read
//! (its building is quadratic in members, which is 20 ms at a hundred).

use std::hash::{BuildHasher, Hasher};

use consistent_hash_ring::RingBuilder;
use xxhash_rust::xxh3::xxh3_64;

/// Members that answer for a key: the primary and its replica.
pub const REPLICAS: usize = 2;
/// Virtual nodes of a member of weight 1: keys spread within about 8 %.
const VIRTUAL_NODES: usize = 160;
/// Members of one ring: more would make building slow, and no cluster is near it.
const MEMBERS_LIMIT: usize = 256;
/// Weight of one member.
const WEIGHT_LIMIT: u32 = 16;
/// Names the hashing: part of the digest, so that a change of algorithm is a change of ring.
const ALGORITHM: &[u8] = b"xxh3-chain-1";

/// A registry member: the ordinal of its StatefulSet, or its place in the configured list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(pub u32);

/// Why a member list makes no ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// There are no members.
    #[error("ring has no members")]
    Empty,
    /// There are more than 256 members.
    #[error("ring has more than 256 members")]
    TooManyMembers,
    /// A member is listed twice.
    #[error("member {0:?} is listed twice")]
    Twice(MemberId),
    /// A weight is not between 1 and 16.
    #[error("weight of member {0:?} is not between 1 and 16")]
    Weight(MemberId),
}

/// Hashes what is written as one XXH3 over its bytes in little-endian order.
#[derive(Debug, Clone, Copy, Default)]
struct Xxh3;

impl BuildHasher for Xxh3 {
    type Hasher = Bytes;

    fn build_hasher(&self) -> Bytes {
        Bytes(Vec::with_capacity(8))
    }
}

/// The bytes written so far.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn finish(&self) -> u64 {
        xxh3_64(&self.0)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn write_u32(&mut self, value: u32) {
        self.write(&value.to_le_bytes());
    }

    fn write_u64(&mut self, value: u64) {
        self.write(&value.to_le_bytes());
    }
}

/// Which members answer for which keys. Immutable: a change is another ring, built off the path and swapped.
pub struct Ring {
    inner: consistent_hash_ring::Ring<MemberId, Xxh3>,
    members: Vec<MemberId>,
    digest: u64,
}

impl Ring {
    /// Builds a ring of these members and weights; their order does not matter.
    ///
    /// # Errors
    /// Says what is wrong with the list.
    pub fn build(members: &[(MemberId, u32)]) -> Result<Self, RingError> {
        if members.is_empty() {
            return Err(RingError::Empty);
        }
        if members.len() > MEMBERS_LIMIT {
            return Err(RingError::TooManyMembers);
        }
        let mut sorted = members.to_vec();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(RingError::Twice(pair[0].0));
        }
        if let Some((member, _)) = sorted.iter().find(|(_, weight)| !(1..=WEIGHT_LIMIT).contains(weight)) {
            return Err(RingError::Weight(*member));
        }
        let mut identity = ALGORITHM.to_vec();
        identity.extend_from_slice(&(VIRTUAL_NODES as u64).to_le_bytes());
        let mut builder = RingBuilder::new(Xxh3);
        for (member, weight) in &sorted {
            identity.extend_from_slice(&member.0.to_le_bytes());
            identity.extend_from_slice(&weight.to_le_bytes());
            builder = builder.weighted_node(*member, *weight as usize * VIRTUAL_NODES);
        }
        let members = sorted.iter().map(|(member, _)| *member).collect();
        Ok(Self { inner: builder.build(), members, digest: xxh3_64(&identity) })
    }

    /// Identifies the ring: equal digests mean equal answers.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Its members, in order.
    pub fn members(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.members.iter().copied()
    }

    /// The `count` members that answer for a key, the primary first; fewer when there are fewer members.
    pub fn replicas(&self, key: &str, count: usize) -> impl Iterator<Item = MemberId> + '_ {
        self.inner.replicas(xxh3_64(key.as_bytes())).take(count).copied()
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({} members, {:016x})", self.members.len(), self.digest)
    }
}

#[cfg(test)]
mod tests;
