//! The member list that everyone is configured with.

use tokio::sync::watch;

use crate::ring::{MemberId, Ring, RingError};
use tidegate_proto::key::Key;

/// A member as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The ordinal of its StatefulSet, or its place in the list.
    pub id: MemberId,
    /// Its share of keys, 1 to 16.
    pub weight: u32,
    /// Host and port of its internal port.
    pub address: String,
}

/// The members of a registry. Lists are ordered by version; rings are known by their digest, so that equal lists of two
/// versions are one ring.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberList {
    /// Rises with every change.
    pub version: u64,
    /// The members, in any order.
    pub members: Vec<Listed>,
}

impl MemberList {
    /// The ring of this list.
    ///
    /// # Errors
    /// Says what is wrong with the list.
    pub fn ring(&self) -> Result<Ring, RingError> {
        let weights: Vec<_> = self.members.iter().map(|member| (member.id, member.weight)).collect();
        Ring::build(&weights)
    }

    /// Where a member is.
    #[must_use]
    pub fn address(&self, id: MemberId) -> Option<&str> {
        self.members.iter().find(|member| member.id == id).map(|member| member.address.as_str())
    }
}

/// What a process needs to speak to the members: the list as it is now, and what to show them.
#[derive(Debug, Clone)]
pub struct Members {
    /// The newest list; its first value makes a ring.
    pub lists: watch::Receiver<MemberList>,
    /// The cluster's key, where one is configured.
    pub key: Option<Key>,
}

/// Hands on every newer list, until nobody gives any more.
pub async fn follow<F>(mut lists: watch::Receiver<MemberList>, set: impl Fn(MemberList) -> F)
where
    F: Future<Output = Result<(), RingError>>,
{
    while lists.changed().await.is_ok() {
        let list = lists.borrow_and_update().clone();
        if let Err(error) = set(list).await {
            tracing::error!(%error, "member list makes no ring; the old one stays");
        }
    }
}
