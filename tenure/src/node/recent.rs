//! The node's ring of recent events of one partition, for the Wants that it answers itself (rule 9).

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_vocab::{Channel, Event, Offset, limits};

use crate::frame::event_cost;

/// What was pushed to the shards lately. It shares the events, and holds nothing while none came.
#[derive(Debug)]
pub(super) struct Recent {
    rows: VecDeque<Arc<Event>>,
    bytes: usize,
    bytes_limit: usize,
    /// Whatever was pushed at or above this is here.
    floor: Offset,
}

impl Recent {
    pub(super) fn new(bytes_limit: usize) -> Self {
        Self { rows: VecDeque::new(), bytes: 0, bytes_limit, floor: Offset(0) }
    }

    /// Takes an event that is pushed to the shards; they come in the order of their offsets. One without an offset is
    /// nobody's history.
    pub(super) fn remember(&mut self, event: &Arc<Event>) {
        if event.offset.is_none() {
            return;
        }
        debug_assert!(self.rows.back().is_none_or(|last| last.offset < event.offset), "rows rise");
        self.bytes += event_cost(event);
        self.rows.push_back(Arc::clone(event));
        while self.bytes > self.bytes_limit || self.rows.len() > limits::NODE_RING_ROWS_LIMIT {
            let Some(old) = self.rows.pop_front() else { break };
            self.bytes -= event_cost(&old);
            self.floor = old.offset.unwrap_or_default().next();
        }
    }

    /// Forgets everything: what was pushed below `floor` is here no more.
    pub(super) fn forget(&mut self, floor: Offset) {
        (self.rows, self.bytes, self.floor) = (VecDeque::new(), 0, floor);
    }

    /// Every row of the channel that was pushed at or above `from`; `None` when some may be missing. Those whose own
    /// time to live has run out by `unix_ms` are left out, as the owner does.
    pub(super) fn rows(&self, channel: &Channel, from: Offset, unix_ms: u64) -> Option<Vec<Arc<Event>>> {
        if from < self.floor {
            return None;
        }
        let start = self.rows.partition_point(|row| row.offset < Some(from));
        let is_due =
            |row: &&Arc<Event>| row.channel == *channel && row.expires_ms.is_none_or(|at| at > unix_ms);
        Some(self.rows.range(start..).filter(is_due).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidegate_vocab::{EventName, Payload};

    use super::*;

    fn event(name: &str, offset: u64, bytes: usize, expires_ms: Option<u64>) -> Arc<Event> {
        Arc::new(Event {
            channel: Channel::parse(name).expect("valid"),
            name: EventName::MESSAGE,
            payload: Payload::Binary(Bytes::from(vec![0; bytes])),
            time_ms: 0,
            offset: Some(Offset(offset)),
            expires_ms,
            trace: None,
        })
    }

    fn check(recent: &Recent, name: &str, from: u64, expected: Option<&[u64]>) {
        let channel = Channel::parse(name).expect("valid");
        let offsets = recent
            .rows(&channel, Offset(from), 100)
            .map(|rows| rows.iter().filter_map(|row| row.offset).map(|offset| offset.0).collect::<Vec<_>>());
        assert_eq!(offsets.as_deref(), expected, "{name} from {from}");
    }

    #[test]
    fn a_channel_gets_its_rows_from_a_position_on_and_none_that_ran_out() {
        let mut recent = Recent::new(1 << 20);
        for (name, offset, expires_ms) in
            [("a", 3, None), ("b", 4, None), ("a", 7, Some(100)), ("a", 9, Some(101))]
        {
            recent.remember(&event(name, offset, 1, expires_ms));
        }
        check(&recent, "a", 0, Some(&[3, 9]));
        check(&recent, "a", 4, Some(&[9]));
        check(&recent, "b", 0, Some(&[4]));
        check(&recent, "b", 5, Some(&[]));
        check(&recent, "c", 0, Some(&[]));
    }

    #[test]
    fn the_floor_rises_with_what_is_dropped_by_bytes_and_by_rows() {
        let mut recent = Recent::new(1_000);
        for offset in 0..10 {
            recent.remember(&event("a", offset, 200, None));
        }
        assert!(recent.bytes <= 1_000 && recent.rows.len() == 3);
        check(&recent, "a", 6, None);
        check(&recent, "a", 7, Some(&[7, 8, 9]));
        let mut recent = Recent::new(1 << 20);
        for offset in 0..=limits::NODE_RING_ROWS_LIMIT as u64 {
            recent.remember(&event("a", offset, 0, None));
        }
        check(&recent, "b", 0, None);
        check(&recent, "b", 1, Some(&[]));
    }

    #[test]
    fn nothing_is_allocated_before_an_event_or_after_all_is_forgotten() {
        let mut recent = Recent::new(1 << 20);
        assert_eq!(recent.rows.capacity(), 0);
        recent.remember(&event("a", 5, 1, None));
        recent.forget(Offset(6));
        assert_eq!((recent.rows.capacity(), recent.bytes), (0, 0));
        check(&recent, "a", 5, None);
    }
}
