use super::*;
use crate::limits::{CHUNK_LINE_BYTES_LIMIT, CHUNK_TRAILERS_LIMIT};
use proptest::prelude::*;

/// In pieces of `step`: the data, how many bytes belong to the body, and whether it ended.
fn run(body: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), ChunkError> {
    let mut decoder = Decoder::new();
    let (mut out, mut used) = (Vec::new(), 0);
    for piece in body.chunks(step) {
        used += decoder.feed(piece, &mut out)?;
    }
    Ok((out, used, decoder.is_finished()))
}

#[track_caller]
fn check(body: &[u8], expected: Result<(&[u8], usize, bool), ChunkError>) {
    for step in (1..=8).chain([body.len().max(1)]) {
        let expected = expected.map(|(data, used, ended)| (data.to_vec(), used, ended));
        assert_eq!(run(body, step), expected, "in pieces of {step}");
    }
}

#[test]
fn heads() {
    for len in [1, 9, 10, 15, 16, 17, 255, 256, 4095, 65_536, usize::MAX] {
        let (head, used) = head(NonZeroUsize::new(len).unwrap());
        assert_eq!(head[..used], *format!("{len:x}\r\n").as_bytes());
    }
    assert_eq!(&encode(b"hello")[..], b"5\r\nhello\r\n");
    assert!(encode(b"").is_empty(), "an empty chunk would end the body");
}

#[test]
fn bodies() {
    check(b"", Ok((b"", 0, false)));
    check(LAST_CHUNK, Ok((b"", 5, true)));
    check(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", Ok((b"hello world", 26, true)));
    check(b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK", Ok((b"hello", 15, true)));
    check(b"5;name=value\r\nhello\r\n0;last\r\nX: y\r\n\r\n", Ok((b"hello", 37, true)));
    check(b"A\r\n0123456789\r\n", Ok((b"0123456789", 15, false)));
    check(b"000a\r\n0123456789\r\n", Ok((b"0123456789", 18, false)));
}

#[test]
fn bodies_that_are_not_chunked() {
    for bad in [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "+1\r\n",
        " 1\r\n",
        "0x1\r\n",
        "1 2\r\n",
        "10000000000000000\r\n",
        ";\r\n",
    ] {
        check(bad.as_bytes(), Err(ChunkError::Size));
    }
    check(b"5\nhello", Err(ChunkError::LineEnd));
    check(b"1\r\nab\r\n", Err(ChunkError::LineEnd));
    check(b"1\r\na\n", Err(ChunkError::LineEnd));
    let long = [b"1;".to_vec(), vec![b'x'; CHUNK_LINE_BYTES_LIMIT]].concat();
    check(&long, Err(ChunkError::LineTooLong));
    let trailers = [b"0\r\n".to_vec(), b"X: y\r\n".repeat(CHUNK_TRAILERS_LIMIT + 1)].concat();
    check(&trailers, Err(ChunkError::TooManyTrailers));
}

#[test]
fn a_failed_decoder_stays_failed() {
    let mut decoder = Decoder::new();
    let mut out = Vec::new();
    assert_eq!(decoder.feed(b"zz\r\n", &mut out), Err(ChunkError::Size));
    assert_eq!(decoder.feed(b"1\r\na\r\n", &mut out), Err(ChunkError::Size));
    assert!(out.is_empty());
}

proptest! {
    #[test]
    fn round_trip(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
        step in 1usize..50,
    ) {
        let mut body = Vec::new();
        for part in &parts {
            encode_into(part, &mut body);
        }
        body.extend_from_slice(LAST_CHUNK);
        let body_len = body.len();
        body.extend_from_slice(b"next");
        let read = run(&body, step).unwrap();
        prop_assert_eq!(read, (parts.concat(), body_len, true));
    }

    #[test]
    fn pieces_do_not_matter(body in "[0-9a-fA-F;\r\n x]{0,60}", step in 1usize..20) {
        prop_assert_eq!(run(body.as_bytes(), step), run(body.as_bytes(), body.len().max(1)));
    }
}
