//! Verdicts of recent records, for the publishers that wait for them.

use std::collections::BTreeMap;

use tidegate_link::Settled;
use tidegate_vocab::{Offset, limits};
use tokio::sync::oneshot;

/// What is known of an offset.
pub(super) enum Known {
    /// Its verdict.
    Settled(Settled),
    /// It has not been consumed yet: the answer comes with it.
    Later,
    /// It was consumed before this tenure: ask the log again.
    Before,
}

/// See the module. Everything in `[known_from, H)` that is not in `odd` was fresh.
#[derive(Default)]
pub(super) struct Verdicts {
    known_from: Offset,
    odd: BTreeMap<Offset, Settled>,
    waiting: BTreeMap<Offset, Vec<oneshot::Sender<Settled>>>,
}

impl Verdicts {
    /// Consumption goes on at `h`; what was asked before that comes back, to be answered from the log.
    pub(super) fn begin(&mut self, h: Offset) -> Vec<(Offset, oneshot::Sender<Settled>)> {
        self.known_from = h;
        self.odd.clear();
        let later = self.waiting.split_off(&h);
        let before = std::mem::replace(&mut self.waiting, later);
        before
            .into_iter()
            .flat_map(|(offset, answers)| answers.into_iter().map(move |answer| (offset, answer)))
            .collect()
    }

    /// Nothing is known any more; those who wait go on waiting.
    pub(super) fn end_tenure(&mut self) {
        self.odd.clear();
    }

    pub(super) fn known(&self, offset: Offset, h: Offset) -> Known {
        if offset >= h {
            return Known::Later;
        }
        if offset < self.known_from {
            return Known::Before;
        }
        Known::Settled(self.odd.get(&offset).copied().unwrap_or(Settled::Fresh))
    }

    pub(super) fn wait(&mut self, offset: Offset, answer: oneshot::Sender<Settled>) {
        self.waiting.entry(offset).or_default().push(answer);
    }

    /// The record at `offset` was consumed.
    pub(super) fn consumed(&mut self, offset: Offset, settled: Settled) {
        if settled != Settled::Fresh {
            self.odd.insert(offset, settled);
        }
        let oldest = Offset(offset.0.saturating_sub(limits::IDEMPOTENCY_WINDOW_OFFSETS));
        if self.known_from < oldest {
            self.known_from = oldest;
            self.odd = self.odd.split_off(&oldest);
        }
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() <= offset) {
            let asked = *first.key();
            for answer in first.remove() {
                // An offset that was passed without a record is nobody's: dropping the answer says indeterminate.
                if asked == offset {
                    // invariant: a publisher that gave up needs no answer
                    let _ = answer.send(settled);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_hear_of_their_own_record() {
        let mut verdicts = Verdicts::default();
        verdicts.begin(Offset(10));
        let (answer, mut heard) = oneshot::channel();
        let (passed, mut never) = oneshot::channel();
        verdicts.wait(Offset(12), answer);
        verdicts.wait(Offset(11), passed);
        verdicts.consumed(Offset(10), Settled::Fresh);
        assert!(heard.try_recv().is_err());
        verdicts.consumed(Offset(12), Settled::Conflict);
        assert_eq!(heard.try_recv(), Ok(Settled::Conflict));
        assert!(matches!(never.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert!(matches!(verdicts.known(Offset(12), Offset(13)), Known::Settled(Settled::Conflict)));
        assert!(matches!(verdicts.known(Offset(10), Offset(13)), Known::Settled(Settled::Fresh)));
        assert!(matches!(verdicts.known(Offset(13), Offset(13)), Known::Later));
        assert!(matches!(verdicts.known(Offset(9), Offset(13)), Known::Before));
    }

    #[test]
    fn a_new_beginning_hands_back_what_it_has_passed() {
        let mut verdicts = Verdicts::default();
        for offset in [3, 4, 5] {
            verdicts.wait(Offset(offset), oneshot::channel().0);
        }
        let before: Vec<_> = verdicts.begin(Offset(5)).into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(before, [Offset(3), Offset(4)]);
    }
}
