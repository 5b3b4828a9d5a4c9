//! The delivery protocol as two pure state machines: [`Owner`] at the router and [`Node`] at the gateway.
//!
//! Owns: tenures, terms, send pointers, wants, resumes, marks and what is told as lost, for **one partition** each.
//! No tokio, no IO, no clock, no randomness: frames, rows and the time come in, frames and deliveries go out, so that
//! production, tests and simulation run the very same code.
//!
//! Invariants (TENURES rules in brackets):
//! - Owner: `Mark.next <= S <= H` once S has caught up with a Resume from above H [5]; S and H only rise within a tenure;
//!   a History is cut at S in the step that adds its want [7]; no frame of another term or Resume number is heeded [4].
//! - Node: a data frame is heeded only from the current owner's stream, with its term and the current `n` [4]; `n` and
//!   the accepted term never fall; only Event and Mark move `next` [5]; a Want dies with its `n` and is sent again [8].
//!
//! What it does not do: it holds no socket and no queue; drivers give it room and carry what it says.

mod frame;
mod node;
mod owner;
mod window;

pub use frame::{LostReason, Outcome, StreamId, ToNode, ToRouter, WantFrom, WantId};
pub use node::{Node, NodeOut};
pub use owner::{Chunk, Nonce, Owner, OwnerOut, Record, Row, Rows, RowsError};
pub use window::{KeyedRecord, Verdict, Window};
