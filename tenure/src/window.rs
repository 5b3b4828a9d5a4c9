//! Idempotency by log order: the verdict of a record is a pure function of the log before it (rule 14).
//!
//! Owns the keys of the last [`limits::IDEMPOTENCY_WINDOW_MS`] of record time, also bounded in offsets, of one
//! partition. Whoever turns records into events goes through [`Window::judge`], first for a lead-in of one window
//! whose own verdicts are not used.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use tidegate_vocab::{Channel, Offset, limits};
use xxhash_rust::xxh3::xxh3_128;

type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// What the window needs of a record.
#[derive(Debug, Clone, Copy)]
pub struct KeyedRecord<'a> {
    /// The record's own offset.
    pub offset: Offset,
    /// The log's time of it, in milliseconds.
    pub time_ms: u64,
    /// The channel: a key counts within its channel.
    pub channel: &'a Channel,
    /// The idempotency key.
    pub key: &'a [u8],
    /// A hash of everything that makes the body the same: event name, data, TTL.
    pub body_hash: u64,
}

/// What the log's order says of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The first with its key: deliver it.
    Fresh,
    /// A repeat of an earlier record with the same body: deliver nothing, answer with the first.
    DuplicateOf(Offset),
    /// The key was used with another body: deliver nothing. Final.
    Conflict,
}

/// The records of one key that are still in the window.
#[derive(Debug)]
struct Seen {
    first: Offset,
    /// The body of the first.
    body_hash: u64,
    /// The later ones in order, offset and body. Nearly always none, so it costs nothing then.
    later: VecDeque<(Offset, u64)>,
    /// How many of the later ones have another body than the first.
    others: usize,
}

impl Seen {
    fn has_other_body(&self, body_hash: u64) -> bool {
        self.body_hash != body_hash || self.others > 0
    }

    /// Forgets the first; false when nothing is left.
    fn forget_first(&mut self) -> bool {
        let Some((first, body_hash)) = self.later.pop_front() else { return false };
        if body_hash != self.body_hash {
            self.others = self.later.iter().filter(|(_, body)| *body != body_hash).count();
        }
        (self.first, self.body_hash) = (first, body_hash);
        true
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Window {
    keys: Map<u128, Seen>,
    order: VecDeque<(Offset, u64, u128)>,
}

impl Window {
    /// Judges the record and remembers it. Records must come in log order.
    pub fn judge(&mut self, record: KeyedRecord<'_>) -> Verdict {
        self.expire(record.offset, record.time_ms);
        let id = key_id(record.channel, record.key);
        self.order.push_back((record.offset, record.time_ms, id));
        match self.keys.entry(id) {
            Entry::Vacant(vacant) => {
                vacant.insert(Seen {
                    first: record.offset,
                    body_hash: record.body_hash,
                    later: VecDeque::new(),
                    others: 0,
                });
                Verdict::Fresh
            }
            Entry::Occupied(mut occupied) => {
                let seen = occupied.get_mut();
                debug_assert!(seen.first < record.offset, "records come in log order");
                let conflict = seen.has_other_body(record.body_hash);
                seen.later.push_back((record.offset, record.body_hash));
                seen.others += usize::from(record.body_hash != seen.body_hash);
                if conflict { Verdict::Conflict } else { Verdict::DuplicateOf(seen.first) }
            }
        }
    }

    /// How many records the window holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// True when the window holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Forgets what lies before the window of a record at `offset` and `time_ms`.
    fn expire(&mut self, offset: Offset, time_ms: u64) {
        let least_offset = offset.0.saturating_sub(limits::IDEMPOTENCY_WINDOW_OFFSETS);
        let least_time = time_ms.saturating_sub(limits::IDEMPOTENCY_WINDOW_MS);
        while let Some(&(old, old_time, id)) = self.order.front() {
            if old.0 >= least_offset && old_time >= least_time {
                return;
            }
            self.order.pop_front();
            let Entry::Occupied(mut occupied) = self.keys.entry(id) else { continue };
            if !occupied.get_mut().forget_first() {
                occupied.remove();
            }
        }
    }
}

fn key_id(channel: &Channel, key: &[u8]) -> u128 {
    let mut bytes = Vec::with_capacity(channel.as_str().len() + 1 + key.len());
    bytes.extend_from_slice(channel.as_str().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key);
    xxh3_128(&bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn channel() -> Channel {
        Channel::parse("a").expect("valid")
    }

    fn judge(window: &mut Window, offset: u64, time_ms: u64, key: &str, body_hash: u64) -> Verdict {
        let channel = channel();
        window.judge(KeyedRecord {
            offset: Offset(offset),
            time_ms,
            channel: &channel,
            key: key.as_bytes(),
            body_hash,
        })
    }

    #[test]
    fn the_first_wins_and_another_body_conflicts() {
        let mut window = Window::default();
        assert_eq!(judge(&mut window, 5, 0, "k", 1), Verdict::Fresh);
        assert_eq!(judge(&mut window, 6, 0, "other", 1), Verdict::Fresh);
        assert_eq!(judge(&mut window, 9, 0, "k", 1), Verdict::DuplicateOf(Offset(5)));
        assert_eq!(judge(&mut window, 10, 0, "k", 2), Verdict::Conflict);
        assert_eq!(judge(&mut window, 11, 0, "k", 1), Verdict::Conflict, "any earlier other body conflicts");
    }

    #[test]
    fn the_window_ends_in_record_time_and_in_offsets() {
        let mut window = Window::default();
        judge(&mut window, 1, 1_000, "k", 1);
        assert_eq!(
            judge(&mut window, 2, 1_000 + limits::IDEMPOTENCY_WINDOW_MS, "k", 1),
            Verdict::DuplicateOf(Offset(1))
        );
        let later = 1_001 + limits::IDEMPOTENCY_WINDOW_MS;
        assert_eq!(judge(&mut window, 3, later, "k", 1), Verdict::DuplicateOf(Offset(2)));
        assert_eq!(judge(&mut window, 4 + limits::IDEMPOTENCY_WINDOW_OFFSETS, later, "k", 1), Verdict::Fresh);
        assert_eq!(window.len(), 1);
    }

    proptest! {
        /// An owner that starts later with a full lead-in decides as one that was there from the beginning.
        #[test]
        fn verdicts_do_not_depend_on_who_judges(
            steps in proptest::collection::vec((1_u64..40_000, 0_u8..4, 0_u64..2), 1..200), start in 0_usize..200,
        ) {
            let mut time = 0;
            let log: Vec<_> = steps.iter().enumerate().map(|(offset, (gap, key, body))| {
                time += gap;
                (offset as u64, time, key.to_string(), *body)
            }).collect();
            let start = start.min(log.len() - 1);
            let mut old = Window::default();
            let from_old: Vec<_> = log.iter().map(|(o, t, k, b)| judge(&mut old, *o, *t, k, *b)).collect();
            let least = log[start].1.saturating_sub(limits::IDEMPOTENCY_WINDOW_MS);
            let mut new = Window::default();
            for (o, t, k, b) in log[..start].iter().filter(|(_, t, _, _)| *t >= least) {
                judge(&mut new, *o, *t, k, *b);
            }
            for (index, (o, t, k, b)) in log.iter().enumerate().skip(start) {
                prop_assert_eq!(judge(&mut new, *o, *t, k, *b), from_old[index]);
            }
        }
    }
}
