//! The messages of one upstream partition that have no answer yet, in order.

use std::collections::VecDeque;

use tidegate_link::UpstreamMessage;
use tidegate_vocab::{ErrorKind, Problem};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Answer;

/// Time after which a client may try again what no router took.
const RETRY_MS: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not handed over yet.
    Waiting,
    /// A router has it.
    InFlight,
    /// A router had it and broke off.
    Failed,
}

struct Entry {
    id: u64,
    message: UpstreamMessage,
    done: oneshot::Sender<Answer>,
    deadline: Instant,
    state: State,
}

/// See the module.
#[derive(Default)]
pub(super) struct Lane {
    /// Whom the messages go to.
    pub(super) router: Option<String>,
    /// Nothing is handed over until all that is under way is answered or given up.
    pub(super) is_moving: bool,
    /// Ordered by id. Those under way come first, except while the lane moves.
    entries: VecDeque<Entry>,
    in_flight: usize,
    last_id: u64,
}

impl Lane {
    pub(super) fn push(
        &mut self,
        message: UpstreamMessage,
        done: oneshot::Sender<Answer>,
        deadline: Instant,
    ) {
        self.last_id += 1;
        self.entries.push_back(Entry { id: self.last_id, message, done, deadline, state: State::Waiting });
    }

    pub(super) fn has_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    pub(super) fn has_failed(&self) -> bool {
        self.entries.iter().any(|entry| entry.state == State::Failed)
    }

    /// True when something has to be handed over.
    pub(super) fn waits(&self) -> bool {
        self.entries.len() > self.in_flight
    }

    /// Everything that is to be handed over, in order. It is under way from now on.
    pub(super) fn take_ready(&mut self) -> Vec<(u64, UpstreamMessage)> {
        let first = self.in_flight;
        debug_assert!(self.entries.iter().take(first).all(|entry| entry.state == State::InFlight));
        self.in_flight = self.entries.len();
        let ready = self.entries.range_mut(first..).map(|entry| {
            entry.state = State::InFlight;
            (entry.id, entry.message.clone())
        });
        ready.collect()
    }

    /// The router broke off: the message waits for the rest of what is under way, and then for the next router.
    pub(super) fn failed(&mut self, id: u64) {
        if let Ok(index) = self.entries.binary_search_by_key(&id, |entry| entry.id) {
            self.entries[index].state = State::Failed;
            self.in_flight -= 1;
            self.is_moving = true;
        }
    }

    pub(super) fn complete(&mut self, id: u64, answer: Answer) {
        if let Ok(index) = self.entries.binary_search_by_key(&id, |entry| entry.id)
            && let Some(entry) = self.entries.remove(index)
        {
            self.in_flight -= usize::from(entry.state == State::InFlight);
            // Whoever asked may have given up.
            drop(entry.done.send(answer));
        }
    }

    /// Refuses what has waited too long. What a router still has is not: its link bounds that.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_due = |entry: &Entry| entry.state != State::InFlight && entry.deadline <= now;
        let due: Vec<(u64, State)> =
            self.entries.iter().filter(|entry| is_due(entry)).map(|entry| (entry.id, entry.state)).collect();
        for (id, state) in due {
            let problem = if state == State::Failed {
                Problem::new(
                    ErrorKind::Indeterminate,
                    "no router answered; the message may have been accepted",
                )
            } else {
                Problem::new(ErrorKind::LogUnavailable, "no router can be reached; nothing was accepted")
            };
            self.complete(id, Err(problem.retry_after_ms(RETRY_MS)));
        }
    }
}
