//! A pass over the table in slices: takes out what no longer counts, and looks at everything once.

use std::sync::Arc;

use super::{Member, is_primary};
use crate::id::CompactId;
use crate::ring::REPLICAS;
use crate::table::{Entry, NodeIndex, STRIPES};

/// What a pass that has not begun is for, besides sweeping.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    /// The ring changed.
    pub(super) ring: bool,
}

/// A pass under way.
#[derive(Debug)]
pub(super) struct Pass {
    next: usize,
    /// Nodes that were dead when it began: no place names them when it ends.
    dead: Vec<NodeIndex>,
    wanted: Wanted,
}

impl Member {
    pub(super) fn want(&mut self, wanted: Wanted) {
        let ring = wanted.ring || self.wanted.is_some_and(|wanted| wanted.ring);
        self.wanted = Some(Wanted { ring });
    }

    /// Some entries do not know yet whether this member is their primary under the newest ring.
    pub(super) fn is_learning_ring(&self) -> bool {
        let under_way = self.pass.as_ref().is_some_and(|pass| pass.wanted.ring);
        under_way || self.wanted.is_some_and(|wanted| wanted.ring)
    }

    /// One slice of the pass under way, or of the one that is wanted.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        if self.pass.is_none() {
            let Some(wanted) = self.wanted.take() else { return };
            self.pass = Some(Pass { next: 0, dead: self.nodes.dead(), wanted });
        }
        let Some(Pass { next, wanted, .. }) = &mut self.pass else { return };
        let (stripe, wanted) = (*next, *wanted);
        *next += 1;
        let is_last = *next == STRIPES;
        let table = Arc::clone(&self.table);
        table.sweep(stripe, |id, entry| self.visit(id, entry, wanted, now_ms));
        if is_last && let Some(pass) = self.pass.take() {
            self.nodes.free(&pass.dead);
            self.table.set_valid(self.nodes.valid());
        }
    }

    fn visit(&mut self, id: &CompactId, entry: &mut Entry, wanted: Wanted, now_ms: u64) {
        let Self { nodes, presences, ring, id: member, .. } = self;
        let mut left_ms = None;
        entry.retain(|place| {
            let counts = nodes.counts(place);
            if !counts {
                nodes.count(Some(place), None);
                left_ms = left_ms.max(nodes.get_mut(place.node).map(|node| node.ended_ms));
            }
            counts
        });
        if wanted.ring {
            let name = id.name();
            let is_ours = ring.replicas(&name, REPLICAS).any(|replica| replica == *member);
            presences.set_primary(entry, is_primary(ring, *member, &name));
            if !is_ours {
                presences.set_online(entry, false);
            }
        }
        presences.look(entry, id, |place| nodes.counts(place), left_ms.unwrap_or(now_ms));
    }
}
