//! What a decoder holds. Budgets are tests: a node carries as many connections as these numbers let it.

use super::*;
use crate::limits::DECODER_RECORD_BYTES_LIMIT;

#[test]
fn an_idle_decoder_is_two_words_without_heap() {
    assert!(size_of::<Decoder>() <= 24, "{} bytes", size_of::<Decoder>());
    let whole =
        [frame(Text, b"hello"), frame(Ping, b""), part(Text, b"a"), frame(Continuation, b"b")].concat();
    for step in 1..=whole.len() {
        let (_, outcome, decoder) = run(&whole, step, &LIMITS);
        assert_eq!(outcome, Ok(()));
        assert!(decoder.is_idle(), "in pieces of {step}");
        assert_eq!(decoder.heap_bytes(), 0, "in pieces of {step}");
    }
}

#[test]
fn whole_frames_are_never_copied() {
    let mut decoder = Decoder::new();
    let mut scratch = frame(Binary, &[7; 1000]);
    let buffer = scratch.as_ptr_range();
    decoder
        .feed(&mut scratch, &LIMITS, &mut |incoming| match incoming {
            Incoming::Binary(payload) => assert!(buffer.contains(&payload.as_ptr()), "delivered in place"),
            other => panic!("{other:?}"),
        })
        .unwrap();
}

/// W5: a head may declare anything; memory follows the bytes that arrive.
#[test]
fn a_declared_length_is_not_reserved() {
    let limits = DecoderLimits::default();
    let head = [&[0x82, 0xFE][..], &60_000u16.to_be_bytes(), &KEY].concat();
    for sent in [0, 1, 100] {
        let bytes = [&head[..], &vec![1; sent]].concat();
        let (seen, outcome, decoder) = run(&bytes, bytes.len(), &limits);
        assert_eq!((seen.len(), outcome), (0, Ok(())));
        assert!(
            decoder.heap_bytes() <= DECODER_RECORD_BYTES_LIMIT,
            "{} bytes after {sent}",
            decoder.heap_bytes()
        );
    }
    let refused = [&[0x82, 0xFF][..], &(1u64 << 40).to_be_bytes(), &KEY].concat();
    let (_, outcome, decoder) = run(&refused, refused.len(), &limits);
    assert_eq!(outcome, Err(Violation::MessageTooBig));
    assert_eq!(decoder.heap_bytes(), 0);
}

/// Doubling must not run over the cap: 64 KiB of message is 64 KiB of memory, not 128.
#[test]
fn memory_stays_within_the_cap() {
    let limits = DecoderLimits { message_bytes: 10_000, fragments: 2000 };
    let one_frame = frame(Binary, &[1; 10_000]);
    let mut many = vec![part(Binary, &[1; 10])];
    many.extend((1..999).map(|_| part(Continuation, &[1; 10])));
    many.push(frame(Continuation, &[1; 10]));
    for (name, bytes) in [("one frame", one_frame), ("fragments", many.concat())] {
        let mut decoder = Decoder::new();
        let (mut largest, mut messages) = (0, 0);
        for piece in bytes.chunks(7) {
            decoder.feed(&mut piece.to_vec(), &limits, &mut |_| messages += 1).unwrap();
            largest = largest.max(decoder.heap_bytes());
        }
        assert_eq!(messages, 1, "{name}");
        assert!(largest <= 10_000 + DECODER_RECORD_BYTES_LIMIT, "{name}: {largest} bytes");
        assert_eq!(decoder.heap_bytes(), 0, "{name}");
    }
}

/// Found by fuzzing: the bound on the record had left out a ping cut off within a message, and its buffer grew by
/// doubling to nearly twice what a ping can have.
#[test]
fn a_ping_cut_off_within_a_message_is_within_the_bound() {
    let limits = DecoderLimits { message_bytes: 10, fragments: 2 };
    let bytes = [part(Binary, &[1; 10]), frame(Ping, &[2; 125])].concat();
    for step in 1..bytes.len() {
        let (_, outcome, decoder) = run(&bytes[..bytes.len() - 1], step, &limits);
        assert_eq!(outcome, Ok(()));
        assert!(decoder.heap_bytes() <= 10 + DECODER_RECORD_BYTES_LIMIT, "{} bytes", decoder.heap_bytes());
    }
}
