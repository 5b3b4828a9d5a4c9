//! The token from which a backend goes on reading: the next offset of every upstream partition.
//!
//! Before base64url: `version u8 = 1`, `epoch u64 LE`, then per partition `next u64 LE`, then the low 16 bits of the
//! XXH3 of all that precedes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tidegate_vocab::{LogEpoch, Offset};
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 1;
/// Characters of a token: as many partitions as a topic may reasonably have.
const TOKEN_BYTES_LIMIT: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeToken {
    /// The epoch in which the offsets count.
    pub epoch: LogEpoch,
    /// The next offset of each partition, by number.
    pub next: Vec<Offset>,
}

/// The token is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("resume token is damaged or was never ours")]
pub struct TokenError;

impl ResumeToken {
    /// Writes the token.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(11 + 8 * self.next.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.epoch.0.to_le_bytes());
        for next in &self.next {
            bytes.extend_from_slice(&next.0.to_le_bytes());
        }
        let check = xxh3_64(&bytes) as u16;
        bytes.extend_from_slice(&check.to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token.
    ///
    /// # Errors
    /// When it is not one of ours.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.len() > TOKEN_BYTES_LIMIT {
            return Err(TokenError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError)?;
        let (body, check) = bytes.split_last_chunk::<2>().ok_or(TokenError)?;
        if u16::from_le_bytes(*check) != xxh3_64(body) as u16 {
            return Err(TokenError);
        }
        let (version, rest) = body.split_first().ok_or(TokenError)?;
        let (epoch, rest) = rest.split_first_chunk::<8>().ok_or(TokenError)?;
        let (words, odd) = rest.as_chunks::<8>();
        if *version != VERSION || !odd.is_empty() {
            return Err(TokenError);
        }
        let next = words.iter().map(|word| Offset(u64::from_le_bytes(*word))).collect();
        Ok(Self { epoch: LogEpoch(u64::from_le_bytes(*epoch)), next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_and_damage_is_noticed() {
        let token = ResumeToken { epoch: LogEpoch(7), next: vec![Offset(0), Offset(9), Offset(u64::MAX)] };
        let text = token.encode();
        assert_eq!(ResumeToken::parse(&text), Ok(token));
        for bad in ["", "AQ", "not base64!", &text[..text.len() - 2], &format!("{text}AA")] {
            assert_eq!(ResumeToken::parse(bad), Err(TokenError), "{bad}");
        }
    }
}
