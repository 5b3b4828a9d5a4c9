use super::*;
use proptest::prelude::*;

/// The items of a stream read in pieces of `step`.
fn parse(stream: &[u8], step: usize) -> Vec<Item> {
    let mut parser = Parser::new();
    let mut items = Vec::new();
    for piece in stream.chunks(step) {
        parser.feed(piece, &mut |item| items.push(item)).unwrap();
    }
    items
}

/// Whatever the pieces, `stream` has these items.
#[track_caller]
fn check(stream: &[u8], expected: &[Item]) {
    for step in (1..=8).chain([stream.len().max(1)]) {
        assert_eq!(
            parse(stream, step),
            expected,
            "{:?} in pieces of {step}",
            String::from_utf8_lossy(stream)
        );
    }
}

fn block(event: Option<&str>, id: Option<&str>, data: Option<&str>) -> Item {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Item::Block(ParsedBlock { event: owned(event), id: owned(id), data: owned(data), retry_ms: None })
}

fn data(text: &str) -> Item {
    block(None, None, Some(text))
}

fn retry(retry_ms: u64) -> Item {
    Item::Block(ParsedBlock { retry_ms: Some(retry_ms), ..ParsedBlock::default() })
}

#[test]
fn blocks_as_they_are_written() {
    let check = |block: Block<'_>, expected: &str| {
        assert_eq!(String::from_utf8(block.encode().unwrap()).unwrap(), expected);
    };
    let none = Block::default();
    check(Block { data: Some("a"), ..none }, "data: a\n\n");
    check(Block { data: Some(""), ..none }, "data: \n\n");
    check(Block { data: Some("a\nb\rc\r\nd"), ..none }, "data: a\ndata: b\ndata: c\ndata: d\n\n");
    check(Block { data: Some("\n"), ..none }, "data: \ndata: \n\n");
    check(Block { data: Some("\r\n\r"), ..none }, "data: \ndata: \ndata: \n\n");
    check(Block { id: Some("7"), ..none }, "id: 7\n\n");
    check(Block { retry_ms: Some(2500), ..none }, "retry: 2500\n\n");
    check(
        Block { event: Some("tidegate.state"), id: Some("x"), retry_ms: Some(0), data: Some("{}") },
        "retry: 0\nevent: tidegate.state\nid: x\ndata: {}\n\n",
    );
}

