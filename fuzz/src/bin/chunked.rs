//! Chunked bodies: any bytes through the decoder, whole and in pieces; any data through the encoder and back.
//!
//! Input: one byte that seeds the cuts, then a body, which is also taken as data.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{choice, pieces};
use tidegate_wire::chunked::{ChunkError, Decoder, LAST_CHUNK, encode_into};

/// The data, how many bytes belong to the body, whether it ended, and what was wrong.
fn decode<'a>(body: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, usize, bool, Option<ChunkError>) {
    let mut decoder = Decoder::new();
    let (mut out, mut used) = (Vec::new(), 0);
    for piece in body {
        match decoder.feed(piece, &mut out) {
            Ok(count) => used += count,
            // How much of the failing piece was used depends on the piece.
            Err(error) => return (out, 0, false, Some(error)),
        }
    }
    (out, used, decoder.is_finished(), None)
}

fuzz_target!(|data: &[u8]| {
    let mut body = data;
    let cuts = choice(&mut body);
    let whole = decode(std::iter::once(body));
    assert_eq!(decode(pieces(body, cuts)), whole, "the pieces mattered");

    let mut encoded = Vec::new();
    for piece in pieces(body, cuts.wrapping_add(1)) {
        encode_into(piece, &mut encoded);
    }
    encoded.extend_from_slice(LAST_CHUNK);
    let body_len = encoded.len();
    encoded.extend_from_slice(b"next");
    assert_eq!(decode(pieces(&encoded, cuts)), (body.to_vec(), body_len, true, None));
});
