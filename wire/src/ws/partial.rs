//! What a decoder keeps between two reads: a head cut in two, a frame cut in two, a message that is not complete.

use super::head::{self, HEAD_BYTES_LIMIT, Head};
use super::{Incoming, Opcode, Violation};

/// The record behind a decoder that is not idle.
#[derive(Debug, Default)]
pub(super) struct Partial {
    head: CutHead,
    /// The frame whose payload is not complete.
    pub(super) frame: Option<OpenFrame>,
    /// What has arrived of the payload of an incomplete control frame.
    pub(super) control: Vec<u8>,
    /// The data message that has begun.
    pub(super) message: Option<Message>,
}

/// The first bytes of a frame head that is not complete.
#[derive(Debug, Default)]
struct CutHead {
    bytes: [u8; HEAD_BYTES_LIMIT],
    len: usize,
}

/// A frame whose head has arrived, but not all of its payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenFrame {
    pub(super) head: Head,
    /// Payload bytes so far.
    pub(super) received: usize,
}

/// A data message that has begun.
#[derive(Debug)]
pub(super) struct Message {
    is_text: bool,
    bytes: Vec<u8>,
    /// Of a text, `bytes[..checked]` is UTF-8 and the rest is the start of one character.
    checked: usize,
    /// Frames so far, the open one included.
    pub(super) fragments: u32,
}

impl Partial {
    /// Whether there is nothing to keep.
    pub(super) fn is_empty(&self) -> bool {
        self.head.len == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Heap bytes behind this record.
    pub(super) fn heap_bytes(&self) -> usize {
        self.control.capacity() + self.message.as_ref().map_or(0, |message| message.bytes.capacity())
    }

    /// Reads a head that may have begun in an earlier input: the head and how many bytes of `input` it took, or
    /// `None` after keeping all of `input`.
    ///
    /// # Errors
    /// A head no client may send.
    pub(super) fn read_head(&mut self, input: &[u8]) -> Result<Option<(Head, usize)>, Violation> {
        let kept = self.head.len;
        let free = self.head.bytes.get_mut(kept..).unwrap_or_default();
        let copied = free.len().min(input.len());
        for (to, from) in free.iter_mut().zip(input) {
            *to = *from;
        }
        let known = self.head.bytes.get(..kept + copied).unwrap_or_default();
        let Some((head, used)) = head::parse(known)? else {
            // invariant: a full array is a whole head, so all of the input fitted.
            debug_assert_eq!(copied, input.len());
            self.head.len = kept + copied;
            return Ok(None);
        };
        self.head.len = 0;
        Ok(Some((head, used - kept)))
    }
}

impl OpenFrame {
    /// Payload bytes that have not arrived.
    pub(super) fn missing(&self) -> usize {
        usize::try_from(self.head.len).unwrap_or(usize::MAX).saturating_sub(self.received)
    }
}

impl Message {
    /// A message that begins with a frame of this opcode.
    pub(super) fn begin(opcode: Opcode) -> Self {
        Self { is_text: opcode == Opcode::Text, bytes: Vec::new(), checked: 0, fragments: 0 }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes unmasked payload. Memory grows by doubling, as bytes arrive, and never beyond `end`, the largest length
    /// this message can still get.
    ///
    /// # Errors
    /// Text that can no longer become UTF-8.
    pub(super) fn append(&mut self, payload: &[u8], end: usize) -> Result<(), Violation> {
        let needed = self.bytes.len() + payload.len();
        debug_assert!(needed <= end, "the cap is checked before the payload is taken");
        if needed > self.bytes.capacity() {
            let wanted = needed.max(self.bytes.capacity() * 2).min(end);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(payload);
        if self.is_text { self.check_text() } else { Ok(()) }
    }

    /// Checks what was not checked yet, so that bad text fails before the rest of it arrives.
    fn check_text(&mut self) -> Result<(), Violation> {
        let unchecked = self.bytes.get(self.checked..).unwrap_or_default();
        match std::str::from_utf8(unchecked) {
            Ok(_) => self.checked = self.bytes.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Violation::InvalidUtf8),
        }
        Ok(())
    }

    /// The whole message.
    ///
    /// # Errors
    /// Text that ends within a character.
    pub(super) fn complete(&self) -> Result<Incoming<'_>, Violation> {
        data(self.is_text, &self.bytes)
    }
}

/// A whole message over its unmasked bytes.
///
/// # Errors
/// Text that is not UTF-8.
pub(super) fn data(is_text: bool, bytes: &[u8]) -> Result<Incoming<'_>, Violation> {
    if !is_text {
        return Ok(Incoming::Binary(bytes));
    }
    std::str::from_utf8(bytes).map(Incoming::Text).map_err(|_| Violation::InvalidUtf8)
}