#[test]
fn comments() {
    let check = |text: &str, expected: &str| {
        let mut out = Vec::new();
        comment_into(text, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    };
    check("", ":\n\n");
    check("ping", ": ping\n\n");
    check("a\ndata: b", ": a\n: data: b\n\n");
}

/// S2: a name or id from a backend must not write lines of its own, and half a block must not be left behind.
#[test]
fn fields_that_are_refused() {
    for bad in ["a\nb", "a\rb", "a\r\ndata: x", "a\0b", "\n"] {
        let mut out = b"before".to_vec();
        let event = Block { event: Some(bad), data: Some("x"), ..Block::default() };
        assert_eq!(event.encode_into(&mut out), Err(FieldError::Event));
        let id = Block { id: Some(bad), event: Some("fine"), ..Block::default() };
        assert_eq!(id.encode_into(&mut out), Err(FieldError::Id));
        assert_eq!(out, b"before");
        assert_eq!((check_event(bad), check_id(bad)), (Err(FieldError::Event), Err(FieldError::Id)));
    }
    for good in ["", "a", " a ", "a:b", "naïve", "a\u{2028}b"] {
        assert_eq!((check_event(good), check_id(good)), (Ok(()), Ok(())));
    }
}

/// The rules of the standard, after the web platform tests `eventsource/format-*`.
#[test]
fn streams_as_they_are_read() {
    check(b"data: a\n\n", &[data("a")]);
    check(b"data:a\n\ndata:  b\n\ndata\n\n", &[data("a"), data(" b"), data("")]);
    check(b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", &[data("a"), data("b"), data("c")]);
    check(b"data: a\ndata: b\n\n", &[data("a\nb")]);
    check(b"data: a\n\r\n", &[data("a")]);
    check(b"\xEF\xBB\xBFdata: a\n\n", &[data("a")]);
    check(b"\xEF\xBB\xBF\xEF\xBB\xBFdata: a\n\ndata: b\n\n", &[data("b")]);
    check(b"data: a\n\n\xEF\xBB\xBFdata: b\n\n", &[data("a")]);
    check(b"data: a\n", &[]);
    check(b"\n\n\r\n\n", &[]);
    check(b"unknown: a\nDATA: b\n data: c\n\n", &[]);
    check(b"event: e\nid: 1\ndata: a\n\n", &[block(Some("e"), Some("1"), Some("a"))]);
    check(b"event: e\nevent: f\nid\ndata: a\n\n", &[block(Some("f"), Some(""), Some("a"))]);
    check(b"id: 1\n\n", &[block(None, Some("1"), None)]);
    check(b"id: a\0b\ndata: a\n\n", &[data("a")]);
    check(b"data: a\0b\n\n", &[data("a\0b")]);
    check(b"retry: 1000\n\n", &[retry(1000)]);
    check(b"retry: 1s\n\nretry:\n\nretry: -1\n\nretry: +1\n\n", &[]);
    check(b"retry: 99999999999999999999\n\n", &[retry(u64::MAX)]);
    check(b":\n\n", &[Item::Comment(String::new())]);
    check(b": ping\n:data: x\n\n", &[Item::Comment("ping".into()), Item::Comment("data: x".into())]);
    check(b"data: \xFF\xE2\x82\n\n", &[data("\u{FFFD}\u{FFFD}")]);
}

#[test]
fn a_stream_without_line_ends_is_given_up() {
    let mut parser = Parser::new();
    let piece = vec![b'x'; crate::limits::SSE_BLOCK_BYTES_LIMIT];
    assert_eq!(parser.feed(&piece, &mut |_| {}), Ok(()));
    assert_eq!(parser.feed(b"x", &mut |_| {}), Err(BlockTooLong));
}

/// Text made of what event streams are made of.
fn hostile() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("\n"),
        Just("\r"),
        Just("\r\n"),
        Just("data: "),
        Just("id: 1"),
        Just(":"),
        Just(" "),
        Just("\u{2028}"),
        Just("\u{FEFF}"),
        Just("\0"),
        Just("event: x\n\n"),
        Just("é𝄞"),
        Just("{\"a\":1}"),
    ];
    prop_oneof![prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat()), any::<String>()]
}

fn one_line() -> impl Strategy<Value = String> {
    hostile().prop_map(|text| text.replace(['\r', '\n', '\0'], "_"))
}

proptest! {
    /// S1: whatever the fields, the block reads back, with every line break in the data as LF.
    #[test]
    fn round_trip(
        event in prop::option::of(one_line()),
        id in prop::option::of(one_line()),
        retry_ms: Option<u64>,
        data in prop::option::of(hostile()),
        step in 1usize..20,
    ) {
        let written = Block { event: event.as_deref(), id: id.as_deref(), retry_ms, data: data.as_deref() };
        let mut stream = Vec::new();
        comment_into("start", &mut stream);
        written.encode_into(&mut stream).unwrap();
        comment_into("end", &mut stream);

        let data = data.map(|data| data.replace("\r\n", "\n").replace('\r', "\n"));
        let read = ParsedBlock { event, id, retry_ms, data };
        let is_empty = read == ParsedBlock::default();
        let mut expected = vec![Item::Comment("start".into())];
        expected.extend((!is_empty).then_some(Item::Block(read)));
        expected.push(Item::Comment("end".into()));
        prop_assert_eq!(parse(&stream, step), expected);
    }

    #[test]
    fn a_comment_raises_no_event(text in hostile(), step in 1usize..20) {
        let mut stream = Vec::new();
        comment_into(&text, &mut stream);
        prop_assert!(parse(&stream, step).iter().all(|item| matches!(item, Item::Comment(_))));
    }

    #[test]
    fn pieces_do_not_matter(stream in hostile(), noise: Vec<u8>, step in 1usize..20) {
        let stream = [stream.as_bytes(), &noise, b"\n\ndata: end\n\n"].concat();
        prop_assert_eq!(parse(&stream, step), parse(&stream, stream.len()));
    }
}
