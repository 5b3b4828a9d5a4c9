//! The decoder of what a client sends.

use super::head::{self, Head};
use super::partial::{Message, OpenFrame, Partial, data};
use super::{Incoming, Opcode, Violation, close, mask};
use crate::limits::{CONTROL_BYTES_LIMIT, FRAGMENTS_LIMIT, MESSAGE_BYTES_LIMIT};

/// What a decoder allows; one value serves every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Largest message, in bytes. Default [`MESSAGE_BYTES_LIMIT`].
    pub message_bytes: usize,
    /// Largest number of frames in a message. Default [`FRAGMENTS_LIMIT`].
    pub fragments: u32,
}

impl Default for DecoderLimits {
    fn default() -> Self {
        Self { message_bytes: MESSAGE_BYTES_LIMIT, fragments: FRAGMENTS_LIMIT }
    }
}

/// Decodes one client's frames from whatever pieces the socket gives.
///
/// The input is the caller's scratch buffer, shared by many connections: frames that are whole in it are unmasked and
/// delivered in place, and only what is cut off at its end is kept. Between messages this is two words and no heap.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
    ended: bool,
}

/// What is left of an input after one frame or a part of one.
type Rest<'a> = &'a mut [u8];

impl Decoder {
    /// A decoder at the start of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the connection and calls `on` for each message and control frame they complete. The
    /// input is unmasked in place; its content is of no use afterwards.
    ///
    /// Once a close was delivered or an error returned, further input is ignored and nothing is held.
    ///
    /// # Errors
    /// The first way in which the client broke the protocol; what came before it was delivered.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        limits: &DecoderLimits,
        on: &mut dyn FnMut(Incoming<'_>),
    ) -> Result<(), Violation> {
        let mut rest = input;
        while !self.ended && !rest.is_empty() {
            rest = match self.step(rest, limits, on) {
                Ok(rest) => rest,
                Err(violation) => {
                    self.end();
                    return Err(violation);
                }
            };
        }
        if self.partial.as_ref().is_some_and(|partial| partial.is_empty()) {
            self.partial = None;
        }
        Ok(())
    }

