//! What a node knows of the control topic, and whether that is fresh enough to deliver on.
//!
//! Written by one task ([`asking`]). Two numbers tell a shard whether something new came and until when it may deliver; it
//! takes the table's lock only when something did, and when a connection with a token opens. Revocations are taken before the time is raised, and a shard looks at the time first,
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

/// Logs whose revocations are kept: the one that counts, those before it, and one that some router still reads.
const LOGS_LIMIT: usize = 4;
/// Revocations that shards can be given one by one; one that is further behind looks at all its connections.
const RECENT_LIMIT: usize = 10_000;

#[derive(Debug, Default)]
struct Table {
    /// The one that was named last comes last. What one of them revokes stays so while another is read: a topic that is
    /// made anew takes nothing back.
    logs: Vec<Log>,
    /// The last is number `taken`.
    recent: VecDeque<Revocation>,
}

/// One log of control records, as far as it has been read.
#[derive(Debug)]
struct Log {
    epoch: LogEpoch,
    next: Offset,
    revocations: VecDeque<(Offset, Revocation)>,
    by_user: HashMap<UserId, Revoked>,
}

/// What is revoked of one user.
#[derive(Debug, Default)]
struct Revoked {
    before_s: u64,
    tokens: Vec<u64>,
    /// Records that say so. At 0 all of it goes: until then it may say a little more than the log still has, of tokens
    /// that have ended by then.
    records: usize,
}

/// What a shard has to look at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// These, in the order in which they were taken; mostly none.
    Revoked(Vec<Revocation>),
    /// More than are remembered one by one.
    Much,
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
        self.records += 1;
        match scope {
            RevocationScope::IssuedBefore(seconds) => self.before_s = self.before_s.max(*seconds),
            RevocationScope::Token(id) if !self.tokens.contains(&id.hash64()) => {
                self.tokens.push(id.hash64())
            }
            RevocationScope::Token(_) => {}
        }
    }

    fn means(&self, mark: TokenMark) -> bool {
        u64::from(mark.issued_s) < self.before_s || (mark.id != 0 && self.tokens.contains(&mark.id))
    }
}

impl Log {
    fn new(epoch: LogEpoch, next: Offset) -> Self {
        Self { epoch, next, revocations: VecDeque::new(), by_user: HashMap::new() }
    }

    fn add(&mut self, offset: Offset, revocation: Revocation) {
        self.by_user.entry(revocation.user.clone()).or_default().add(&revocation.scope);
        self.revocations.push_back((offset, revocation));
    }

    /// Forgets what has expired: the topic keeps records for at least as long as a token lives.
    fn expire(&mut self, start: Offset) {
        while let Some((_, gone)) = self.revocations.pop_front_if(|(offset, _)| *offset < start) {
            if let Some(revoked) = self.by_user.get_mut(&gone.user) {
                revoked.records -= 1;
                if revoked.records == 0 {
                    self.by_user.remove(&gone.user);
                }
            }
        }
    }
}

impl Table {
    /// The log of an answer, moved to the end; made where it is not known.
    fn log(&mut self, answer: &ControlAnswer) -> &mut Log {
        let known = self.logs.iter().position(|log| log.epoch == answer.epoch);
        let log = match known {
            Some(place) => self.logs.remove(place),
            None => Log::new(answer.epoch, answer.start),
        };
        if self.logs.len() == LOGS_LIMIT {
            self.logs.remove(0);
        }
        self.logs.push(log);
        let last = self.logs.len() - 1;
        &mut self.logs[last]
    }
}

impl Control {
    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// From where to ask on in the log that a router named last; from the start where it has named none.
    fn ask(&self, epoch: LogEpoch) -> ControlAsk {
        let table = self.table();
        let next = table.logs.iter().find(|log| log.epoch == epoch).map(|log| log.next);
        next.map_or_else(ControlAsk::default, |next| ControlAsk { epoch, next })
    }

    /// Whether an answer to this question leaves no gap: its log is known, or it is of the log's start.
    fn continues(&self, ask: ControlAsk, epoch: LogEpoch) -> bool {
        ask.epoch != epoch || self.table().logs.iter().any(|log| log.epoch == epoch)
    }

    /// Takes what an answer holds and is not known yet. Returns how many that were. An answer in another log than it was
    /// asked for is of that log's start; one to a question from further on than has been taken cannot be.
    fn take(&self, answer: ControlAnswer) -> u64 {
        // A router that has looked at no log yet names none.
        if answer.epoch == LogEpoch(0) {
            return 0;
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let log = table.log(&answer);
        let known = log.next;
        let mut new = Vec::new();
        for (offset, revocation) in answer.records {
            if offset >= known {
                new.push(revocation.clone());
                log.add(offset, revocation);
            }
        }
        log.next = known.max(answer.next);
        log.expire(answer.start);
        let count = new.len() as u64;
        table.recent.extend(new);
        let surplus = table.recent.len().saturating_sub(RECENT_LIMIT);
        table.recent.drain(..surplus);
        // Under the lock: whoever reads the number finds as many in the table.
        self.taken.fetch_add(count, Ordering::Release);
        count
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
    pub(crate) fn new_since(&self, applied: &mut u64) -> News {
        if self.taken.load(Ordering::Acquire) == *applied {
            return News::Revoked(Vec::new());
        }
        let table = self.table();
        let taken = self.taken.load(Ordering::Acquire);
        let new = usize::try_from(taken - *applied).unwrap_or(usize::MAX);
        *applied = taken;
        match table.recent.len().checked_sub(new) {
            Some(from) => News::Revoked(table.recent.range(from..).cloned().collect()),
            None => News::Much,
        }
    }

    /// Whether this identity's token has been revoked.
    pub(crate) fn is_revoked(&self, identity: &Identity) -> bool {
        let (Some(user), Some(mark)) = (&identity.user, identity.token) else { return false };
        self.is_token_revoked(user, mark)
    }

    /// Whether such a token of this user has been revoked.
    pub(crate) fn is_token_revoked(&self, user: &UserId, mark: TokenMark) -> bool {
        self.table().logs.iter().any(|log| log.by_user.get(user).is_some_and(|revoked| revoked.means(mark)))
    }
}

#[cfg(test)]
mod tests;
