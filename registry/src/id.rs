//! Keys of the table: user ids, in place up to 22 bytes, and how they are hashed.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

const INLINE_BYTES: usize = 22;

/// A user id in 24 bytes; longer ids have an allocation of their own.
#[derive(Clone)]
pub(crate) enum CompactId {
    Inline(u8, [u8; INLINE_BYTES]),
    Boxed(Box<[u8]>),
}

const _: () = assert!(size_of::<CompactId>() == 24);

impl CompactId {
    pub(crate) fn new(id: &str) -> Self {
        let bytes = id.as_bytes();
        let mut inline = [0; INLINE_BYTES];
        match inline.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                Self::Inline(bytes.len() as u8, inline)
            }
            None => Self::Boxed(bytes.into()),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            // invariant: the length is that of what was copied in
            Self::Inline(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Boxed(bytes) => bytes,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        // invariant: the bytes were a str
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl std::fmt::Debug for CompactId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "@{}", self.as_str())
    }
}

impl PartialEq for CompactId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for CompactId {}

impl Hash for CompactId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl Borrow<[u8]> for CompactId {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// XXH3 with a seed of the process: users choose their ids, and must not choose their buckets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seeded(pub(crate) u64);

impl BuildHasher for Seeded {
    type Hasher = Xxh3;

    fn build_hasher(&self) -> Xxh3 {
        Xxh3(self.0)
    }
}

/// Hashes what is written, seeded by what was written before.
#[derive(Debug)]
pub(crate) struct Xxh3(u64);

impl Hasher for Xxh3 {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// The length of what follows, which XXH3 takes in anyway.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_any_length_come_back_and_hash_like_their_bytes() {
        for length in [1, 12, 21, 22, 23, 250] {
            let id = "ü".repeat(length / 2) + if length % 2 == 1 { "x" } else { "" };
            let compact = CompactId::new(&id);
            assert_eq!(compact.as_str(), id);
            assert_eq!(Seeded(7).hash_one(&compact), Seeded(7).hash_one(id.as_bytes()));
            assert_ne!(Seeded(7).hash_one(&compact), Seeded(8).hash_one(&compact));
            assert!(compact == CompactId::new(&id) && compact != CompactId::new("other"));
        }
    }
}
