//! Which questions go to a member in one call.
//!
//! Sans-io. A question goes out at once while few calls to its member are in flight; else it waits, with all others that come
//! meanwhile, for the next of them to end. So an idle member is asked without delay, and a busy one in large batches. What a
//! question's answer is worth is counted from when it was put to [`Calls`], never from when it left.

use std::collections::{BTreeMap, VecDeque};

use tidegate_vocab::{Channel, limits};

use crate::locator::{Ask, AskId};
use crate::ring::MemberId;

/// Calls to one member before questions are gathered: one that is slow does not hold up the rest.
const CALLS_IN_FLIGHT_LIMIT: usize = 4;

/// Questions to one member, and how many of the subjects each has, in their order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) member: MemberId,
    pub(super) asks: Vec<(AskId, usize)>,
    pub(super) subjects: Vec<Channel>,
}

#[derive(Debug, Default)]
struct ToMember {
    in_flight: usize,
    waiting: VecDeque<Ask>,
}

/// The calls of a router. As many questions wait as its lookups have.
#[derive(Debug, Default)]
pub(super) struct Calls {
    members: BTreeMap<MemberId, ToMember>,
}

impl Calls {
    /// A question that is to be put.
    pub(super) fn push(&mut self, ask: Ask) {
        self.members.entry(ask.member).or_default().waiting.push_back(ask);
    }

    /// A call that may go out now. Questions that nobody waits for any more are left out.
    pub(super) fn next(&mut self, is_open: impl Fn(AskId) -> bool) -> Option<Call> {
        for (member, to) in &mut self.members {
            if to.in_flight < CALLS_IN_FLIGHT_LIMIT
                && let Some(call) = to.gather(*member, &is_open)
            {
                to.in_flight += 1;
                return Some(call);
            }
        }
        None
    }

    /// A call ended, well or not.
    pub(super) fn ended(&mut self, member: MemberId) {
        if let Some(to) = self.members.get_mut(&member) {
            debug_assert!(to.in_flight > 0, "a call ends once");
            to.in_flight = to.in_flight.saturating_sub(1);
        }
        self.members.retain(|_, to| to.in_flight > 0 || !to.waiting.is_empty());
    }
}

impl ToMember {
    /// As many of the waiting questions as fit one call, the oldest first.
    fn gather(&mut self, member: MemberId, is_open: impl Fn(AskId) -> bool) -> Option<Call> {
        let mut call = Call { member, asks: Vec::new(), subjects: Vec::new() };
        while let Some(ask) = self.waiting.front() {
            let is_full = call.subjects.len() + ask.subjects.len() > limits::LOOKUP_KEYS_LIMIT;
            if is_full && !call.asks.is_empty() {
                break;
            }
            let Some(ask) = self.waiting.pop_front() else { break };
            if is_open(ask.id) {
                call.asks.push((ask.id, ask.subjects.len()));
                call.subjects.extend(ask.subjects);
            }
        }
        (!call.asks.is_empty()).then_some(call)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidegate_vocab::Incarnation;

    use super::*;
    use crate::frame::{Current, Location};
    use crate::locator::Locator;
    use crate::ring::Ring;

    const MEMBER: MemberId = MemberId(0);

    fn ask(id: AskId, keys: usize) -> Ask {
        let subject = |key| Channel::parse(&format!("user:{id}-{key}")).expect("valid");
        Ask { id, member: MEMBER, subjects: (0..keys).map(subject).collect() }
    }

    fn next(calls: &mut Calls) -> Vec<AskId> {
        let call = calls.next(|_| true);
        call.into_iter().flat_map(|call| call.asks).map(|(id, _)| id).collect()
    }

    /// As many calls in flight as there may be, each with the question of its number.
    fn busy() -> Calls {
        let mut calls = Calls::default();
        for id in 0..CALLS_IN_FLIGHT_LIMIT as u64 {
            calls.push(ask(id, 1));
            assert_eq!(next(&mut calls), [id], "an idle member is asked at once");
        }
        calls
    }

    #[test]
    fn a_busy_member_is_asked_in_batches() {
        let mut calls = busy();
        (10..14).for_each(|id| calls.push(ask(id, 1)));
        assert!(next(&mut calls).is_empty());
        calls.ended(MEMBER);
        assert_eq!(next(&mut calls), [10, 11, 12, 13]);
        assert!(next(&mut calls).is_empty());
        (0..CALLS_IN_FLIGHT_LIMIT).for_each(|_| calls.ended(MEMBER));
        assert!(calls.members.is_empty());
    }

    #[test]
    fn a_call_has_no_more_keys_than_a_lookup() {
        let mut calls = busy();
        let most = limits::LOOKUP_KEYS_LIMIT;
        for (id, keys) in [(10, most - 1), (11, 1), (12, 1), (13, most)] {
            calls.push(ask(id, keys));
        }
        (0..CALLS_IN_FLIGHT_LIMIT).for_each(|_| calls.ended(MEMBER));
        assert_eq!(
            [next(&mut calls), next(&mut calls), next(&mut calls)],
            [vec![10, 11], vec![12], vec![13]]
        );
    }

    #[test]
    fn what_nobody_waits_for_is_not_asked() {
        let mut calls = busy();
        (10..13).for_each(|id| calls.push(ask(id, 1)));
        calls.ended(MEMBER);
        let call = calls.next(|id| id == 11).expect("one");
        assert_eq!((call.asks, call.subjects), (vec![(11, 1)], ask(11, 1).subjects));
    }

    #[test]
    fn members_do_not_wait_for_each_other() {
        let mut calls = busy();
        calls.push(ask(10, 1));
        calls.push(Ask { member: MemberId(1), ..ask(11, 1) });
        assert_eq!(next(&mut calls), [11]);
    }

    /// Invariant 18, for a question that waited: the word must have stood when it was put, not when it left.
    #[test]
    fn a_word_that_changed_while_the_question_waited_covers_nothing() {
        let check = |word_while_waiting: bool| {
            let ring = Arc::new(Ring::build(&[(MEMBER, 1)]).expect("valid"));
            let (node, member) = (Incarnation(1), Incarnation(10));
            let current = Current { member, digest: ring.digest() };
            let mut locator = Locator::new(ring);
            locator.node_says(node, [current]);
            let mut calls = busy();
            locator.lookup(&ask(10, 1).subjects, 0).expect("few");
            locator.take_asks().into_iter().for_each(|ask| calls.push(ask));
            if word_while_waiting {
                locator.node_says(node, []);
                locator.node_says(node, [current]);
            }
            calls.ended(MEMBER);
            let call = calls.next(|id| locator.awaits(id)).expect("the question");
            for (id, _) in call.asks {
                locator.answered(id, member, vec![Location::default()], 10);
            }
            locator.take_done().pop().expect("done").found[0].also.to_vec()
        };
        assert_eq!(check(false), []);
        assert_eq!(check(true), [Incarnation(1)]);
    }
}
