//! Keys and values of the log in the store. Big-endian, so that the store's order is the log's.

use bytes::Bytes;
use tidegate_vocab::{Offset, PartitionId, Topic};

use crate::{Headers, LogRecord, NewRecord};

/// topic (1) + partition (4) + offset (8).
pub(super) const RECORD_KEY_BYTES: usize = 13;
/// time (8) + length of the key (2) + number of headers (1); then the key, per header two parts with their lengths (4),
/// and the value.
const VALUE_HEAD_BYTES: usize = 11;

/// The store's value is not one that this module wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stored record is malformed")]
pub(super) struct Malformed;

pub(super) fn record_key(partition: PartitionId, offset: u64) -> [u8; RECORD_KEY_BYTES] {
    let mut key = [0; RECORD_KEY_BYTES];
    key[0] = partition.topic as u8;
    key[1..5].copy_from_slice(&partition.number.to_be_bytes());
    key[5..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// True for the keys of records, in whatever keyspace: no other key in the store is so long and begins so.
pub(crate) fn is_record_key(key: &[u8]) -> bool {
    key.len() == RECORD_KEY_BYTES && Topic::from_number(key[0]).is_some()
}

/// The offset in a record's key.
pub(super) fn offset_of(key: &[u8]) -> Result<u64, Malformed> {
    let tail: [u8; 8] = key.get(5..).and_then(|tail| tail.try_into().ok()).ok_or(Malformed)?;
    Ok(u64::from_be_bytes(tail))
}

/// The caller has checked that the key has at most 65,535 bytes, that there are at most 255 headers, and that all is far
/// below 4 GiB.
pub(super) fn record_value(time_ms: u64, record: &NewRecord) -> Vec<u8> {
    debug_assert!(record.key.len() <= usize::from(u16::MAX) && record.headers.len() <= 255);
    let mut bytes = Vec::with_capacity(VALUE_HEAD_BYTES + record.bytes() + 8 * record.headers.len());
    bytes.extend_from_slice(&time_ms.to_be_bytes());
    bytes.extend_from_slice(&(record.key.len() as u16).to_be_bytes());
    bytes.push(record.headers.len() as u8);
    bytes.extend_from_slice(&record.key);
    for (name, value) in &record.headers {
        for part in [name.as_bytes(), value] {
            bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(&record.value);
    bytes
}

/// The time in a record's value, without the rest.
pub(super) fn time_of(stored: &[u8]) -> Result<u64, Malformed> {
    let head: [u8; 8] = stored.get(..8).and_then(|head| head.try_into().ok()).ok_or(Malformed)?;
    Ok(u64::from_be_bytes(head))
}

/// Copies the record out: a slice of the store's would pin a whole block for as long as somebody keeps the record.
pub(super) fn record(offset: u64, stored: &[u8]) -> Result<LogRecord, Malformed> {
    let time_ms = time_of(stored)?;
    let mut rest = Bytes::copy_from_slice(stored.get(8..).ok_or(Malformed)?);
    let key_len = usize::from(u16::from_be_bytes(take_array(&mut rest)?));
    let [header_count] = take_array(&mut rest)?;
    let key = take(&mut rest, key_len)?;
    let mut headers = Headers::with_capacity(usize::from(header_count));
    for _ in 0..header_count {
        let name_len = u32::from_be_bytes(take_array(&mut rest)?) as usize;
        let name = String::from_utf8(take(&mut rest, name_len)?.into()).map_err(|_| Malformed)?;
        let value_len = u32::from_be_bytes(take_array(&mut rest)?) as usize;
        headers.push((name, take(&mut rest, value_len)?));
    }
    Ok(LogRecord { offset: Offset(offset), time_ms, key, value: rest, headers })
}

fn take(rest: &mut Bytes, count: usize) -> Result<Bytes, Malformed> {
    if rest.len() < count { Err(Malformed) } else { Ok(rest.split_to(count)) }
}

fn take_array<const N: usize>(rest: &mut Bytes) -> Result<[u8; N], Malformed> {
    take(rest, N)?.as_ref().try_into().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back() {
        let header = |name: &str, value: &'static [u8]| (name.to_owned(), Bytes::from_static(value));
        let headers = [vec![], vec![header("traceparent", b"00-1"), header("", b"")]];
        for (key, value) in [(&b"chat:1"[..], &b"hello"[..]), (b"", b""), (b"k", b""), (b"", b"v")] {
            for headers in &headers {
                let new = NewRecord { key: key.into(), value: value.into(), headers: headers.clone() };
                let stored = record_value(77, &new);
                let read = record(5, &stored).expect("well-formed");
                assert_eq!((read.offset, read.time_ms), (Offset(5), 77));
                assert_eq!((read.key, read.value, read.headers), (new.key, new.value, new.headers));
            }
        }
        assert_eq!(record(0, b"short"), Err(Malformed));
        let long = NewRecord { key: b"long key"[..].into(), ..NewRecord::default() };
        assert_eq!(record(0, &record_value(1, &long)[..12]), Err(Malformed));
    }

    #[test]
    fn keys_sort_as_offsets_do_and_partitions_do_not_mix() {
        let of = |number, offset| record_key(PartitionId { topic: Topic::Inbox, number }, offset);
        assert!(of(1, 255) < of(1, 256) && of(1, u64::MAX) < of(2, 0));
        assert_eq!(offset_of(&of(3, 9)), Ok(9));
        assert_eq!(offset_of(b"x"), Err(Malformed));
    }
}
