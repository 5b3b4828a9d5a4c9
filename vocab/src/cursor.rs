//! The cursor: one opaque token that resumes every channel of a connection on any transport.
//!
//! Layout before base64url without padding, all integers LEB128 unless a width is given:
//! `version u8 = 1`, `sections`, then per section `topic u8`, `epoch u64 LE`, `entries`, then per entry `partition`
//! and `next`; `fingerprints`, then each `u32 LE`, ascending; and last `check u16 LE`, the low bits of the XXH3 of
//! all that precedes, so that a cut or altered cursor is refused instead of believed. It grants nothing: whoever
//! presents it still needs a grant for each channel.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::xxh3_64;

use crate::channel::Channel;
use crate::limits;
use crate::partition::{PartitionId, Topic};
use crate::position::{LogEpoch, Offset};

const VERSION: u8 = 1;

/// Stands for a topic whose positions count in different epochs, as can be for a moment while one replaces another. No
/// log has it, so such a cursor is answered `lost: epoch`: told too often rather than skipped in silence.
const MIXED: LogEpoch = LogEpoch(u64::MAX);

/// The entries of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorSection {
    /// The topic.
    pub topic: Topic,
    /// The epoch in which the offsets below count.
    pub epoch: LogEpoch,
    /// Per partition number, ascending: the minimum over this connection's channels there of what each has next.
    pub entries: Vec<(u32, Offset)>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    sections: Vec<CursorSection>,
    fingerprints: Vec<u32>,
}

/// Why a cursor was refused. Clients are told `lost: bad_cursor` for every channel; nobody is refused a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// More than [`limits::CURSOR_BYTES_LIMIT`] bytes.
    #[error("cursor is longer than 4096 bytes")]
    TooLong,
    /// Not base64url.
    #[error("cursor is not base64url")]
    NotBase64,
    /// Written by a version that this one does not know.
    #[error("cursor has an unknown version")]
    Version,
    /// Cut short, altered, or never ours.
    #[error("cursor is damaged")]
    Damaged,
}

impl Cursor {
    /// Records that `channel`, on `partition`, has everything before `next`. Several channels on one partition keep
    /// the minimum.
    pub fn cover(&mut self, channel: &Channel, partition: PartitionId, epoch: LogEpoch, next: Offset) {
        self.cover_fingerprint(channel.fingerprint(), partition, epoch, next);
    }

    /// As [`Cursor::cover`], for callers that keep the fingerprint.
    pub fn cover_fingerprint(
        &mut self,
        fingerprint: u32,
        partition: PartitionId,
        epoch: LogEpoch,
        next: Offset,
    ) {
        if let Err(at) = self.fingerprints.binary_search(&fingerprint) {
            self.fingerprints.insert(at, fingerprint);
        }
        let section = match self.sections.binary_search_by_key(&partition.topic, |section| section.topic) {
            Ok(at) => {
                let section = &mut self.sections[at];
                if section.epoch != epoch {
                    section.epoch = MIXED;
                }
                section
            }
            Err(at) => {
                self.sections
                    .insert(at, CursorSection { topic: partition.topic, epoch, entries: Vec::new() });
                &mut self.sections[at]
            }
        };
        match section.entries.binary_search_by_key(&partition.number, |(number, _)| *number) {
            Ok(at) => section.entries[at].1 = section.entries[at].1.min(next),
            Err(at) => section.entries.insert(at, (partition.number, next)),
        }
    }

    /// True when the cursor was made by a connection that followed `channel`.
    #[must_use]
    pub fn covers(&self, channel: &Channel) -> bool {
        self.fingerprints.binary_search(&channel.fingerprint()).is_ok()
    }

    /// The epoch and the next offset of a partition, if the cursor has an entry for it.
    #[must_use]
    pub fn position(&self, partition: PartitionId) -> Option<(LogEpoch, Option<Offset>)> {
        let section = self.sections.iter().find(|section| section.topic == partition.topic)?;
        let entry = section.entries.iter().find(|(number, _)| *number == partition.number);
        Some((section.epoch, entry.map(|(_, next)| *next)))
    }

    /// The sections, by topic.
    #[must_use]
    pub fn sections(&self) -> &[CursorSection] {
        &self.sections
    }

    /// Writes the token.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(32 + 4 * self.fingerprints.len());
        bytes.push(VERSION);
        push_varint(&mut bytes, self.sections.len() as u64);
        for section in &self.sections {
            bytes.push(section.topic as u8);
            bytes.extend_from_slice(&section.epoch.0.to_le_bytes());
            push_varint(&mut bytes, section.entries.len() as u64);
            for (number, next) in &section.entries {
                push_varint(&mut bytes, u64::from(*number));
                push_varint(&mut bytes, next.0);
            }
        }
        push_varint(&mut bytes, self.fingerprints.len() as u64);
        for fingerprint in &self.fingerprints {
            bytes.extend_from_slice(&fingerprint.to_le_bytes());
        }
        let check = xxh3_64(&bytes) as u16;
        bytes.extend_from_slice(&check.to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that a client sent.
    ///
    /// # Errors
    /// When it is too long, damaged or of another version.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        if text.len() > limits::CURSOR_BYTES_LIMIT {
            return Err(CursorError::TooLong);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::NotBase64)?;
        let (body, check) = bytes.split_last_chunk::<2>().ok_or(CursorError::Damaged)?;
        let (version, mut rest) = body.split_first().ok_or(CursorError::Damaged)?;
        if *version != VERSION {
            return Err(CursorError::Version);
        }
        if u16::from_le_bytes(*check) != xxh3_64(body) as u16 {
            return Err(CursorError::Damaged);
        }
        let cursor = read_body(&mut rest).ok_or(CursorError::Damaged)?;
        if rest.is_empty() { Ok(cursor) } else { Err(CursorError::Damaged) }
    }
}

/// Reads sections and fingerprints; every count is bounded by the bytes that are there.
fn read_body(rest: &mut &[u8]) -> Option<Cursor> {
    let mut sections: Vec<CursorSection> = Vec::new();
    for _ in 0..read_count(rest, 10)? {
        let topic = Topic::from_number(*take(rest, 1)?.first()?)?;
        if sections.last().is_some_and(|before| before.topic >= topic) {
            return None;
        }
        let epoch = LogEpoch(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?));
        let count = read_count(rest, 2)?;
        let mut entries: Vec<(u32, Offset)> = Vec::with_capacity(count);
        for _ in 0..count {
            let number = u32::try_from(read_varint(rest)?).ok()?;
            if entries.last().is_some_and(|(before, _)| *before >= number) {
                return None;
            }
            entries.push((number, Offset(read_varint(rest)?)));
        }
        sections.push(CursorSection { topic, epoch, entries });
    }
    let count = read_count(rest, 4)?;
    let mut fingerprints: Vec<u32> = Vec::with_capacity(count);
    for _ in 0..count {
        let fingerprint = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
        if fingerprints.last().is_some_and(|before| *before >= fingerprint) {
            return None;
        }
        fingerprints.push(fingerprint);
    }
    Some(Cursor { sections, fingerprints })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

/// A count of items of at least `item_bytes` each that must still fit in what is left.
fn read_count(rest: &mut &[u8], item_bytes: usize) -> Option<usize> {
    let count = usize::try_from(read_varint(rest)?).ok()?;
    (count.checked_mul(item_bytes)? <= rest.len()).then_some(count)
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(rest, 1)?.first()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests;
