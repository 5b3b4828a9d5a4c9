//! What clients and backends name: cursors, channels, positions, event names, JSON. Any text through each parser; what
//! is accepted is written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::choice;
use tidegate_vocab::{Channel, Cursor, EventName, Position, compact_json, limits};

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let which = choice(&mut rest) % 4;
    if which == 0 {
        if let Ok(compact) = compact_json(rest) {
            assert!(!compact.contains(&b'\n') && !compact.contains(&b'\r'), "one line");
            assert_eq!(compact_json(&compact).expect("compact JSON is JSON"), compact, "compacting is final");
        }
        return;
    }
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match which {
        1 => {
            if let Ok(cursor) = Cursor::parse(text) {
                assert!(cursor.encode().len() <= limits::CURSOR_BYTES_LIMIT);
                assert_eq!(Cursor::parse(&cursor.encode()), Ok(cursor), "a cursor reads back");
            }
        }
        2 => {
            if let Ok(channel) = Channel::parse(text) {
                assert!(channel.as_str() == text && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\'));
            }
            if let Ok(name) = EventName::parse(text) {
                assert!(name.as_str() == text && !text.contains(['\n', '\r', '\0']));
            }
        }
        _ => {
            if let Ok(position) = text.parse::<Position>() {
                assert_eq!(position.to_string().parse(), Ok(position), "a position reads back");
            }
        }
    }
});
