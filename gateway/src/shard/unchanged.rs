//! Short polls that find nothing new, answered here and now: without the node task, and without taking the socket.
//!
//! A node answers a Want by itself where its hold of the channel has not been broken since the cursor, and it holds a
//! channel for a while after its last subscriber left (TENURES, rule 9; [`limits::UNWANT_LINGER_MS`]). So for half of that
//! while after a poll was answered this shard knows what the node would say to one that asks from where the shard is: that
//! there is nothing. After that one poll is asked of the node again. Whatever breaks a hold makes all of this be forgotten.

use std::collections::VecDeque;

use tidegate_vocab::{Channel, Cursor, Offset, PartitionId, limits};

use super::cursor::live_position;
use super::table::ChannelIdx;
use super::task::followed;
use super::{Map, State};
use crate::auth::Identity;
use crate::clock::ticks;
use crate::request::{CursorParam, EventsRequest, Transport};

/// For how long after a poll's answer its channels are known to be held here.
const KNOWN_MS: u64 = limits::UNWANT_LINGER_MS / 2;

/// Channels that the node holds for sure, because a poll of this shard followed them a moment ago.
#[derive(Debug, Default)]
pub(super) struct Polled {
    by_name: Map<Channel, Held>,
    /// In the order in which they end.
    ends: VecDeque<(u32, Channel)>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    partition: PartitionId,
    part: usize,
    fingerprint: u32,
}

impl Polled {
    /// What is noted already stays as long as it would have: the node must be asked now and then.
    fn note(&mut self, name: &Channel, held: Held, now: u32) {
        if self.by_name.len() >= limits::POLLED_CHANNELS_LIMIT || self.by_name.contains_key(name) {
            return;
        }
        self.by_name.insert(name.clone(), held);
        self.ends.push_back((now + ticks(KNOWN_MS), name.clone()));
    }

    /// Forgets those whose time is over.
    pub(super) fn expire(&mut self, now: u32) {
        while let Some((_, name)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            self.by_name.remove(&name);
        }
    }

    /// Forgets all: a hold may be broken.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl State {
    /// A poll whose channels are all live is about to be answered, and to let go of them.
    pub(super) fn note_polled(&mut self, channels: &[ChannelIdx]) {
        let now = self.tick_now();
        for channel in channels {
            let entry = self.table.entry(*channel);
            let partition = self.table.partition(*channel);
            let held = Held { partition, part: entry.part(), fingerprint: entry.fingerprint };
            self.polled.note(&entry.name, held, now);
        }
    }

    /// Whether this request would be answered 304: a poll that does not wait and whose cursor is what it would be told.
    /// If so it counts as a poll that came and went.
    pub(crate) fn is_unchanged(&mut self, request: &EventsRequest, identity: &Identity) -> bool {
        let (Transport::Poll, 0, CursorParam::Good(cursor), Some(tag)) =
            (request.transport, request.wait_ms, &request.cursor, &request.if_none_match)
        else {
            return false;
        };
        if !self.may_deliver() {
            return false;
        }
        self.polled.expire(self.tick_now());
        let names = followed(request, identity, &self.shared.everyone);
        let mut expected = Cursor::default();
        for name in &names {
            let Some(held) = self.polled.by_name.get(name) else { return false };
            let Some((epoch, next)) = live_position(self.parts[held.part], Offset(0)) else { return false };
            expected.cover_fingerprint(held.fingerprint, held.partition, epoch, next);
        }
        if *cursor != expected || *tag != expected.encode() {
            return false;
        }
        self.shared.presences.come(names.iter(), Transport::Poll, 0);
        self.shared.presences.go(names.iter(), Transport::Poll);
        let (metrics, poll) = (&self.shared.metrics, Transport::Poll.as_str());
        metrics.opened.with_label_values(&[poll]).inc();
        metrics.closed.with_label_values(&[poll, "answered"]).inc();
        true
    }
}

#[cfg(test)]
mod tests {
    use tidegate_vocab::Topic;

    use super::*;

    #[test]
    fn a_channel_is_known_for_half_of_what_the_node_holds_it_and_not_for_longer() {
        let held =
            Held { partition: PartitionId { topic: Topic::Events, number: 0 }, part: 0, fingerprint: 7 };
        let name = |number: usize| Channel::parse(&format!("c:{number}")).expect("valid");
        let (mut polled, half) = (Polled::default(), ticks(limits::UNWANT_LINGER_MS) / 2);
        polled.note(&name(1), held, 10);
        polled.note(&name(1), held, 9 + half); // Polls that go on do not prolong it.
        polled.expire(9 + half);
        assert!(polled.by_name.contains_key(&name(1)));
        polled.expire(10 + half);
        assert!(polled.by_name.is_empty() && polled.ends.is_empty());

        for number in 0..limits::POLLED_CHANNELS_LIMIT + 5 {
            polled.note(&name(number), held, 10);
        }
        assert_eq!([polled.by_name.len(), polled.ends.len()], [limits::POLLED_CHANNELS_LIMIT; 2]);
        polled.clear();
        assert!(polled.by_name.is_empty() && polled.ends.is_empty());
    }
}
