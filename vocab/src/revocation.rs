//! What ends the right to be connected before its token does.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::UserId;

/// Bytes of a token's id (`jti`, RFC 7519 section 4.1.7).
pub const TOKEN_ID_BYTES_LIMIT: usize = 256;

/// Some tokens of one user are no longer good, whatever they say themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Whose.
    pub user: UserId,
    /// Which of them.
    pub scope: RevocationScope,
}

/// Which tokens of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationScope {
    /// All that were issued (`iat`) before this second since the Unix epoch. One that does not say when is one of them.
    IssuedBefore(u64),
    /// The one with this id (`jti`).
    Token(TokenId),
}

/// The id of a token (`jti`), 1 to 256 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenId(Box<str>);

/// An id that is empty or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token id has 1 to {TOKEN_ID_BYTES_LIMIT} bytes")]
pub struct TokenIdError;

impl TokenId {
    /// Checks an id.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn parse(text: &str) -> Result<Self, TokenIdError> {
        if text.is_empty() || text.len() > TOKEN_ID_BYTES_LIMIT {
            Err(TokenIdError)
        } else {
            Ok(Self(text.into()))
        }
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a connection keeps of it; never 0.
    #[must_use]
    pub fn hash64(&self) -> u64 {
        xxh3_64(self.0.as_bytes()).max(1)
    }
}

/// Never the id itself: whoever reads a log could look for it.
impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({:016x})", self.hash64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_length() {
        assert_eq!(TokenId::parse(""), Err(TokenIdError));
        assert_eq!(TokenId::parse(&"x".repeat(TOKEN_ID_BYTES_LIMIT + 1)), Err(TokenIdError));
        let id = TokenId::parse(&"x".repeat(TOKEN_ID_BYTES_LIMIT)).expect("fits");
        assert_eq!(id.as_str().len(), TOKEN_ID_BYTES_LIMIT);
        assert!(!format!("{id:?}").contains("xx"), "{id:?}");
    }
}
