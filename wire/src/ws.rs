//! The server's side of the WebSocket protocol (RFC 6455).
//!
//! **Owns** framing in both directions and the opening handshake. [`Decoder`] turns what a client sends into
//! [`Incoming`] messages; [`frame`] writes what the server sends; [`handshake`] judges the upgrade request and writes
//! the answer; [`client`] writes masked frames for tests and load.
//!
//! **Invariants**
//! - After a close frame or a [`Violation`] nothing more is delivered.
//! - A [`Decoder`] between messages holds no heap memory; within a message it holds at most the message's cap and a
//!   small fixed record.
//! - Server frames are not masked and not fragmented, so one encoded frame serves every socket.
//!
//! **Does not** answer pings or closes by itself, keep time (a message that never ends is found through
//! [`Decoder::is_idle`]), limit the rate of messages, look at `Origin`, or negotiate extensions.

pub mod client;
mod close;
mod decoder;
pub mod frame;
pub mod handshake;
mod head;
mod mask;
mod partial;
mod violation;

pub use close::is_valid_close_code;
pub use decoder::{Decoder, DecoderLimits};
pub use violation::Violation;

/// What a client sent: whole messages, and control frames as soon as they are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping; the answer is a pong with the same payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// A pong, asked for or not; at most 125 bytes.
    Pong(&'a [u8]),
    /// The client closes, with a valid code and a reason if it gave them. Nothing follows.
    Close(Option<(u16, &'a str)>),
}

/// Frame types (RFC 6455, section 11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation = 0x0,
    /// UTF-8 text.
    Text = 0x1,
    /// Bytes.
    Binary = 0x2,
    /// Close.
    Close = 0x8,
    /// Ping.
    Ping = 0x9,
    /// Pong.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode with these four bits, unless it is reserved.
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xA => Some(Self::Pong),
            _ => None,
        }
    }

    /// Whether this is a control frame: short, never fragmented, allowed between fragments.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

#[cfg(test)]
mod tests;
