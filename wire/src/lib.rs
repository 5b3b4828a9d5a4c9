//! Sans-io codecs of the client transports: WebSocket, SSE, chunked bodies, HTTP/1 response heads.
//!
//! **Owns** the bytes on a client's socket once a request has turned out to be a stream: how a frame, a block or a
//! chunk is written, and how what a peer sends is read. Bytes go in, values come out, or the other way round.
//!
//! **Invariants**
//! - No input of a peer panics, and no length a peer declares is reserved before its bytes are there.
//! - Any split of a byte stream gives the same values as the whole of it.
//! - A decoder or parser between two messages holds no heap memory.
//! - A header value or an SSE field that could start a new line cannot be written: the types or the encoder refuse it.
//!
//! **Does not** read sockets, keep time, log, count or decide: timeouts, rate limits and metrics are the caller's.
//! Nothing here is bound to a thread.

#![forbid(unsafe_code)]

pub mod chunked;
pub mod http1;
pub mod limits;
pub mod object;
pub mod sse;
pub mod ws;
