//! Event streams, `text/event-stream` (WHATWG HTML, section 9.2 "Server-sent events").
//!
//! **Owns** how a block is written ([`Block`], [`comment_into`]) and, for tests and load, how one is read
//! ([`Parser`]). **Invariants:** a block that was written reads back as the same block, with every line break in the
//! data as LF; a name or id that could break out of its line is refused and nothing of its block is written. **Does
//! not** frame chunks, escape JSON, or reconnect.

mod encode;
mod parse;

pub use encode::{Block, FieldError, check_event, check_id, comment_into};
pub use parse::{BlockTooLong, Item, ParsedBlock, Parser};

#[cfg(test)]
mod tests;
