//! Identities: users, connections, process starts.

use std::fmt;

use arcstr::ArcStr;

use crate::channel::{Channel, ChannelError};

/// A user, as the token's `sub` names it. Same alphabet as a channel name, so that `user:<id>` is a channel.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(ArcStr);

/// Why a user id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserIdError {
    /// The id has no bytes.
    #[error("user id is empty")]
    Empty,
    /// `user:<id>` would not be a channel name.
    #[error("user id is not usable in a channel name")]
    NotAChannel(#[source] ChannelError),
}

impl UserId {
    /// Parses an id: 1 to 250 bytes of the channel alphabet.
    ///
    /// # Errors
    /// Says which rule the id breaks.
    pub fn parse(id: &str) -> Result<Self, UserIdError> {
        if id.is_empty() {
            return Err(UserIdError::Empty);
        }
        Channel::parse(&format!("user:{id}")).map_err(UserIdError::NotAChannel)?;
        Ok(Self(id.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// One start of one gateway or router process: 128 random bits, drawn anew at each start, never ordered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub u128);

impl Incarnation {
    /// Draws a new one from the system's generator.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// As it stands in messages: 16 bytes, big-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From a message; nothing where it has not 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(u128::from_be_bytes(bytes.try_into().ok()?)))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}…", (self.0 >> 96) as u32)
    }
}

/// One client connection of one gateway incarnation: unique without any agreement.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64, pub u64);

impl ConnectionId {
    /// The `sequence`-th connection of `incarnation`.
    #[must_use]
    pub fn new(incarnation: Incarnation, sequence: u64) -> Self {
        Self((incarnation.0 >> 64) as u64, sequence)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.0, self.1)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids() {
        assert!(UserId::parse("alice").is_ok());
        assert!(UserId::parse("alice@example.com").is_ok());
        assert_eq!(UserId::parse(""), Err(UserIdError::Empty));
        assert!(UserId::parse("a b").is_err());
        assert!(UserId::parse(&"x".repeat(250)).is_ok());
        assert!(UserId::parse(&"x".repeat(251)).is_err());
    }
}
