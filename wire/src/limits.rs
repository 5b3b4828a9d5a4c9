//! The limits of this crate, each with its reason. The caller may set those that have a field in a limits struct.

/// Largest WebSocket message a client may send, in bytes. What a client says goes to a log whose records are of this
/// order; a larger limit is memory that every slow sender can hold.
pub const MESSAGE_BYTES_LIMIT: usize = 64 * 1024;

/// Largest number of frames in one fragmented WebSocket message. Without it a message of empty fragments never ends.
pub const FRAGMENTS_LIMIT: u32 = 1024;

/// Most that a WebSocket decoder holds on the heap beyond a message's bytes, in bytes: the record of what is not
/// complete, and a control frame cut off between fragments. Counted per connection with a message under way.
pub const DECODER_RECORD_BYTES_LIMIT: usize = 320;

/// Largest payload of a WebSocket control frame, in bytes (RFC 6455, section 5.5).
pub const CONTROL_BYTES_LIMIT: usize = 125;

/// Largest reason of a WebSocket close frame, in bytes: a control payload less the two bytes of the code.
pub const CLOSE_REASON_BYTES_LIMIT: usize = CONTROL_BYTES_LIMIT - 2;

/// Largest line of an event stream that the SSE parser holds, and largest data of one block, in bytes. Only clients
/// parse; this keeps a broken server from filling a test's memory.
pub const SSE_BLOCK_BYTES_LIMIT: usize = 16 * 1024 * 1024;

/// Largest chunk-size line or trailer line that the de-chunker accepts, in bytes.
pub const CHUNK_LINE_BYTES_LIMIT: usize = 4 * 1024;

/// Largest number of trailer lines that the de-chunker accepts.
pub const CHUNK_TRAILERS_LIMIT: usize = 64;

const _: () = assert!(CONTROL_BYTES_LIMIT < MESSAGE_BYTES_LIMIT);