    /// Whether no message and no frame has begun: time without a whole message is then not the client's fault.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Whether a close was delivered or an error returned.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Heap memory held, in bytes: 0 when idle, otherwise at most the message cap and
    /// [`DECODER_RECORD_BYTES_LIMIT`](crate::limits::DECODER_RECORD_BYTES_LIMIT).
    pub fn heap_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.heap_bytes())
    }

    /// Handles the input up to the end of one frame, or all of it.
    fn step<'a>(
        &mut self,
        input: Rest<'a>,
        limits: &DecoderLimits,
        on: &mut dyn FnMut(Incoming<'_>),
    ) -> Result<Rest<'a>, Violation> {
        if let Some(frame) = self.partial.as_mut().and_then(|partial| partial.frame.take()) {
            return self.take_payload(frame, input, limits, on);
        }
        let parsed = match &mut self.partial {
            Some(partial) => partial.read_head(input)?,
            None => head::parse(input)?,
        };
        let Some((head, used)) = parsed else {
            if self.partial.is_none() {
                self.partial_mut().read_head(input)?;
            }
            return Ok(&mut []);
        };
        let (_, input) = input.split_at_mut(used);
        self.admit(&head, limits)?;

        let is_whole = usize::try_from(head.len).is_ok_and(|len| len <= input.len());
        let stands_alone = head.opcode.is_control() || (head.fin && head.opcode != Opcode::Continuation);
        if is_whole && stands_alone {
            return self.deliver_in_place(&head, input, on);
        }
        let frame = self.open(head);
        self.take_payload(frame, input, limits, on)
    }

    /// Whether a frame with this head may come now and fits the limits, before any of its payload is taken.
    fn admit(&self, head: &Head, limits: &DecoderLimits) -> Result<(), Violation> {
        if head.opcode.is_control() {
            return Ok(());
        }
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        let is_continuation = head.opcode == Opcode::Continuation;
        let (held, fragments) = match message {
            None if is_continuation => return Err(Violation::StrayContinuation),
            Some(_) if !is_continuation => return Err(Violation::InterleavedMessage),
            None => (0, 0),
            Some(message) => (message.len(), message.fragments),
        };
        if head.len > limits.message_bytes.saturating_sub(held) as u64 {
            return Err(Violation::MessageTooBig);
        }
        if fragments >= limits.fragments {
            return Err(Violation::TooManyFragments);
        }
        Ok(())
    }

    /// Delivers a frame that is a whole message or control frame and lies whole at the start of `input`.
    fn deliver_in_place<'a>(
        &mut self,
        head: &Head,
        input: Rest<'a>,
        on: &mut dyn FnMut(Incoming<'_>),
    ) -> Result<Rest<'a>, Violation> {
        let (payload, rest) = input.split_at_mut(head.len as usize);
        mask::apply(payload, head.mask, 0);
        match head.opcode {
            Opcode::Text | Opcode::Binary => on(data(head.opcode == Opcode::Text, payload)?),
            Opcode::Ping | Opcode::Pong | Opcode::Close => self.deliver_control(head.opcode, payload, on)?,
            Opcode::Continuation => debug_assert!(false, "a continuation never stands alone"),
        }
        Ok(rest)
    }

    /// Begins a frame that has to be kept: it is cut off, or part of a fragmented message.
    fn open(&mut self, head: Head) -> OpenFrame {
        let partial = self.partial_mut();
        if head.opcode.is_control() {
            // At most 125 bytes, so the one length that is reserved as declared: growing could take twice as many.
            partial.control.reserve_exact(head.len as usize);
        } else {
            partial.message.get_or_insert_with(|| Message::begin(head.opcode)).fragments += 1;
        }
        OpenFrame { head, received: 0 }
    }

    /// Moves what `input` has of an open frame's payload into the record, and delivers what this completes.
    fn take_payload<'a>(
        &mut self,
        mut frame: OpenFrame,
        input: Rest<'a>,
        limits: &DecoderLimits,
        on: &mut dyn FnMut(Incoming<'_>),
    ) -> Result<Rest<'a>, Violation> {
        let head = frame.head;
        let missing = frame.missing();
        let taken = missing.min(input.len());
        let (payload, rest) = input.split_at_mut(taken);
        mask::apply(payload, head.mask, frame.received);
        frame.received += taken;
        let is_complete = taken == missing;

        let partial = self.partial_mut();
        if !is_complete {
            partial.frame = Some(frame);
        }
        if head.opcode.is_control() {
            debug_assert!(partial.control.len() + taken <= CONTROL_BYTES_LIMIT, "checked in the head");
            partial.control.extend_from_slice(payload);
            if is_complete {
                let payload = std::mem::take(&mut partial.control);
                self.deliver_control(head.opcode, &payload, on)?;
            }
            return Ok(rest);
        }

        let message = partial.message.get_or_insert_with(|| Message::begin(head.opcode));
        let frame_end = message.len() + missing;
        let end = if head.fin { frame_end } else { frame_end.max(limits.message_bytes) };
        message.append(payload, end)?;
        if is_complete && head.fin {
            on(message.complete()?);
            partial.message = None;
        }
        Ok(rest)
    }

    /// Delivers a whole control frame.
    fn deliver_control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        on: &mut dyn FnMut(Incoming<'_>),
    ) -> Result<(), Violation> {
        match opcode {
            Opcode::Ping => on(Incoming::Ping(payload)),
            Opcode::Pong => on(Incoming::Pong(payload)),
            _ => {
                on(close::parse(payload)?);
                self.end();
            }
        }
        Ok(())
    }

    /// The record of what is not complete, made if need be.
    fn partial_mut(&mut self) -> &mut Partial {
        self.partial.get_or_insert_default()
    }

    /// Nothing follows: lets go of everything.
    fn end(&mut self) {
        self.ended = true;
        self.partial = None;
    }
}
