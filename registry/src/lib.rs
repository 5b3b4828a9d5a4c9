//! Where a user is: the consistent-hash ring over registry members.
//!
//! Owns the ring: which members answer for a key, in order of preference. Its identity is a digest of everything that
//! decides an answer, so that two processes can tell whether theirs agree. Members, leases and lookups come with the
//! registry role; nothing in `dev` needs them, for one node is everywhere.

mod ring;

pub use ring::{MemberId, Ring, RingError};
