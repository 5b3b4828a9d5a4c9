//! Keys of the table: names of subjects, in place up to 22 bytes, and how they are hashed.

use std::borrow::{Borrow, Cow};
use std::hash::{BuildHasher, Hash, Hasher};

use tidegate_vocab::Channel;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::frame::SubjectKind;

const INLINE_BYTES: usize = 22;
/// What is left out of `user:<id>`, which most names are: the key is `:<id>`.
const LEFT_OUT: &str = "user";
/// Before a name that begins with a colon itself, or with this: no channel's name has this byte.
const ESCAPE: char = '\0';

/// The key of a subject's name: mostly a part of it. Two names never have the same.
pub(crate) fn key_of(name: &str) -> Cow<'_, str> {
    match name.strip_prefix(LEFT_OUT).filter(|rest| rest.starts_with(':')) {
        Some(rest) => Cow::Borrowed(rest),
        None if name.starts_with([':', ESCAPE]) => Cow::Owned(format!("{ESCAPE}{name}")),
        None => Cow::Borrowed(name),
    }
}

/// The key of a subject in 24 bytes; longer ones have an allocation of their own.
#[derive(Clone)]
pub(crate) enum CompactId {
    Inline(u8, [u8; INLINE_BYTES]),
    Boxed(Box<[u8]>),
}

const _: () = assert!(size_of::<CompactId>() == 24);

impl CompactId {
    /// Of a subject's name.
    pub(crate) fn new(name: &str) -> Self {
        let key = key_of(name);
        let bytes = key.as_bytes();
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

    /// Reads where it begins.
    pub(crate) fn touch(&self) -> u8 {
        match self {
            Self::Inline(length, _) => *length,
            Self::Boxed(_) => 0,
        }
    }

    fn as_str(&self) -> &str {
        // invariant: the bytes were a str
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The subject's name.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        let key = self.as_str();
        match self.kind() {
            SubjectKind::User => Cow::Owned(format!("{LEFT_OUT}{key}")),
            SubjectKind::Channel => Cow::Borrowed(key.strip_prefix(ESCAPE).unwrap_or(key)),
        }
    }

    /// The subject. `None` is never: only names of channels become keys.
    pub(crate) fn subject(&self) -> Option<Channel> {
        Channel::parse(&self.name()).ok()
    }

    pub(crate) fn kind(&self) -> SubjectKind {
        if self.as_bytes().first() == Some(&b':') { SubjectKind::User } else { SubjectKind::Channel }
    }
}

impl std::fmt::Debug for CompactId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.name())
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

/// XXH3 with a seed of the process: clients choose names, and must not choose their buckets.
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
    fn names_of_any_length_come_back_and_hash_like_their_keys() {
        for length in [1, 12, 21, 22, 23, 249] {
            for prefix in ["", "user:", ":", "user", "users:"] {
                let name = prefix.to_owned() + &"x".repeat(length);
                let compact = CompactId::new(&name);
                assert_eq!(compact.subject().expect("a channel").as_str(), name);
                assert_eq!(compact.kind() == SubjectKind::User, prefix == "user:", "{name}");
                assert_eq!(Seeded(7).hash_one(&compact), Seeded(7).hash_one(key_of(&name).as_bytes()));
                assert_ne!(Seeded(7).hash_one(&compact), Seeded(8).hash_one(&compact));
                assert!(compact == CompactId::new(&name) && compact != CompactId::new("other"));
            }
        }
    }

    #[test]
    fn no_two_names_have_the_same_key() {
        let names = ["a", ":a", "::a", "user:a", "user::a", "user:", "user", ":", "user:user:a", "\0:a"];
        let keys: std::collections::HashSet<_> = names.iter().map(|name| key_of(name)).collect();
        assert_eq!(keys.len(), names.len());
    }
}
