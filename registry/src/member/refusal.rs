//! What a member refuses.

use tidegate_vocab::ErrorKind;

/// Why a hello or a batch was refused; the stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A newer hello of the node came, or its lease ended.
    #[error("the stream was ended: a newer one came, or the lease ended")]
    Ended,
    /// A hello that an older one of its node overtook.
    #[error("a newer hello of the node came before")]
    StaleHello,
    /// There is no room for another node.
    #[error("too many nodes")]
    TooManyNodes,
    /// A batch is missing before this one, or a stream begins behind the one before.
    #[error("batch {got} cannot follow {applied}")]
    Gap {
        /// The last one applied.
        applied: u64,
        /// The one that came.
        got: u64,
    },
    /// The batch has more updates than one may have.
    #[error("a batch has {0} updates")]
    TooManyUpdates(usize),
    /// The address is too long.
    #[error("an address has {0} bytes")]
    LongAddress(usize),
}

impl Refusal {
    /// The kind that the peer hears.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Ended | Self::StaleHello => ErrorKind::Conflict,
            Self::TooManyNodes => ErrorKind::Overloaded,
            Self::Gap { .. } => ErrorKind::BadRequest,
            Self::TooManyUpdates(_) => ErrorKind::TooMany,
            Self::LongAddress(_) => ErrorKind::TooLarge,
        }
    }
}
