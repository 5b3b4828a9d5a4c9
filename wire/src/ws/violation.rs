//! How a client can break the protocol, and what it is told.

/// A client broke the WebSocket protocol or one of our limits. The connection ends with [`Violation::close_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub enum Violation {
    /// A frame without a mask (RFC 6455, section 5.1).
    Unmasked,
    /// A reserved bit is set and no extension was negotiated (section 5.2).
    ReservedBits,
    /// An opcode without a meaning (section 5.2).
    ReservedOpcode,
    /// A control frame with more than 125 bytes (section 5.5).
    ControlTooLong,
    /// A control frame without the FIN bit (section 5.5).
    ControlFragmented,
    /// A continuation frame while no message is open (section 5.4).
    StrayContinuation,
    /// A new message inside a fragmented one (section 5.4).
    InterleavedMessage,
    /// A length that fits a shorter form (section 5.2: the minimal number of bytes must be used).
    NonMinimalLength,
    /// A 64-bit length with its most significant bit set (section 5.2).
    LengthTopBit,
    /// A message over the cap, seen from the frame's head.
    MessageTooBig,
    /// A message of too many fragments.
    TooManyFragments,
    /// Text that is not UTF-8 (section 8.1).
    InvalidUtf8,
    /// A close frame with half a code (section 5.5.1).
    CloseOneByte,
    /// A close code that may not be sent (section 7.4).
    CloseCode,
    /// A close reason that is not UTF-8 (section 5.5.1).
    CloseReasonUtf8,
}

impl Violation {
    /// The close code to send (RFC 6455, section 7.4.1).
    pub fn close_code(self) -> u16 {
        self.row().0
    }

    /// The value of a metric's label.
    pub fn label(self) -> &'static str {
        self.row().1
    }

    /// The reason to send in the close frame: short, and nothing of what the peer sent.
    pub fn reason(self) -> &'static str {
        self.row().2
    }

    /// Close code, metric label, reason.
    fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Unmasked => (1002, "unmasked", "frame is not masked"),
            Self::ReservedBits => (1002, "reserved_bits", "reserved bit is set"),
            Self::ReservedOpcode => (1002, "reserved_opcode", "reserved opcode"),
            Self::ControlTooLong => (1002, "control_too_long", "control frame is too long"),
            Self::ControlFragmented => (1002, "control_fragmented", "control frame is fragmented"),
            Self::StrayContinuation => (1002, "stray_continuation", "continuation without a message"),
            Self::InterleavedMessage => (1002, "interleaved_message", "new message inside a fragmented one"),
            Self::NonMinimalLength => (1002, "non_minimal_length", "length is not minimal"),
            Self::LengthTopBit => (1002, "length_top_bit", "length has its top bit set"),
            Self::MessageTooBig => (1009, "message_too_big", "message is too big"),
            Self::TooManyFragments => (1008, "too_many_fragments", "message has too many fragments"),
            Self::InvalidUtf8 => (1007, "invalid_utf8", "text is not utf-8"),
            Self::CloseOneByte => (1002, "close_one_byte", "close frame has one byte"),
            Self::CloseCode => (1002, "close_code", "close code is not valid"),
            Self::CloseReasonUtf8 => (1007, "close_reason_utf8", "close reason is not utf-8"),
        }
    }
}
