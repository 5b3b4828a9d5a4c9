//! When each event is due.

use std::time::{Duration, Instant};

/// Seconds at the start in which connections, caches and the allocator settle: not counted.
const WARM_SECONDS: u64 = 2;
/// Time after the last event in which everything must have come.
const GRACE: Duration = Duration::from_secs(10);

/// Which events a receiver gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) number: u64,
    pub(super) of: u64,
}

impl Share {
    /// Every one.
    pub(super) const ALL: Self = Self { number: 0, of: 1 };

    pub(super) fn has(self, seq: u64) -> bool {
        seq % self.of == self.number
    }
}

/// A schedule. Not `publisher`'s: the probe beside it has no marks, and what counts is told by an event's number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    start: Instant,
    rate: u64,
    warm: u64,
    total: u64,
}

impl Pace {
    /// From now on.
    pub(super) fn new(rate: u64, seconds: u64) -> Self {
        let warm = rate * WARM_SECONDS;
        Self { start: Instant::now(), rate, warm, total: warm + rate * seconds }
    }

    fn due(&self, seq: u64) -> Instant {
        self.start + Duration::from_secs_f64(seq as f64 / self.rate as f64)
    }

    /// When waiting is over.
    pub(super) fn deadline(&self) -> Instant {
        self.due(self.total) + GRACE
    }

    /// How many events count.
    pub(super) fn count(&self) -> usize {
        self.count_of(Share::ALL)
    }

    /// How many of those that count are of a share.
    pub(super) fn count_of(&self, share: Share) -> usize {
        (self.warm..self.total).filter(|seq| share.has(*seq)).count()
    }

    /// The place of an event among those that count.
    pub(super) fn place(&self, seq: u64) -> Option<usize> {
        (self.warm..self.total).contains(&seq).then(|| (seq - self.warm) as usize)
    }

    /// Time since an event was due.
    pub(super) fn since_due(&self, seq: u64, now: Instant) -> Duration {
        now.saturating_duration_since(self.due(seq))
    }

    /// Calls `send` with each event when it is due, late ones at once, until that says no. On a thread of its own: the
    /// runtime's timers are no finer than a millisecond, which is as much as is to be measured.
    pub(super) fn spawn(self, mut send: impl FnMut(u64) -> bool + Send + 'static) -> std::io::Result<()> {
        let run = move || {
            for seq in 0..self.total {
                std::thread::sleep(self.due(seq).saturating_duration_since(Instant::now()));
                if !send(seq) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("pace".into()).spawn(run).map(|_detached| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_counted_from_when_the_event_was_due() {
        let pace = Pace::new(100, 1);
        let sent_late = pace.start + Duration::from_secs(3);
        assert_eq!(pace.since_due(200, sent_late), Duration::from_secs(1));
        assert_eq!(pace.since_due(250, sent_late), Duration::from_millis(500));
    }

    #[test]
    fn the_warm_up_does_not_count() {
        let pace = Pace::new(100, 1);
        assert_eq!(pace.count(), 100);
        assert_eq!(
            [pace.place(199), pace.place(200), pace.place(299), pace.place(300)],
            [None, Some(0), Some(99), None]
        );
    }

    #[test]
    fn shares_are_disjoint_and_all_of_it() {
        let pace = Pace::new(100, 1);
        let counts: Vec<_> = (0..3).map(|number| pace.count_of(Share { number, of: 3 })).collect();
        assert_eq!((counts.iter().sum::<usize>(), pace.count()), (100, 100), "{counts:?}");
        assert_eq!(counts.iter().max(), Some(&34));
    }
}
