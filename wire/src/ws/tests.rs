//! Tables of what a client may send and what comes of it. The case names W1.. are those of the threat list.

mod memory;
mod properties;

use super::Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
use super::client::{encode, raw_into};
use super::*;

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const LIMITS: DecoderLimits = DecoderLimits { message_bytes: 1024, fragments: 4 };

/// Feeds pieces of at most `step` bytes; what was delivered, as text, and how it ended.
fn run(bytes: &[u8], step: usize, limits: &DecoderLimits) -> (Vec<String>, Result<(), Violation>, Decoder) {
    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    let mut outcome = Ok(());
    for piece in bytes.chunks(step) {
        let mut scratch = piece.to_vec();
        let fed = decoder.feed(&mut scratch, limits, &mut |incoming| seen.push(format!("{incoming:?}")));
        outcome = outcome.and(fed);
    }
    (seen, outcome, decoder)
}

/// Whatever the pieces, `bytes` deliver `expected` and end as `outcome`.
#[track_caller]
fn check(name: &str, bytes: &[u8], expected: &[Incoming<'_>], outcome: Result<(), Violation>) {
    let expected: Vec<String> = expected.iter().map(|incoming| format!("{incoming:?}")).collect();
    for step in (1..=16).chain([bytes.len().max(1)]) {
        let (seen, ended, decoder) = run(bytes, step, &LIMITS);
        assert_eq!(seen, expected, "{name}, in pieces of {step}");
        assert_eq!(ended, outcome, "{name}, in pieces of {step}");
        if outcome.is_err() || decoder.is_ended() {
            assert!(decoder.is_ended() && decoder.is_idle(), "{name}: ended, so nothing is held");
        }
    }
}

/// One whole masked frame.
fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    encode(true, opcode, payload, KEY)
}

/// One masked fragment that is not the last.
fn part(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    encode(false, opcode, payload, KEY)
}

/// A masked frame with any first byte.
fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    raw_into(first, payload, KEY, &mut out);
    out
}

#[test]
fn whole_messages() {
    check("nothing", b"", &[], Ok(()));
    // RFC 6455, section 5.7: a masked "Hello".
    let hello = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    check("the rfc's example", &hello, &[Incoming::Text("Hello")], Ok(()));
    check("empty text", &frame(Text, b""), &[Incoming::Text("")], Ok(()));
    check("empty binary", &frame(Binary, b""), &[Incoming::Binary(b"")], Ok(()));
    for len in [1, 125, 126, 127, 1023, 1024] {
        let payload = vec![0xFE; len];
        check(&format!("{len} bytes"), &frame(Binary, &payload), &[Incoming::Binary(&payload)], Ok(()));
    }
    let two = [frame(Text, "κόσμε".as_bytes()), frame(Binary, &[0, 255])].concat();
    check("two in one read", &two, &[Incoming::Text("κόσμε"), Incoming::Binary(&[0, 255])], Ok(()));
}

#[test]
fn length_forms() {
    let big = DecoderLimits { message_bytes: 70_000, fragments: 1 };
    for len in [65_535, 65_536, 70_000] {
        let bytes = frame(Binary, &vec![7; len]);
        for step in [1000, 65_536, bytes.len()] {
            let (seen, outcome, _) = run(&bytes, step, &big);
            assert_eq!((seen.len(), outcome), (1, Ok(())), "{len} bytes in pieces of {step}");
        }
    }
}

#[test]
fn fragmented_messages() {
    let text = "a€𝄞".as_bytes();
    let cut_in_characters =
        [part(Text, &text[..2]), part(Continuation, &text[2..3]), frame(Continuation, &text[3..])].concat();
    check("text cut within characters", &cut_in_characters, &[Incoming::Text("a€𝄞")], Ok(()));

    let empties = [part(Binary, b""), part(Continuation, b""), frame(Continuation, b"")].concat();
    check("empty fragments", &empties, &[Incoming::Binary(b"")], Ok(()));

    let with_control =
        [part(Text, b"a"), frame(Ping, b"now"), frame(Pong, b""), frame(Continuation, b"b")].concat();
    let expected = [Incoming::Ping(b"now"), Incoming::Pong(b""), Incoming::Text("ab")];
    check("W4: control frames between fragments come at once", &with_control, &expected, Ok(()));

    let closed_within = [part(Text, b"a"), frame(Close, b""), frame(Continuation, b"b")].concat();
    check("close within a message", &closed_within, &[Incoming::Close(None)], Ok(()));
}

