//! What a member can say of itself.

use super::{Member, NodeInfo, Online};

/// What a member has now, for who watches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Users in the table, those that wait for a sweep included.
    pub stored_users: usize,
    /// Channels in the table, likewise.
    pub stored_channels: usize,
    /// Nodes with a lease.
    pub nodes: usize,
    /// Leases that ended without a goodbye, ever.
    pub leases_expired: u64,
    /// Transitions that were not read back yet.
    pub transitions_in_flight: usize,
    /// The topic was read to its end under the present ring.
    pub has_caught_up: bool,
}

impl Member {
    /// What the member has now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let stored_users = self.table.stored_users();
        Figures {
            stored_users,
            stored_channels: self.table.stored().saturating_sub(stored_users),
            nodes: self.nodes.count_alive(),
            leases_expired: self.leases_ended - self.goodbyes,
            transitions_in_flight: self.presences.in_flight(),
            has_caught_up: self.speaks_at_ms.is_some(),
        }
    }

    /// The nodes with a lease.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.nodes.list()
    }

    /// How many subjects are online of whose key this member is the primary, by what it said and read.
    #[must_use]
    pub fn online(&self) -> Online {
        self.presences.online
    }
}
