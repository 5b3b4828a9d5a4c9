//! A member and the compacted topic: what is read from it, and what is to be appended.

use std::sync::Arc;

use super::{Member, is_primary, pass};
use crate::frame::{Presence, Transition};
use crate::id::CompactId;
use crate::ring::{REPLICAS, Ring};

impl Member {
    /// Another ring from now on. What this member is primary of is looked at anew, in slices, and presence is silent until the
    /// topic was read once more: keys that are new here were passed over before.
    pub fn set_ring(&mut self, ring: Arc<Ring>) {
        if ring.digest() == self.ring.digest() {
            return;
        }
        self.ring = ring;
        self.want(pass::Wanted { ring: true });
        self.reading += 1;
        self.speaks_at_ms = None;
        self.presences.speaks = false;
        let Self { presences, table, ring, id, .. } = self;
        presences.take_back(table, |subject| !is_primary(ring, *id, subject.as_str()));
    }

    /// The number of the reading of the topic, from its start, that this member waits for or has had.
    #[must_use]
    pub fn reading(&self) -> u64 {
        self.reading
    }

    /// A record of the topic, from its start on and then as it grows, this member's own included.
    pub fn read_back(&mut self, record: &Transition, now_ms: u64) {
        let is_heeded = self.presences.heeds(record);
        if self.presences.take_backlog() {
            self.want(pass::Wanted::default());
        }
        if !is_heeded {
            return;
        }
        let subject = record.subject.as_str();
        let is_ours = self.ring.replicas(subject, REPLICAS).any(|member| member == self.id);
        let Self { nodes, presences, table, ring, id, .. } = self;
        let key = CompactId::new(subject);
        table.change(&key, |entry, is_new| {
            if is_new && !is_ours {
                return;
            }
            if is_new {
                entry.is_primary = is_primary(ring, *id, subject);
            }
            presences.set_online(entry, record.presence == Presence::Online);
            presences.look(entry, &key, |place| nodes.counts(place), now_ms);
        });
    }

    /// In this reading the topic was read up to where it ended when reading began. From a lease later on, so that nodes have come,
    /// presence is spoken about.
    pub fn caught_up(&mut self, reading: u64, now_ms: u64) {
        if reading == self.reading {
            self.speaks_at_ms.get_or_insert(now_ms + self.options.lease_ms);
        }
    }

    /// At most this many transitions that were not given out yet, in order. Each stays in flight until it is read back.
    pub fn take_transitions(&mut self, limit: usize) -> Vec<Transition> {
        self.presences.take(limit)
    }

    /// Whoever took transitions is gone: those in flight are given out again.
    pub fn resend_transitions(&mut self) {
        self.presences.resend();
    }
}
