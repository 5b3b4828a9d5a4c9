//! What a node knows of the control topic, and whether that is fresh enough to deliver on.
//!
//! Written by one task ([`asking`]); read by every shard without waiting: two numbers tell it whether something new came
//! and until when it may deliver. Revocations are taken before the time is raised, and a shard looks at the time first,
//! so that nothing is delivered on the strength of an answer whose revocations the shard has not applied (TENURES, rule
//! 18).

pub(crate) mod asking;
mod freshness;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use tidegate_link::{ControlAnswer, ControlAsk};
use tidegate_vocab::{LogEpoch, Offset, Revocation, RevocationScope, UserId};

use crate::auth::Identity;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Control {
    table: RwLock<Table>,
    /// How many revocations have been taken so far.
    taken: AtomicU64,
    /// In milliseconds of the gateway's clock; 0 before the first full word.
    fresh_until_ms: AtomicU64,
    /// Everything there was has been taken once.
    is_complete: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    epoch: LogEpoch,
    next: Offset,
    /// In the order in which they were taken; the last is number `taken`.
    revocations: VecDeque<(Offset, Revocation)>,
    by_user: HashMap<UserId, Revoked>,
}

/// What is revoked of one user.
#[derive(Debug, Default)]
struct Revoked {
    before_s: u64,
    tokens: Vec<u64>,
}

/// What of a token counts against revocations. Kept by each connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TokenMark {
    /// When it was issued, in seconds since the Unix epoch; 0 if it does not say.
    pub(crate) issued_s: u32,
    /// The hash of its id; 0 if it has none.
    pub(crate) id: u64,
}

impl TokenMark {
    /// Whether this revocation is of such a token of the same user.
    pub(crate) fn is_meant_by(self, scope: &RevocationScope) -> bool {
        match scope {
            RevocationScope::IssuedBefore(seconds) => u64::from(self.issued_s) < *seconds,
            RevocationScope::Token(id) => self.id == id.hash64(),
        }
    }
}

impl Revoked {
    fn add(&mut self, scope: &RevocationScope) {
        match scope {
            RevocationScope::IssuedBefore(seconds) => self.before_s = self.before_s.max(*seconds),
            RevocationScope::Token(id) => self.tokens.push(id.hash64()),
        }
    }
}

impl Table {
    fn add(&mut self, offset: Offset, revocation: Revocation) {
        self.by_user.entry(revocation.user.clone()).or_default().add(&revocation.scope);
        self.revocations.push_back((offset, revocation));
    }

    /// Forgets what has expired: the topic keeps records for at least as long as a token lives.
    fn expire(&mut self, start: Offset) {
        let before = self.revocations.len();
        while self.revocations.front().is_some_and(|(offset, _)| *offset < start) {
            self.revocations.pop_front();
        }
        if self.revocations.len() < before {
            self.by_user.clear();
            for (_, revocation) in &self.revocations {
                self.by_user.entry(revocation.user.clone()).or_default().add(&revocation.scope);
            }
        }
    }
}

impl Control {
    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// From where to ask on.
    fn ask(&self) -> ControlAsk {
        let table = self.table();
        ControlAsk { epoch: table.epoch, next: table.next }
    }

    /// Takes what an answer holds and is not known yet. Returns how many that were.
    fn take(&self, answer: ControlAnswer) -> u64 {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.epoch != answer.epoch {
            // Another log. What was revoked stays so; it goes once the new log has forgotten as much.
            table.revocations.iter_mut().for_each(|(offset, _)| *offset = Offset(0));
            table.epoch = answer.epoch;
            table.next = answer.start;
        }
        let known = table.next;
        let mut new = 0;
        for (offset, revocation) in answer.records {
            if offset >= known {
                table.add(offset, revocation);
                new += 1;
            }
        }
        table.next = known.max(answer.next);
        table.expire(answer.start);
        // Under the lock: whoever reads the number finds as many in the table.
        self.taken.fetch_add(new, Ordering::Release);
        new
    }

    /// Everything taken so far is all there was up to this time.
    fn vouch(&self, until_ms: u64) {
        self.fresh_until_ms.store(until_ms, Ordering::Release);
        if until_ms > 0 {
            self.is_complete.store(true, Ordering::Release);
        }
    }

    /// Whether deliveries may go on. A shard asks this first and for new revocations next.
    pub(crate) fn is_fresh(&self, now_ms: u64) -> bool {
        now_ms < self.fresh_until_ms.load(Ordering::Acquire)
    }

    /// False until all there was has been taken once: no connection is accepted before.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// What was taken after the first `applied`, which is moved on. Free when nothing was.
    pub(crate) fn new_since(&self, applied: &mut u64) -> Vec<Revocation> {
        if self.taken.load(Ordering::Acquire) == *applied {
            return Vec::new();
        }
        let table = self.table();
        let taken = self.taken.load(Ordering::Acquire);
        let new = usize::try_from(taken - *applied).unwrap_or(usize::MAX).min(table.revocations.len());
        *applied = taken;
        let from = table.revocations.len() - new;
        table.revocations.range(from..).map(|(_, revocation)| revocation.clone()).collect()
    }

    /// Whether this identity's token has been revoked.
    pub(crate) fn is_revoked(&self, identity: &Identity) -> bool {
        let Some(user) = identity.user.as_ref().filter(|_| identity.token.is_some()) else { return false };
        let table = self.table();
        let mark = identity.token.unwrap_or_default();
        table.by_user.get(user).is_some_and(|revoked| {
            u64::from(mark.issued_s) < revoked.before_s || (mark.id != 0 && revoked.tokens.contains(&mark.id))
        })
    }
}

#[cfg(test)]
mod tests;
