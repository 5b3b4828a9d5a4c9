//! One timer wheel per shard: every connection has at most one entry that counts, and none costs a task.

/// Ticks after which an entry comes round at the latest; a later deadline is looked at then and set again.
const SLOTS: u32 = 2048;

/// What a wheel says is due: a connection and the tick for which it was set. The caller checks that it still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) conn: u32,
    pub(crate) generation: u32,
    pub(crate) tick: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Vec<Vec<Due>>,
    now: u32,
}

impl Wheel {
    pub(crate) fn new(now: u32) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), now }
    }

    /// The tick that it has reached.
    pub(crate) fn now(&self) -> u32 {
        self.now
    }

    /// Sets an entry for `tick`, at the earliest the next and at the latest a round from now; returns its tick.
    pub(crate) fn set(&mut self, conn: u32, generation: u32, tick: u32) -> u32 {
        let tick = tick.clamp(self.now + 1, self.now + SLOTS - 1);
        self.slots[(tick % SLOTS) as usize].push(Due { conn, generation, tick });
        tick
    }

    /// The first tick up to `latest` that has an entry, whether it still counts or not.
    pub(crate) fn first_due(&self, latest: u32) -> Option<u32> {
        let latest = latest.min(self.now + SLOTS - 1);
        (self.now + 1..=latest).find(|tick| !self.slots[(tick % SLOTS) as usize].is_empty())
    }

    /// Moves to `now` and takes what has come due.
    pub(crate) fn advance(&mut self, now: u32) -> Vec<Due> {
        let mut due = Vec::new();
        let steps = now.saturating_sub(self.now).min(SLOTS);
        for step in 1..=steps {
            let slot = &mut self.slots[((self.now + step) % SLOTS) as usize];
            due.append(slot);
            slot.shrink_to(64);
        }
        self.now = self.now.max(now);
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every entry comes back exactly once, not before its tick, and at the first advance that reaches it.
        #[test]
        fn entries_come_due_once_and_in_time(steps in proptest::collection::vec((0_u32..3000, 1_u32..5000), 1..60)) {
            let mut wheel = Wheel::new(10);
            let (mut now, mut waiting) = (10, std::collections::BTreeMap::new());
            for (conn, (delay, advance)) in steps.into_iter().enumerate() {
                let conn = conn as u32;
                let tick = wheel.set(conn, 0, now + delay);
                prop_assert!(tick > now && tick < now + SLOTS);
                waiting.insert(conn, tick);
                prop_assert_eq!(wheel.first_due(u32::MAX / 2), waiting.values().min().copied());
                prop_assert_eq!(wheel.first_due(tick - 1), waiting.values().min().copied().filter(|min| *min < tick));
                now += advance;
                for due in wheel.advance(now) {
                    prop_assert_eq!(waiting.remove(&due.conn), Some(due.tick));
                    prop_assert!(due.tick <= now);
                }
                prop_assert!(waiting.values().all(|tick| *tick > now));
            }
        }
    }
}
