//! When events are due, and the part of it that is measured.

/// Most that the measured window begins before its first event.
const LEAD_US_LIMIT: u64 = 20_000;

/// On the shared clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) begin_us: u64,
    /// Events a second; nothing: as many as fit.
    pub(super) rate: Option<f64>,
    pub(super) warm_seconds: u64,
    /// That are measured.
    pub(super) seconds: u64,
}

impl Schedule {
    /// When an event is meant to be sent.
    pub(super) fn due_us(&self, seq: u64, rate: f64) -> u64 {
        self.begin_us + (seq as f64 * 1e6 / rate) as u64
    }

    /// Nothing is sent from then on.
    pub(super) fn end_us(&self) -> u64 {
        self.begin_us + (self.warm_seconds + self.seconds) * 1_000_000
    }

    /// What is measured: from this time, and up to that. At a steady rate both lie shortly before an event is due, when the
    /// one before it has long been delivered, so that no delivery's cost is cut in two.
    pub(super) fn window_us(&self) -> (u64, u64) {
        let lead = self.rate.map_or(0, |rate| ((1e6 / rate / 8.0) as u64).min(LEAD_US_LIMIT));
        (self.begin_us + self.warm_seconds * 1_000_000 - lead, self.end_us() - lead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_events_are_due_in_the_window_as_its_seconds_hold() {
        let schedule = Schedule { begin_us: 5_000_000, rate: Some(8.0), warm_seconds: 2, seconds: 20 };
        let (from, to) = schedule.window_us();
        assert_eq!(to - from, 20_000_000);
        let due = (0..1_000).map(|seq| schedule.due_us(seq, 8.0));
        assert_eq!(due.clone().filter(|due| (from..to).contains(due)).count(), 160);
        assert_eq!(due.filter(|due| *due < schedule.end_us()).count(), 176);
        let saturated = Schedule { rate: None, ..schedule };
        assert_eq!(saturated.window_us(), (7_000_000, 27_000_000));
    }
}
