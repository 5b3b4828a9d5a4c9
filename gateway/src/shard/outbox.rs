//! What waits for a slow socket, and what may be left out of it.
//!
//! Pure bookkeeping, no socket. Entries leave in the order in which they came; an event of a channel that may lose
//! some is marked as such, so that it can be taken out again: to make room (the oldest first), or because a later one of its
//! channel makes it stale. Where the first of a row of a channel's events is taken out, a `gap` takes its place, so that the
//! client is told before it reads on. What has begun to leave is never touched.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use super::table::ChannelIdx;

type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// Entries without bytes that may lie in the queue before it is made dense.
const DEAD_LIMIT: usize = 64;

/// Whether an entry may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// It must be sent.
    Keep,
    /// An event of a channel that may lose some.
    Event(ChannelIdx),
    /// Says that events of the channel were left out.
    Gap(ChannelIdx),
}

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    tick: u32,
    tag: Tag,
}

/// Where a channel's newest event and its unsent gap are.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    event: Option<u64>,
    gap: Option<u64>,
}

/// See the module. Exists only while something waits.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: VecDeque<Entry>,
    bytes: usize,
    /// The number of the front entry; each later one has the next.
    first: u64,
    /// Part of the front entry has left.
    front_begun: bool,
    /// Below this number no event is left that could be taken out.
    searched: u64,
    dead: usize,
    places: Map<ChannelIdx, Place>,
    /// When the socket last took anything.
    progress_tick: u32,
}

impl Outbox {
    pub(crate) fn new(tick: u32) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            first: 0,
            front_begun: false,
            searched: 0,
            dead: 0,
            places: Map::default(),
            progress_tick: tick,
        }
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Since when the first entry has waited, or nothing has left, whichever is longer ago.
    pub(crate) fn since_tick(&self) -> u32 {
        self.queue.front().map_or(self.progress_tick, |front| front.tick.min(self.progress_tick))
    }

    /// Adds an entry at the end. `begun`: its first bytes have left already, so that it stays.
    pub(crate) fn push(&mut self, bytes: Bytes, tick: u32, tag: Tag, begun: bool) {
        debug_assert!(!begun || self.queue.is_empty(), "only the front can have begun");
        self.front_begun |= begun;
        let number = self.first + self.queue.len() as u64;
        if let Tag::Event(channel) = tag {
            self.places.entry(channel).or_default().event = Some(number);
        }
        self.bytes += bytes.len();
        self.queue.push_back(Entry { bytes, tick, tag });
    }

    /// Takes out the channel's event that waits, if one does: a later one is about to be added. Says whether it did.
    pub(crate) fn supersede(&mut self, channel: ChannelIdx, tick: u32, gap: impl FnOnce() -> Bytes) -> bool {
        let Some(number) = self.places.get(&channel).and_then(|place| place.event) else { return false };
        if number == self.first && self.front_begun {
            return false;
        }
        self.take_out(number, channel, tick, gap);
        self.make_dense();
        true
    }

    /// Takes out the oldest events that may be, until no more than `limit` bytes wait or none is left. Says how many.
    pub(crate) fn trim(&mut self, limit: usize, tick: u32, gap: impl Fn(ChannelIdx) -> Bytes) -> u64 {
        self.take_out_while(tick, gap, |outbox, _| outbox.bytes > limit)
    }

    /// Takes out the events that have waited since before `tick_limit` and may be. Says how many.
    pub(crate) fn trim_older(
        &mut self,
        tick_limit: u32,
        tick: u32,
        gap: impl Fn(ChannelIdx) -> Bytes,
    ) -> u64 {
        self.take_out_while(tick, gap, |_, entry_tick| entry_tick <= tick_limit)
    }

    fn take_out_while(
        &mut self,
        tick: u32,
        gap: impl Fn(ChannelIdx) -> Bytes,
        goes_on: impl Fn(&Self, u32) -> bool,
    ) -> u64 {
        let mut count = 0;
        let mut number = self.searched.max(self.first + u64::from(self.front_begun));
        while let Some(entry) = self.queue.get((number - self.first) as usize) {
            if let Tag::Event(channel) = entry.tag {
                if !goes_on(self, entry.tick) {
                    break;
                }
                self.take_out(number, channel, tick, || gap(channel));
                count += 1;
            }
            number += 1;
        }
        self.searched = number;
        self.make_dense();
        count
    }

    /// Replaces an event by its channel's gap, or by nothing where a gap before it says so already.
    fn take_out(&mut self, number: u64, channel: ChannelIdx, tick: u32, gap: impl FnOnce() -> Bytes) {
        let begun_number = self.front_begun.then_some(self.first);
        let place = self.places.entry(channel).or_default();
        if place.event == Some(number) {
            place.event = None;
        }
        let is_told = place.gap.is_some_and(|gap| Some(gap) != begun_number && gap < number);
        let Some(entry) = self.queue.get_mut((number - self.first) as usize) else { return };
        self.bytes -= entry.bytes.len();
        if is_told {
            *entry = Entry { bytes: Bytes::new(), tick, tag: Tag::Keep };
            self.dead += 1;
        } else {
            place.gap = Some(number);
            *entry = Entry { bytes: gap(), tick, tag: Tag::Gap(channel) };
            self.bytes += entry.bytes.len();
        }
    }

    /// Drops entries without bytes once they are the greater part.
    fn make_dense(&mut self) {
        if self.dead <= DEAD_LIMIT || self.dead * 2 <= self.queue.len() {
            return;
        }
        self.queue.retain(|entry| !entry.bytes.is_empty());
        self.dead = 0;
        self.searched = self.first;
        self.places.clear();
        for (number, entry) in (self.first..).zip(&self.queue) {
            match entry.tag {
                Tag::Keep => {}
                Tag::Event(channel) => self.places.entry(channel).or_default().event = Some(number),
                Tag::Gap(channel) => self.places.entry(channel).or_default().gap = Some(number),
            }
        }
    }

    /// What to write next, at most `limit` slices.
    pub(crate) fn slices(&self, limit: usize) -> Vec<IoSlice<'_>> {
        let full = self.queue.iter().filter(|entry| !entry.bytes.is_empty());
        full.take(limit).map(|entry| IoSlice::new(&entry.bytes)).collect()
    }

    /// The socket took so many bytes.
    pub(crate) fn advance(&mut self, mut written: usize, tick: u32) {
        self.bytes -= written;
        if written > 0 {
            self.progress_tick = tick;
        }
        while let Some(front) = self.queue.front_mut() {
            if front.bytes.len() > written {
                front.bytes.advance(written);
                self.front_begun |= written > 0;
                return;
            }
            written -= front.bytes.len();
            self.dead -= usize::from(front.bytes.is_empty());
            let tag = front.tag;
            self.queue.pop_front();
            self.left(tag);
        }
    }

    /// The front entry has left.
    fn left(&mut self, tag: Tag) {
        let number = self.first;
        self.first += 1;
        self.front_begun = false;
        let (Tag::Event(channel) | Tag::Gap(channel)) = tag else { return };
        if let Some(place) = self.places.get_mut(&channel) {
            place.event = place.event.filter(|event| *event != number);
            place.gap = place.gap.filter(|gap| *gap != number);
            if place.event.is_none() && place.gap.is_none() {
                self.places.remove(&channel);
            }
        }
    }
}

#[cfg(test)]
mod tests;
