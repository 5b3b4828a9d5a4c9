//! WebSocket decoder: any bytes a client may send, whole and in pieces.
//!
//! Input: one byte that seeds the cuts, one that picks the limits, then the stream.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{choice, pieces};
use tidegate_wire::limits::DECODER_RECORD_BYTES_LIMIT;
use tidegate_wire::ws::{Decoder, DecoderLimits, Incoming, Opcode, Violation, client, frame};

/// A message as (opcode, payload); a close as the server would send it back.
type Message = (u8, Vec<u8>);

fn owned(incoming: Incoming<'_>) -> Message {
    match incoming {
        Incoming::Text(text) => (Opcode::Text as u8, text.as_bytes().to_vec()),
        Incoming::Binary(payload) => (Opcode::Binary as u8, payload.to_vec()),
        Incoming::Ping(payload) => (Opcode::Ping as u8, payload.to_vec()),
        Incoming::Pong(payload) => (Opcode::Pong as u8, payload.to_vec()),
        Incoming::Close(None) => (Opcode::Close as u8, Vec::new()),
        Incoming::Close(Some((code, reason))) => {
            (Opcode::Close as u8, frame::close(code, reason).get(2..).unwrap_or_default().to_vec())
        }
    }
}

fn decode<'a>(
    stream: impl Iterator<Item = &'a [u8]>,
    limits: &DecoderLimits,
) -> (Vec<Message>, Result<(), Violation>) {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    for piece in stream {
        let mut scratch = piece.to_vec();
        let fed = decoder.feed(&mut scratch, limits, &mut |incoming| {
            assert!(
                messages.last().is_none_or(|(opcode, _)| *opcode != Opcode::Close as u8),
                "after a close"
            );
            messages.push(owned(incoming));
        });
        assert!(
            decoder.heap_bytes() <= limits.message_bytes + DECODER_RECORD_BYTES_LIMIT,
            "{} held",
            decoder.heap_bytes()
        );
        assert_eq!(decoder.is_idle(), decoder.heap_bytes() == 0);
        if fed.is_err() {
            assert!(decoder.is_ended() && decoder.is_idle());
            return (messages, fed);
        }
    }
    (messages, Ok(()))
}

fuzz_target!(|data: &[u8]| {
    let mut stream = data;
    let cuts = choice(&mut stream);
    let limits = match choice(&mut stream) % 4 {
        0 => DecoderLimits::default(),
        1 => DecoderLimits { message_bytes: 0, fragments: 1 },
        2 => DecoderLimits { message_bytes: 100, fragments: 2 },
        _ => DecoderLimits { message_bytes: 200, fragments: 16 },
    };
    let whole = decode(std::iter::once(stream), &limits);
    assert_eq!(decode(pieces(stream, cuts), &limits), whole, "the pieces mattered");

    // What was heard, said again in whole frames, is heard again.
    let mut again = Vec::new();
    for (opcode, payload) in &whole.0 {
        let key = [cuts, 1, 2, 3];
        client::raw_into(0x80 | opcode, payload, key, &mut again);
    }
    assert_eq!(decode(pieces(&again, cuts), &limits), (whole.0, Ok(())), "said again");
});
