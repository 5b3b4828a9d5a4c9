//! Event streams: any bytes through the parser, whole and in pieces; any fields through the encoder and back.
//!
//! Input: one byte that seeds the cuts, then a stream, which is also taken as fields separated by 0xFF.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{choice, pieces};
use tidegate_wire::sse::{Block, Item, ParsedBlock, Parser, check_event, check_id, comment_into};

fn parse<'a>(stream: impl Iterator<Item = &'a [u8]>) -> Vec<Item> {
    let mut parser = Parser::new();
    let mut items = Vec::new();
    for piece in stream {
        assert_eq!(parser.feed(piece, &mut |item| items.push(item)), Ok(()));
    }
    items
}

fn round_trip(fields: &[u8], cuts: u8) {
    let mut texts = fields.split(|byte| *byte == 0xFF).map(|field| std::str::from_utf8(field).ok());
    let mut next = || texts.next().flatten();
    let written =
        Block { event: next(), id: next(), data: next(), retry_ms: (cuts > 127).then_some(cuts.into()) };
    let comment = next().unwrap_or_default();

    let mut stream = Vec::new();
    comment_into("start", &mut stream);
    let before = stream.len();
    let is_valid = written.event.is_none_or(|event| check_event(event).is_ok())
        && written.id.is_none_or(|id| check_id(id).is_ok());
    let outcome = written.encode_into(&mut stream);
    assert_eq!(outcome.is_ok(), is_valid);
    assert!(is_valid || stream.len() == before, "half a block");
    comment_into(comment, &mut stream);

    let items = parse(pieces(&stream, cuts));
    let blocks: Vec<&ParsedBlock> = items
        .iter()
        .filter_map(|item| match item {
            Item::Block(block) => Some(block),
            Item::Comment(_) => None,
        })
        .collect();
    let expected = ParsedBlock {
        event: written.event.map(str::to_owned),
        id: written.id.map(str::to_owned),
        retry_ms: written.retry_ms,
        data: written.data.map(|data| data.replace("\r\n", "\n").replace('\r', "\n")),
    };
    if is_valid && expected != ParsedBlock::default() {
        assert_eq!(blocks, [&expected]);
    } else {
        assert!(blocks.is_empty(), "{blocks:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    let mut stream = data;
    let cuts = choice(&mut stream);
    let whole = parse(std::iter::once(stream));
    assert_eq!(parse(pieces(stream, cuts)), whole, "the pieces mattered");
    round_trip(stream, cuts);
});
