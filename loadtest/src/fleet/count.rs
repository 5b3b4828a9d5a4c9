//! What receivers count.

use serde::{Deserialize, Serialize};

use super::order::Measure;
use crate::histogram::Histogram;
use crate::mark::Mark;

/// Numbers that are believed; higher ones are no events.
const SEQ_LIMIT: u64 = 1 << 26;
/// Most slots of the time line.
const SLOTS_LIMIT: u64 = 4_096;

/// What the connections of a group got.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Deliveries, each event once per connection.
    pub received: u64,
    /// That came again.
    pub twice: u64,
    /// That came after a later one of their channel.
    pub disordered: u64,
    /// Times that a server said that something is gone: `lost` or `gap`.
    pub told: u64,
    /// Times that a server ended a connection.
    pub closed: u64,
    /// Deliveries within the window, and bytes, of everything, above TCP.
    pub in_window: u64,
    /// Bytes from the server within the window, above TCP.
    pub window_bytes: u64,
    /// Bytes to the server within the window: of a poll, its requests.
    pub window_bytes_sent: u64,
    /// Answers to polls within the window, those without an event too.
    pub polls: u64,
    /// From when an event was due until it was read: of events due within the window.
    pub latencies: Histogram,
    /// The same of all events, by when they came.
    pub slots: Vec<Histogram>,
    /// From connecting until the connection follows: of those that opened since measuring began.
    pub openings: Histogram,
}

impl Tally {
    /// Adds what another counted.
    pub fn merge(&mut self, other: &Self) {
        self.received += other.received;
        self.twice += other.twice;
        self.disordered += other.disordered;
        self.told += other.told;
        self.closed += other.closed;
        self.in_window += other.in_window;
        self.window_bytes += other.window_bytes;
        self.window_bytes_sent += other.window_bytes_sent;
        self.polls += other.polls;
        self.latencies.merge(&other.latencies);
        self.slots.resize_with(self.slots.len().max(other.slots.len()), Histogram::default);
        for (own, others) in self.slots.iter_mut().zip(&other.slots) {
            own.merge(others);
        }
        self.openings.merge(&other.openings);
    }

    /// Counts an event on a connection.
    pub(super) fn event(&mut self, mark: Mark, seen: Option<Verdict>, measure: &Measure, now_us: u64) {
        if in_window(measure, now_us) {
            self.in_window += 1;
        }
        match seen {
            Some(Verdict::Twice) => {
                self.twice += 1;
                return;
            }
            Some(Verdict::Late) => self.disordered += 1,
            Some(Verdict::Next) | None => {}
        }
        self.received += 1;
        let latency_us = now_us.saturating_sub(mark.due_us);
        if in_window(measure, mark.due_us) {
            self.latencies.add(latency_us);
        }
        let slot = now_us.saturating_sub(measure.begin_us) / measure.slot_us.max(1);
        if slot < SLOTS_LIMIT {
            let slot = slot as usize;
            self.slots.resize_with(self.slots.len().max(slot + 1), Histogram::default);
            self.slots[slot].add(latency_us);
        }
    }
}

/// Whether this is counted.
pub(super) fn in_window(measure: &Measure, at_us: u64) -> bool {
    (measure.window_us.0..measure.window_us.1).contains(&at_us)
}

/// What an event is to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Later than all before it in its channel.
    Next,
    /// A later one of its channel was there before it.
    Late,
    /// It was there before.
    Twice,
}

/// Which events a connection has: a bit each, by target. It owns nothing until one comes.
#[derive(Debug, Default)]
pub(super) struct Seen {
    targets: Vec<(u64, Bits)>,
}

#[derive(Debug, Default)]
struct Bits {
    words: Vec<u64>,
    /// One more than the highest that is set.
    end: u64,
}

impl Seen {
    /// Notes one; nothing if it can be no event of ours.
    pub(super) fn note(&mut self, seq: u64, targets: u64) -> Option<Verdict> {
        let targets = targets.max(1);
        if seq >= SEQ_LIMIT {
            return None;
        }
        let (target, index) = (seq % targets, seq / targets);
        let at = self.targets.iter().position(|(number, _)| *number == target).unwrap_or_else(|| {
            self.targets.push((target, Bits::default()));
            self.targets.len() - 1
        });
        let bits = &mut self.targets[at].1;
        let (word, bit) = ((index / 64) as usize, 1 << (index % 64));
        if bits.words.len() <= word {
            bits.words.resize(word + 1, 0);
        }
        if bits.words[word] & bit != 0 {
            return Some(Verdict::Twice);
        }
        bits.words[word] |= bit;
        let is_next = index >= bits.end;
        bits.end = bits.end.max(index + 1);
        Some(if is_next { Verdict::Next } else { Verdict::Late })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_and_order_are_told_apart_by_target() {
        let mut seen = Seen::default();
        let mut note = |seq| seen.note(seq, 10);
        assert_eq!(note(25), Some(Verdict::Next));
        assert_eq!(note(15), Some(Verdict::Late), "of the same target, and before it");
        assert_eq!(note(14), Some(Verdict::Next), "of another target");
        assert_eq!(note(15), Some(Verdict::Twice));
        assert_eq!(note(6_415), Some(Verdict::Next), "far ahead");
        assert_eq!(note(SEQ_LIMIT), None);
    }

    #[test]
    fn a_tally_counts_each_once_and_says_when() {
        let measure = Measure { begin_us: 1_000, slot_us: 100, window_us: (1_100, 1_300) };
        let mut tally = Tally::default();
        let mut event =
            |due_us, seen, now_us| tally.event(Mark { due_us, seq: 0 }, Some(seen), &measure, now_us);
        event(1_050, Verdict::Next, 1_060); // before the window
        event(1_150, Verdict::Next, 1_190);
        event(1_150, Verdict::Twice, 1_195);
        event(1_250, Verdict::Late, 1_450); // due in it, and came after it
        assert_eq!((tally.received, tally.twice, tally.disordered, tally.in_window), (3, 1, 1, 2));
        assert_eq!(tally.latencies.quantiles().max_ms, 0.2);
        assert_eq!(tally.slots.iter().map(Histogram::count).collect::<Vec<_>>(), [1, 1, 0, 0, 1]);
        let mut both = tally.clone();
        both.merge(&tally);
        assert_eq!((both.received, both.latencies.count(), both.slots[4].count()), (6, 4, 2));
    }
}
