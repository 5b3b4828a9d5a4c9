//! The cursor of a connection: per partition the least that one of its channels there has not been given.

use tidegate_vocab::{Cursor, LogEpoch, Offset};

use super::conn::{Opening, Progress, Sub};
use super::table::{ConnIdx, SetIdx};
use super::{NO_SET, Part, State};

impl State {
    /// The cursor of connections that are live in all channels of a set: the shard's next, partition by partition.
    pub(super) fn set_cursor(&self, set: SetIdx) -> String {
        let mut cursor = Cursor::default();
        for channel in self.table.set(set).channels() {
            let entry = self.table.entry(channel);
            if let Some((epoch, next)) = live_position(self.parts[entry.part()], Offset(0)) {
                cursor.cover_fingerprint(entry.fingerprint, self.table.partition(channel), epoch, next);
            }
        }
        cursor.encode()
    }

    /// The cursor of one connection as of what has been queued to it.
    pub(super) fn conn_cursor(&self, idx: ConnIdx) -> String {
        let Some(conn) = self.conns.get(idx as usize).filter(|conn| conn.set != NO_SET) else {
            return String::new();
        };
        match &conn.opening {
            None => self.set_cursor(conn.set),
            Some(opening) => self.opening_cursor(opening, Self::position),
        }
    }

    /// The cursor that a `state` says: nothing that follows the `state` lies before it.
    pub(super) fn start_cursor(&self, opening: &Opening) -> String {
        self.opening_cursor(opening, |state, sub| sub.start.or_else(|| state.position(sub)))
    }

    /// A pending channel counts with the position it asked for; one without is not covered (TENURES, rule 13).
    fn opening_cursor(
        &self,
        opening: &Opening,
        position: impl Fn(&Self, &Sub) -> Option<(LogEpoch, Offset)>,
    ) -> String {
        let mut cursor = Cursor::default();
        for sub in &opening.subs {
            let entry = self.table.entry(sub.channel);
            if let Some((epoch, next)) = position(self, sub) {
                let partition = self.table.partition(sub.channel);
                cursor.cover_fingerprint(entry.fingerprint, partition, epoch, next);
            }
        }
        cursor.encode()
    }

    /// What one channel of an opening connection has next.
    pub(super) fn position(&self, sub: &Sub) -> Option<(LogEpoch, Offset)> {
        match sub.progress {
            Progress::Pending { next, .. } => next,
            Progress::Stalled { epoch, next } => Some((epoch, next)),
            Progress::Live { from } => live_position(self.parts[self.table.entry(sub.channel).part()], from),
        }
    }
}

pub(super) fn live_position(part: Part, from: Offset) -> Option<(LogEpoch, Offset)> {
    let next = part.next.max(from);
    part.epoch.filter(|_| next > Offset(0)).map(|epoch| (epoch, next))
}
