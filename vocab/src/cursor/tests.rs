use proptest::prelude::*;

use super::*;

const EPOCH: LogEpoch = LogEpoch(0x1122_3344_5566_7788);

fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("valid")
}

fn events(number: u32) -> PartitionId {
    PartitionId { topic: Topic::Events, number }
}

#[test]
fn two_channels_on_one_partition_keep_the_minimum() {
    let mut cursor = Cursor::default();
    cursor.cover(&channel("a"), events(3), EPOCH, Offset(510));
    cursor.cover(&channel("b"), events(3), EPOCH, Offset(250));
    cursor.cover(&channel("c"), events(1), EPOCH, Offset(9));
    let read = Cursor::parse(&cursor.encode()).expect("own cursor");
    assert_eq!(read, cursor);
    assert_eq!(read.position(events(3)), Some((EPOCH, Some(Offset(250)))));
    assert_eq!(read.position(events(1)), Some((EPOCH, Some(Offset(9)))));
    assert_eq!(read.position(events(2)), Some((EPOCH, None)));
    assert_eq!(read.position(PartitionId { topic: Topic::Inbox, number: 3 }), None);
    assert!(read.covers(&channel("a")) && read.covers(&channel("b")) && !read.covers(&channel("d")));
}

#[test]
fn a_cursor_of_one_channel_is_short() {
    let mut cursor = Cursor::default();
    cursor.cover(&channel("score:42"), events(3), EPOCH, Offset(1_000_000));
    assert!(cursor.encode().len() <= 32, "{} bytes", cursor.encode().len());
}

#[test]
fn malformed_cursors() {
    let good = {
        let mut cursor = Cursor::default();
        cursor.cover(&channel("score:42"), events(3), EPOCH, Offset(77));
        cursor.encode()
    };
    let check = |text: &str, error| assert_eq!(Cursor::parse(text), Err(error), "{text}");
    check("", CursorError::Damaged);
    check("AQ", CursorError::Damaged);
    check("not base64!", CursorError::NotBase64);
    check("-1", CursorError::NotBase64);
    check(&good[..good.len() - 4], CursorError::Damaged);
    check(&format!("{good}AAAA"), CursorError::Damaged);
    check(&good.replacen("AQ", "Ag", 1), CursorError::Version);
}

#[test]
fn oversized_cursors() {
    assert_eq!(Cursor::parse(&"A".repeat(4097)), Err(CursorError::TooLong));
    let mut cursor = Cursor::default();
    for number in 0..limits::CHANNELS_PER_CONNECTION_LIMIT as u32 + 2 {
        cursor.cover_fingerprint(number.wrapping_mul(0x9e37_79b9), events(number), EPOCH, Offset(u64::MAX));
    }
    assert!(cursor.encode().len() <= limits::CURSOR_BYTES_LIMIT, "the most a connection may follow must fit");
}

/// A count that the rest of the bytes cannot hold is refused before anything is reserved for it.
#[test]
fn counts_are_bounded_by_the_bytes_that_are_there() {
    let mut body = vec![VERSION];
    push_varint(&mut body, u64::from(u32::MAX));
    let check = xxh3_64(&body) as u16;
    body.extend_from_slice(&check.to_le_bytes());
    assert_eq!(Cursor::parse(&URL_SAFE_NO_PAD.encode(body)), Err(CursorError::Damaged));
}

proptest! {
    #[test]
    fn cursors_read_back(items in proptest::collection::vec((any::<u32>(), 0_u8..2, 0_u32..300, any::<u64>()), 0..130)) {
        let mut cursor = Cursor::default();
        for (fingerprint, topic, number, next) in items {
            let topic = Topic::from_number(topic).expect("known");
            cursor.cover_fingerprint(fingerprint, PartitionId { topic, number }, EPOCH, Offset(next));
        }
        prop_assert_eq!(Cursor::parse(&cursor.encode()), Ok(cursor));
    }

    #[test]
    fn no_bytes_panic_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200), fix in any::<bool>()) {
        let mut bytes = bytes;
        if fix {
            bytes.insert(0, VERSION);
            let check = xxh3_64(&bytes) as u16;
            bytes.extend_from_slice(&check.to_le_bytes());
        }
        if let Ok(cursor) = Cursor::parse(&URL_SAFE_NO_PAD.encode(&bytes)) {
            prop_assert_eq!(Cursor::parse(&cursor.encode()), Ok(cursor));
        }
    }
}

/// While a topic is replaced, one channel may count in the old log and another in the new one. A cursor that gave both
/// the same epoch would skip what the new log holds below the old offset.
#[test]
fn positions_of_two_epochs_are_answered_lost() {
    let other = LogEpoch(7);
    let mut cursor = Cursor::default();
    cursor.cover(&channel("a"), events(0), other, Offset(5));
    cursor.cover(&channel("b"), events(1), EPOCH, Offset(5_000));
    cursor.cover(&channel("c"), events(2), EPOCH, Offset(1));
    let (epoch, _) = cursor.position(events(1)).expect("a section");
    assert!(epoch != EPOCH && epoch != other);
    assert_eq!(Cursor::parse(&cursor.encode()), Ok(cursor));
}
