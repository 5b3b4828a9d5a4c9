//! Which rate to try next: twice the last until one is too much, then in tenths from the last that was not.

/// In the short look for where to begin.
const COARSE: f64 = 2.0;
/// From step to step.
const FINE: f64 = 1.1;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Next {
    /// This rate; in a full step, or only in a short one.
    Try { rate: f64, is_full: bool },
    /// It is found.
    End,
}

/// See the module. A rate is too much when it fails twice running: one bad moment of the machine ends nothing.
#[derive(Debug)]
pub(super) struct Search {
    rate: f64,
    rate_limit: f64,
    is_full: bool,
    failed_before: bool,
    /// The highest that was good, short steps too.
    best: Option<f64>,
    /// The lowest that was too much in a full step.
    too_much: f64,
    is_over: bool,
}

impl Search {
    pub(super) fn new(start: f64, rate_limit: f64) -> Self {
        Self {
            rate: start.min(rate_limit),
            rate_limit,
            is_full: false,
            failed_before: false,
            best: None,
            too_much: f64::INFINITY,
            is_over: false,
        }
    }

    pub(super) fn next(&self) -> Next {
        if self.is_over { Next::End } else { Next::Try { rate: self.rate, is_full: self.is_full } }
    }

    /// How the last rate went.
    pub(super) fn heard(&mut self, good: bool) {
        if !good && !self.failed_before && self.is_full {
            self.failed_before = true;
            return;
        }
        self.failed_before = false;
        match (self.is_full, good) {
            (false, true) => {
                self.best = Some(self.rate);
                let next = self.rate * COARSE;
                (self.rate, self.is_full) =
                    if next > self.rate_limit { (self.rate, true) } else { (next, false) };
            }
            (false, false) => {
                self.is_full = true;
                self.rate = self.best.unwrap_or(self.rate / COARSE);
            }
            (true, true) => {
                self.best = Some(self.rate);
                self.rate *= FINE;
                self.is_over = self.rate > self.rate_limit.min(self.too_much * 0.999);
            }
            (true, false) => {
                // Below what a short step found good: go down until one holds, or nothing is left.
                self.too_much = self.rate;
                let held = self.best.filter(|best| *best < self.rate);
                self.rate /= COARSE;
                self.best = held;
                self.is_over = held.is_some() || self.rate < 1.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates tried in full steps until it ends, where rates up to this one are good.
    fn tried(capacity: f64, start: f64, rate_limit: f64) -> Vec<u64> {
        let (mut search, mut full) = (Search::new(start, rate_limit), Vec::new());
        for _ in 0..1_000 {
            let Next::Try { rate, is_full } = search.next() else { return full };
            if is_full {
                full.push(rate as u64);
            }
            search.heard(rate <= capacity);
        }
        panic!("it does not end: {full:?}");
    }

    #[test]
    fn it_doubles_then_climbs_in_tenths_and_ends_when_one_has_failed_twice() {
        assert_eq!(tried(1_000.0, 200.0, 1e9), [800, 880, 968, 1_064, 1_064]);
        assert_eq!(tried(1_000.0, 200.0, 900.0), [800, 880], "the limit is not passed");
        assert_eq!(tried(1_000.0, 100.0, 100.0), [100]);
    }

    #[test]
    fn it_goes_down_when_the_beginning_was_too_much() {
        assert_eq!(tried(380.0, 1_000.0, 1e9), [500, 500, 250, 275, 302, 332, 366, 402, 402]);
        assert_eq!(tried(0.0, 4.0, 1e9).last(), Some(&1));
    }

    #[test]
    fn one_bad_step_ends_nothing() {
        let mut search = Search { is_full: true, best: Some(100.0), ..Search::new(110.0, 1e9) };
        search.heard(false);
        assert_eq!(search.next(), Next::Try { rate: 110.0, is_full: true });
        search.heard(true);
        assert_eq!(search.next(), Next::Try { rate: 110.0 * FINE, is_full: true });
    }
}
