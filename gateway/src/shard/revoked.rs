//! Revocations on one shard: applied before anything that came later is delivered.

use tidegate_vocab::{Channel, ErrorKind, Problem, Revocation};

use super::State;
use super::conn::Conn;
use super::table::ConnIdx;
use crate::control::News;

impl State {
    /// Whether what came may be delivered now: somebody vouches for what is revoked, and that is applied. The time is
    /// looked at first: whatever was vouched for is in the table before the time is raised.
    pub(super) fn may_deliver(&mut self) -> bool {
        let is_fresh = self.shared.control.is_fresh(self.shared.clock.now_ms());
        self.apply_revocations();
        is_fresh
    }

    /// Closes the connections whose tokens are no longer good.
    pub(super) fn apply_revocations(&mut self) {
        let mut applied = self.revocations_applied;
        let new = self.shared.control.new_since(&mut applied);
        self.revocations_applied = applied;
        let meant: Vec<ConnIdx> = match new {
            News::Revoked(new) if new.is_empty() => return,
            News::Revoked(new) => new.iter().flat_map(|revocation| self.meant_by(revocation)).collect(),
            News::Much => self.all_revoked(),
        };
        for idx in meant {
            self.close(idx, &problem());
        }
        self.flush_pending();
        self.flush_commands();
    }

    fn all_revoked(&self) -> Vec<ConnIdx> {
        let is_revoked = |conn: &Conn| match (&conn.user, conn.token.as_deref()) {
            (Some(user), Some(token)) => self.shared.control.is_token_revoked(user, *token),
            _ => false,
        };
        self.conns.iter().filter(|(_, conn)| is_revoked(conn)).map(|(idx, _)| idx as ConnIdx).collect()
    }

    /// A user's connections are those that follow the user's own channel.
    fn meant_by(&self, revocation: &Revocation) -> Vec<ConnIdx> {
        let Some(channel) = self.table.find(&Channel::of_user(&revocation.user)) else { return Vec::new() };
        let members = self.table.sets_of(channel).iter().flat_map(|set| self.table.set(*set).members());
        let is_meant = |idx: &&ConnIdx| {
            let token = self.conns.get(**idx as usize).and_then(|conn| conn.token.as_deref());
            token.is_some_and(|token| token.is_meant_by(&revocation.scope))
        };
        members.filter(is_meant).copied().collect()
    }
}

/// What a client is told whose token has been revoked.
pub(crate) fn problem() -> Problem {
    Problem::new(ErrorKind::TokenRevoked, "the token has been revoked; get a new one")
}
