//! The one grammar of channel names.

use std::fmt;

use arcstr::ArcStr;
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::UserId;
use crate::limits;

/// The name of a channel: the unit of subscription, of order and of history.
///
/// Grammar: 1 to 255 bytes, each an ASCII letter, a digit or one of `-_.~:/@+=,!$&*#'()`. The part before the
/// first `:` is its **namespace** (empty when there is none). ASCII only, so that two names which look alike are
/// alike. `user:<id>` is a user's own channel and `everyone` reaches every connection; both are reserved: nobody
/// names them in a subscription. Cloning is a reference count, and a name is one thin pointer: a node keeps millions.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(ArcStr);

const _: () = assert!(size_of::<Option<Channel>>() == 8);

/// Why a channel name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The name has no bytes.
    #[error("channel name is empty")]
    Empty,
    /// The name has more than [`limits::CHANNEL_BYTES_LIMIT`] bytes.
    #[error("channel name is longer than 255 bytes")]
    TooLong,
    /// A byte outside the grammar, and where it stands.
    #[error("channel name has a character that is not allowed, at byte {at}")]
    BadByte {
        /// Zero-based byte offset of the first byte outside the grammar.
        at: usize,
    },
}

const USER_PREFIX: &str = "user:";
const EVERYONE: ArcStr = arcstr::literal!("everyone");

impl Channel {
    /// Parses a name by the grammar above.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn parse(name: &str) -> Result<Self, ChannelError> {
        if name.is_empty() {
            return Err(ChannelError::Empty);
        }
        if name.len() > limits::CHANNEL_BYTES_LIMIT {
            return Err(ChannelError::TooLong);
        }
        match name.bytes().position(|byte| !is_allowed(byte)) {
            Some(at) => Err(ChannelError::BadByte { at }),
            None => Ok(Self(name.into())),
        }
    }

    /// The channel of one user, followed implicitly by that user's connections and by nobody else.
    #[must_use]
    pub fn of_user(user: &UserId) -> Self {
        Self(format!("{USER_PREFIX}{user}").into())
    }

    /// The one channel that every connection follows implicitly.
    #[must_use]
    pub fn everyone() -> Self {
        Self(EVERYONE)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `:`, or "" when there is none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or("", |(namespace, _)| namespace)
    }

    /// True for `user:<anything>`.
    #[must_use]
    pub fn is_user(&self) -> bool {
        self.0.starts_with(USER_PREFIX)
    }

    /// True for the channel that every connection follows.
    #[must_use]
    pub fn is_everyone(&self) -> bool {
        self.0 == EVERYONE
    }

    /// True when no client may name this channel in a subscription or a message.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.is_user() || self.is_everyone()
    }

    /// A 64-bit hash, the same on every machine and version (XXH3 of the name).
    #[must_use]
    pub fn hash64(&self) -> u64 {
        xxh3_64(self.0.as_bytes())
    }

    /// The 32 bits by which a cursor remembers that it covers this channel.
    #[must_use]
    pub fn fingerprint(&self) -> u32 {
        (self.hash64() >> 32) as u32
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~:/@+=,!$&*#'()".contains(&byte)
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(name: &str, expected: Result<&str, ChannelError>) {
        let parsed = Channel::parse(name);
        assert_eq!(parsed.as_ref().map(Channel::as_str), expected.as_ref().map(|s| *s), "{name:?}");
    }

    #[test]
    fn bad_channel_names() {
        check("score:42", Ok("score:42"));
        check("a", Ok("a"));
        check("chat:a@b.example+x/y", Ok("chat:a@b.example+x/y"));
        check("", Err(ChannelError::Empty));
        check(&"x".repeat(255), Ok(&"x".repeat(255)));
        check(&"x".repeat(256), Err(ChannelError::TooLong));
        check("a b", Err(ChannelError::BadByte { at: 1 }));
        check("a\nb", Err(ChannelError::BadByte { at: 1 }));
        check("a\0", Err(ChannelError::BadByte { at: 1 }));
        check("a\u{7f}", Err(ChannelError::BadByte { at: 1 }));
        check("caf\u{e9}", Err(ChannelError::BadByte { at: 3 }));
        check("a\"b", Err(ChannelError::BadByte { at: 1 }));
        check("a\\b", Err(ChannelError::BadByte { at: 1 }));
        check("a<b", Err(ChannelError::BadByte { at: 1 }));
        check("score:{x}", Err(ChannelError::BadByte { at: 6 }));
    }

    #[test]
    fn namespaces_and_reserved_names() {
        let of = |name: &str| Channel::parse(name).expect("valid");
        assert_eq!(of("score:42").namespace(), "score");
        assert_eq!(of("a:b:c").namespace(), "a");
        assert_eq!(of("plain").namespace(), "");
        assert!(of("user:alice").is_reserved() && of("user:").is_reserved() && of("everyone").is_reserved());
        assert!(!of("users:alice").is_reserved() && !of("everyone:else").is_reserved());
        assert!(!of("User:alice").is_reserved(), "names are case-sensitive");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_and_never_panics(name in ".{0,300}") {
            if let Ok(channel) = Channel::parse(&name) {
                prop_assert_eq!(channel.as_str(), name.as_str());
                prop_assert!(name.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'"' && b != b'\\'));
            }
        }
    }
}
