//! The words every other crate speaks: channels, positions, cursors, events, ids, error kinds and limits.
//!
//! Owns the grammar of each value that crosses a boundary and the one table of limits and of error kinds.
//! Does no IO, holds no clock and knows no transport. Every parser here takes bytes from a peer, so none may
//! panic and each has its limit in [`limits`].

mod channel;
mod cursor;
pub mod error_kind;
mod event;
mod ids;
mod json;
pub mod limits;
mod partition;
mod position;
mod revocation;
mod trace;

pub use channel::{Channel, ChannelError};
pub use cursor::{Cursor, CursorError, CursorSection};
pub use error_kind::{ErrorKind, Problem};
pub use event::{Event, EventName, EventNameError, Payload};
pub use ids::{ConnectionId, Incarnation, UserId, UserIdError};
pub use json::{JsonError, compact_json, push_json_string};
pub use partition::{PartitionCounts, PartitionId, Topic, partition_number};
pub use position::{LogEpoch, Offset, Position, PositionError, Term};
pub use revocation::{Revocation, RevocationScope, TOKEN_ID_BYTES_LIMIT, TokenId, TokenIdError};
pub use trace::{TraceContext, TraceContextError};