#[test]
fn frames_no_client_may_send() {
    let unmasked = [0x81, 0x01, b'a'];
    check("W1: no mask", &unmasked, &[], Err(Violation::Unmasked));
    check("W1: no mask, nothing else", &[0x81, 0x00], &[], Err(Violation::Unmasked));
    for bit in [0x40, 0x20, 0x10] {
        check("W2: rsv", &raw(0x81 | bit, b"a"), &[], Err(Violation::ReservedBits));
        check("W2: rsv on control", &raw(0x89 | bit, b""), &[], Err(Violation::ReservedBits));
    }
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        check("W2: opcode", &raw(0x80 | opcode, b"a"), &[], Err(Violation::ReservedOpcode));
    }
    for opcode in [Ping, Pong, Close] {
        check("W3: long control", &frame(opcode, &[b'a'; 126]), &[], Err(Violation::ControlTooLong));
        check("W3: fragmented control", &part(opcode, b""), &[], Err(Violation::ControlFragmented));
    }
    check("W3: the longest ping", &frame(Ping, &[9; 125]), &[Incoming::Ping(&[9; 125])], Ok(()));
    check("W4: continuation first", &frame(Continuation, b"a"), &[], Err(Violation::StrayContinuation));
    check("W4: part of nothing", &part(Continuation, b"a"), &[], Err(Violation::StrayContinuation));
    let after_message = [frame(Text, b"a"), frame(Continuation, b"b")].concat();
    check(
        "W4: continuation after",
        &after_message,
        &[Incoming::Text("a")],
        Err(Violation::StrayContinuation),
    );
    for opcode in [Text, Binary] {
        let interleaved = [part(Text, b"a"), frame(opcode, b"b")].concat();
        check("W4: message in a message", &interleaved, &[], Err(Violation::InterleavedMessage));
    }
    let good_before_bad = [frame(Text, b"a"), frame(Ping, b"p"), unmasked.to_vec()].concat();
    let delivered = [Incoming::Text("a"), Incoming::Ping(b"p")];
    check("what came before is delivered", &good_before_bad, &delivered, Err(Violation::Unmasked));
}

#[test]
fn lengths_no_client_may_send() {
    // A head with the long length forms, the mask and nothing else.
    let head16 = |len: u16| [&[0x82, 0xFE][..], &len.to_be_bytes(), &KEY].concat();
    let head64 = |len: u64| [&[0x82, 0xFF][..], &len.to_be_bytes(), &KEY].concat();
    check("W5: 125 in 16 bits", &head16(125), &[], Err(Violation::NonMinimalLength));
    check("W5: 0 in 16 bits", &head16(0), &[], Err(Violation::NonMinimalLength));
    check("W5: 65535 in 64 bits", &head64(65_535), &[], Err(Violation::NonMinimalLength));
    check("W5: 0 in 64 bits", &head64(0), &[], Err(Violation::NonMinimalLength));
    check("W5: top bit", &head64(1 << 63), &[], Err(Violation::LengthTopBit));
    check("W5: all bits", &head64(u64::MAX), &[], Err(Violation::LengthTopBit));
    check("W5: the largest length there is", &head64(u64::MAX >> 1), &[], Err(Violation::MessageTooBig));
    check("W5: one over the cap", &head16(1025), &[], Err(Violation::MessageTooBig));
    let sum = [part(Binary, &[0; 1000]), part(Continuation, &[0; 24]), frame(Continuation, &[0])].concat();
    check("W5: one over the cap in fragments", &sum, &[], Err(Violation::MessageTooBig));
    let huge =
        [part(Binary, &[0]), [&[0x80, 0xFF][..], &(u64::MAX >> 1).to_be_bytes(), &KEY].concat()].concat();
    check("W5: a sum that would overflow", &huge, &[], Err(Violation::MessageTooBig));
}

#[test]
fn endless_fragments() {
    for payload in [&b""[..], b"a"] {
        let four = [part(Text, payload), part(Continuation, payload), part(Continuation, payload)].concat();
        let last = frame(Continuation, payload);
        let text = "a".repeat(payload.len() * 4);
        check("W6: as many as allowed", &[&four[..], &last].concat(), &[Incoming::Text(&text)], Ok(()));
        let more = [&four[..], &part(Continuation, payload), &last].concat();
        check("W6: one more", &more, &[], Err(Violation::TooManyFragments));
    }
    let pings = [frame(Ping, b""), frame(Ping, b""), frame(Ping, b"")].concat();
    let with_pings = [part(Binary, b"a"), pings, frame(Continuation, b"b")].concat();
    let expected = [Incoming::Ping(b""), Incoming::Ping(b""), Incoming::Ping(b""), Incoming::Binary(b"ab")];
    check("W6: control frames are no fragments", &with_pings, &expected, Ok(()));
}

#[test]
fn text_that_is_not_utf8() {
    let bad: [(&str, &[u8]); 9] = [
        ("lone continuation", b"\x80"),
        ("two-byte form of a one-byte character", b"\xC0\xAF"),
        ("three-byte form of a two-byte character", b"\xE0\x80\xAF"),
        ("surrogate", b"\xED\xA0\x80"),
        ("above U+10FFFF", b"\xF4\x90\x80\x80"),
        ("five bytes", b"\xF8\x88\x80\x80\x80"),
        ("cut at the end", b"ok\xE2\x82"),
        ("cut in the middle", b"\xE2\x82ok"),
        ("a byte that never is", b"ok\xFF"),
    ];
    for (name, payload) in bad {
        check(name, &frame(Text, payload), &[], Err(Violation::InvalidUtf8));
        check(name, &frame(Binary, payload), &[Incoming::Binary(payload)], Ok(()));
        let fragmented = [part(Text, b"x"), part(Continuation, payload), frame(Continuation, b"y")].concat();
        check(name, &fragmented, &[], Err(Violation::InvalidUtf8));
    }
}

