//! Frames of the state machines to messages of the Deliver stream and back.
//!
//! Whatever a peer sends is either a whole frame with valid names or an error: nothing is guessed. Hellos are not
//! frames of a partition; the two ends deal with them before any other.

mod from_wire;
mod revocation;
mod to_wire;

use tidegate_vocab::Topic;

pub use from_wire::{event_from_wire, partition_from_wire, to_node_from_wire, to_router_from_wire};
pub use revocation::{revocation_from_wire, revocation_to_wire};
pub use to_wire::{event_to_wire, partition_to_wire, to_node_to_wire, to_router_to_wire};

/// A message that is no frame. The stream that it came on is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A field that every such frame has is missing.
    #[error("frame lacks {0}")]
    Missing(&'static str),
    /// A name or number that breaks its rule.
    #[error("frame has a bad {0}")]
    Bad(&'static str),
}

/// The number of a topic on the wire; 0 is taken by "unspecified".
fn topic_number(topic: Topic) -> i32 {
    i32::from(topic as u8) + 1
}

fn topic_of_number(number: i32) -> Option<Topic> {
    let known = u8::try_from(number.checked_sub(1)?).ok().and_then(Topic::from_number)?;
    Topic::FOLLOWED.contains(&known).then_some(known)
}

#[cfg(test)]
mod tests;
