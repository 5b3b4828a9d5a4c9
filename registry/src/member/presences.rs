//! Who is online, and which channels are occupied: what the topic says, compared with what is announced.

use std::collections::{BTreeMap, HashMap};

use tidegate_vocab::{Channel, Incarnation, limits};

use super::{Counts, since_s};
use crate::frame::{Presence, Transition};
use crate::id::CompactId;
use crate::table::{Entry, Table};

/// Debounces ended in one tick.
const ENDED_AT_ONCE: usize = 10_000;

/// How many subjects are online, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Online {
    /// Users that are online.
    pub users: u64,
    /// Channels that are occupied, those of users apart.
    pub channels: u64,
}

#[derive(Debug)]
pub(super) struct Presences {
    emitter: Incarnation,
    debounce_ms: u64,
    unix_ms: u64,
    /// Transitions are emitted; before that only the topic is read.
    pub(super) speaks: bool,
    /// Those of whose key this member is the primary.
    pub(super) online: Online,
    /// When a debounce ends, and whose.
    due: BTreeMap<(u64, u64), CompactId>,
    dues: u64,
    /// Emitted and not read back, by number.
    in_flight: BTreeMap<u64, Transition>,
    /// The numbers of each subject's, rising. A compacted topic may keep but the last.
    numbers: HashMap<Channel, Vec<u64>>,
    last_number: u64,
    /// The last that was given out.
    given: u64,
    /// There was no room for a transition: it is found again by a pass.
    has_backlog: bool,
}

impl Presences {
    pub(super) fn new(emitter: Incarnation, debounce_ms: u64, unix_ms: u64) -> Self {
        Self {
            emitter,
            debounce_ms,
            unix_ms,
            speaks: false,
            online: Online::default(),
            due: BTreeMap::new(),
            dues: 0,
            in_flight: BTreeMap::new(),
            numbers: HashMap::new(),
            last_number: 0,
            given: 0,
            has_backlog: false,
        }
    }

    /// Compares an entry whose places may have changed. `left_ms` is when the last of them went, if none is left.
    pub(super) fn look(&mut self, entry: &mut Entry, id: &CompactId, counts: impl Counts, left_ms: u64) {
        match since_s(entry, counts) {
            Some(since_s) => {
                entry.is_absent = false;
                if !entry.is_online && entry.is_primary && self.speaks {
                    self.change(entry, id, Presence::Online, since_s);
                }
            }
            None if self.speaks && entry.is_online && entry.is_primary && !entry.is_absent => {
                entry.is_absent = true;
                entry.absent_ms = left_ms as u32;
                self.dues += 1;
                self.due.insert((left_ms + self.debounce_ms, self.dues), id.clone());
            }
            None => {}
        }
    }

    /// Says offline for those whose debounce is over and who are still nowhere.
    pub(super) fn end_debounces(&mut self, table: &Table, counts: impl Counts, now_ms: u64) {
        for _ in 0..ENDED_AT_ONCE {
            let is_held = !self.speaks || self.is_full();
            let Some(first) = self.due.first_entry() else { return };
            let due_ms = first.key().0;
            if due_ms > now_ms || is_held {
                return;
            }
            let id = first.remove();
            let left_ms = due_ms - self.debounce_ms;
            table.change(&id, |entry, _| {
                let is_this = entry.is_absent && entry.absent_ms == left_ms as u32;
                if is_this && entry.is_online && entry.is_primary && since_s(entry, &counts).is_none() {
                    let since_s = (self.unix_ms + left_ms) / 1000;
                    self.change(entry, &id, Presence::Offline, since_s as u32);
                }
            });
        }
    }

    fn is_full(&self) -> bool {
        self.in_flight.len() >= limits::TRANSITIONS_IN_FLIGHT_LIMIT
    }

    fn change(&mut self, entry: &mut Entry, id: &CompactId, presence: Presence, since_s: u32) {
        if self.is_full() {
            self.has_backlog = true;
            return;
        }
        // invariant: what is in the table was the name of a channel
        let Some(subject) = id.subject() else { return };
        self.set_online(entry, presence == Presence::Online);
        self.last_number += 1;
        let number = self.last_number;
        self.numbers.entry(subject.clone()).or_default().push(number);
        let transition = Transition { subject, presence, since_s, emitter: self.emitter, number };
        self.in_flight.insert(number, transition);
    }

    /// Forgets transitions in flight of subjects that are another member's now: it finds what is not on the topic itself. One that
    /// is appended nevertheless is read back like a foreign one.
    pub(super) fn take_back(&mut self, table: &Table, is_foreign: impl Fn(&Channel) -> bool) {
        let foreign: Vec<u64> = self
            .in_flight
            .iter()
            .filter(|(_, transition)| is_foreign(&transition.subject))
            .map(|(number, _)| *number)
            .collect();
        // The latest first: what is left is what was before all of them.
        for number in foreign.into_iter().rev() {
            let Some(transition) = self.in_flight.remove(&number) else { continue };
            self.numbers.remove(&transition.subject);
            let id = CompactId::new(transition.subject.as_str());
            table.change(&id, |entry, _| self.set_online(entry, transition.presence == Presence::Offline));
        }
    }

    /// What the topic says of a subject, or will say.
    pub(super) fn set_online(&mut self, entry: &mut Entry, is_online: bool) {
        if entry.is_primary {
            let Online { users, channels } = &mut self.online;
            let count = if entry.is_user { users } else { channels };
            *count = (*count + u64::from(is_online)).saturating_sub(u64::from(entry.is_online));
        }
        entry.is_online = is_online;
        if !is_online {
            entry.is_absent = false;
        }
    }

    pub(super) fn set_primary(&mut self, entry: &mut Entry, is_primary: bool) {
        let is_online = entry.is_online;
        self.set_online(entry, false);
        entry.is_primary = is_primary;
        self.set_online(entry, is_online);
    }

    /// Whether a record decides what the topic says. One that comes before an own one in flight does not: ours is behind it.
    /// A late repeat of an own one does, like a foreign one, and is corrected if it is no longer true.
    pub(super) fn heeds(&mut self, record: &Transition) -> bool {
        let Some(numbers) = self.numbers.get_mut(&record.subject) else { return true };
        if record.emitter == self.emitter {
            for number in numbers.extract_if(.., |number| *number <= record.number) {
                self.in_flight.remove(&number);
            }
            if numbers.is_empty() {
                self.numbers.remove(&record.subject);
            }
        }
        false
    }

    /// True once there is room again for what had none.
    pub(super) fn take_backlog(&mut self) -> bool {
        let has_room = self.in_flight.len() < limits::TRANSITIONS_IN_FLIGHT_LIMIT / 2;
        has_room && std::mem::take(&mut self.has_backlog)
    }

    pub(super) fn take(&mut self, limit: usize) -> Vec<Transition> {
        let rest = self.in_flight.range(self.given + 1..).take(limit);
        let taken: Vec<Transition> = rest.map(|(_, transition)| transition.clone()).collect();
        self.given = taken.last().map_or(self.given, |last| last.number);
        taken
    }

    pub(super) fn resend(&mut self) {
        self.given = 0;
    }
}
