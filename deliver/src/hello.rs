//! What each side says first, and which version both go on with.

use tidegate_proto::deliver::v1 as wire;
use tidegate_tenure::ToRouter;
use tidegate_vocab::Incarnation;

/// A range of versions of the Deliver protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

/// What this build speaks. A release speaks its own version and the one before (TENURES, rule 11).
pub const VERSIONS: Versions = Versions { min: 1, max: 2 };
/// From this one on a router takes a `Cancel`; an older one would end the stream over it.
const CANCEL_SINCE: u32 = 2;

/// Why a peer's hello was refused. Closed: it is a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("the first frame is no hello")]
    Missing,
    #[error("an incarnation has 16 bytes, not {0}")]
    Incarnation(usize),
    #[error(
        "no version in common: the peer speaks {} to {}, this side {} to {}",
        .theirs.min, .theirs.max, .ours.min, .ours.max
    )]
    Versions { theirs: Versions, ours: Versions },
}

impl HelloError {
    /// All reasons, in the order of the variants.
    pub(crate) const REASONS: [&'static str; 3] = ["missing", "incarnation", "versions"];

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Incarnation(_) => "incarnation",
            Self::Versions { .. } => "versions",
        }
    }
}

/// What a peer said of itself, once both agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) incarnation: Incarnation,
    pub(crate) version: u32,
}

pub(crate) fn hello(incarnation: Incarnation) -> wire::Hello {
    wire::Hello {
        incarnation: incarnation.to_bytes().to_vec().into(),
        min_version: VERSIONS.min,
        max_version: VERSIONS.max,
    }
}

/// Both go on with the lower of the two newest versions, if both speak it.
pub(crate) fn agree(hello: &wire::Hello, ours: Versions) -> Result<Peer, HelloError> {
    let incarnation = Incarnation::from_bytes(&hello.incarnation);
    let incarnation = incarnation.ok_or(HelloError::Incarnation(hello.incarnation.len()))?;
    let theirs = Versions { min: hello.min_version, max: hello.max_version };
    let version = theirs.max.min(ours.max);
    if version < theirs.min || version < ours.min {
        return Err(HelloError::Versions { theirs, ours });
    }
    Ok(Peer { incarnation, version })
}

/// True when a router that agreed on this version understands the frame; one that it does not can be left out.
pub(crate) fn is_spoken(frame: &ToRouter, version: u32) -> bool {
    version >= CANCEL_SINCE || !matches!(frame, ToRouter::Cancel { .. })
}

#[cfg(test)]
mod tests {
    use tidegate_tenure::WantId;
    use tidegate_vocab::{Offset, PartitionId, Term, Topic};

    use super::*;

    #[test]
    fn a_router_of_version_1_is_not_told_to_cancel() {
        let (partition, term, n) = (PartitionId { topic: Topic::Events, number: 0 }, Term(1), 1);
        let cancel = ToRouter::Cancel { partition, term, n, want: WantId(1) };
        let ack = ToRouter::Ack { partition, term, n, next: Offset(1), number: 1, held: 1, held_xor: 1 };
        assert_eq!([1, 2].map(|version| is_spoken(&cancel, version)), [false, true]);
        assert_eq!([1, 2].map(|version| is_spoken(&ack, version)), [true, true]);
    }

    #[test]
    fn both_go_on_with_the_lower_of_the_newest() {
        let check = |theirs: (u32, u32), ours: (u32, u32), expected: Option<u32>| {
            let said = wire::Hello { min_version: theirs.0, max_version: theirs.1, ..hello(Incarnation(7)) };
            let agreed = agree(&said, Versions { min: ours.0, max: ours.1 });
            assert_eq!(agreed.ok(), expected.map(|version| Peer { incarnation: Incarnation(7), version }));
        };
        check((1, 1), (1, 1), Some(1));
        check((1, 2), (2, 3), Some(2));
        check((2, 5), (1, 3), Some(3));
        check((3, 4), (1, 2), None);
        check((1, 1), (2, 3), None);
        check((0, 0), (1, 1), None);
        check((2, 1), (1, 1), None);
    }

    #[test]
    fn a_refusal_names_both_ranges() {
        let said = wire::Hello { min_version: 4, max_version: 5, ..hello(Incarnation(7)) };
        let refusal = agree(&said, Versions { min: 2, max: 3 }).expect_err("nothing in common");
        assert_eq!(refusal.to_string(), "no version in common: the peer speaks 4 to 5, this side 2 to 3");
        assert!(HelloError::REASONS.contains(&refusal.reason()));
        let short = wire::Hello { incarnation: vec![1; 15].into(), ..said };
        assert_eq!(agree(&short, VERSIONS), Err(HelloError::Incarnation(15)));
    }
}