/// Autobahn 6.4.*: a server that waits for the end of a bad message holds memory for a peer that is already lost.
#[test]
fn bad_text_fails_before_the_rest_arrives() {
    let declared = [&[0x81, 0x80 | 100][..], &[0; 4], b"ok\xF4\x90"].concat();
    check("within a frame", &declared, &[], Err(Violation::InvalidUtf8));
    let open = [part(Text, b"\xF4"), part(Continuation, b"\x90")].concat();
    check("within a message", &open, &[], Err(Violation::InvalidUtf8));
    let still_possible = [part(Text, b"\xF4"), part(Continuation, b"\x8F")].concat();
    check("what can still become text is waited for", &still_possible, &[], Ok(()));
}

#[test]
fn closes() {
    let with = |code: u16, reason: &[u8]| frame(Close, &[&code.to_be_bytes(), reason].concat());
    check("no code", &frame(Close, b""), &[Incoming::Close(None)], Ok(()));
    check("W8: half a code", &frame(Close, &[3]), &[], Err(Violation::CloseOneByte));
    for code in
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
    {
        check("W8: may be sent", &with(code, b"bye"), &[Incoming::Close(Some((code, "bye")))], Ok(()));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check("W8: may not be sent", &with(code, b""), &[], Err(Violation::CloseCode));
    }
    check("W7: reason", &with(1000, b"\xFF"), &[], Err(Violation::CloseReasonUtf8));
    let longest = "r".repeat(123);
    check("longest", &with(1000, longest.as_bytes()), &[Incoming::Close(Some((1000, &longest)))], Ok(()));
    let after = [with(1000, b""), frame(Text, b"late"), vec![0xFF; 20]].concat();
    check("nothing after a close", &after, &[Incoming::Close(Some((1000, "")))], Ok(()));
}

#[test]
fn nothing_after_a_violation() {
    let mut decoder = Decoder::new();
    let mut count = 0;
    let mut feed = |bytes: &[u8]| decoder.feed(&mut bytes.to_vec(), &LIMITS, &mut |_| count += 1);
    assert_eq!(feed(&[0x81, 0x00]), Err(Violation::Unmasked));
    assert_eq!(feed(&frame(Text, b"late")), Ok(()), "the caller was told once");
    assert_eq!(count, 0);
}

#[test]
fn what_the_server_sends() {
    let check = |frame: bytes::Bytes, head: &[u8], payload: &[u8]| {
        assert_eq!(&frame[..], &[head, payload].concat()[..]);
    };
    check(frame::text("Hello"), &[0x81, 0x05], b"Hello");
    check(frame::binary(&[1; 125]), &[0x82, 125], &[1; 125]);
    check(frame::binary(&[1; 126]), &[0x82, 126, 0, 126], &[1; 126]);
    check(frame::binary(&vec![1; 65_535]), &[0x82, 126, 0xFF, 0xFF], &vec![1; 65_535]);
    check(frame::binary(&vec![1; 65_536]), &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], &vec![1; 65_536]);
    check(frame::ping(b"p"), &[0x89, 1], b"p");
    check(frame::pong(b""), &[0x8A, 0], b"");
    check(frame::ping(&[1; 200]), &[0x89, 125], &[1; 125]);
    check(frame::close(1000, "bye"), &[0x88, 5], b"\x03\xE8bye");
    check(frame::close_empty(), &[0x88, 0], b"");
    // 123 bytes are 41 characters of three.
    let long = "€".repeat(60);
    check(
        frame::close(4000, &long),
        &[0x88, 125],
        &[&4000u16.to_be_bytes()[..], "€".repeat(41).as_bytes()].concat(),
    );
    check(
        frame::close(4000, &format!("xx{long}")),
        &[0x88, 124],
        &[&4000u16.to_be_bytes()[..], "xx".as_bytes(), "€".repeat(40).as_bytes()].concat(),
    );
}

/// Every violation can be told to a peer in a close frame and counted under a name of its own.
#[test]
fn violations_have_a_code_a_reason_and_a_label() {
    use Violation::*;
    let all = [
        Unmasked,
        ReservedBits,
        ReservedOpcode,
        ControlTooLong,
        ControlFragmented,
        StrayContinuation,
        InterleavedMessage,
        NonMinimalLength,
        LengthTopBit,
        MessageTooBig,
        TooManyFragments,
        InvalidUtf8,
        CloseOneByte,
        CloseCode,
        CloseReasonUtf8,
    ];
    let labels: std::collections::BTreeSet<_> = all.iter().map(|violation| violation.label()).collect();
    assert_eq!(labels.len(), all.len());
    for violation in all {
        assert!(is_valid_close_code(violation.close_code()));
        assert!(violation.reason().len() <= crate::limits::CLOSE_REASON_BYTES_LIMIT);
        assert_eq!(violation.to_string(), violation.reason());
    }
}
