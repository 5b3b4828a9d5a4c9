//! The other routers: attached to as a node that wants nothing, so that their `Owned` and `Ended` tell who owns what.
//!
//! Owns the owner table and nothing else. Who serves a partition here is not in it: that is asked of the partition's
//! own task. A verdict is a pure function of the log, so an owner table that is out of date costs a repeat, never a
//! wrong answer; an ephemeral event goes once to whom the table names, or to nobody (TENURES, rule 15).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_link::{RouterLink, Routers};
use tidegate_tenure::ToNode;
use tidegate_vocab::{Incarnation, PartitionId, Term};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

/// Frames taken from a stream at once.
const FRAMES_AT_ONCE: usize = 256;
/// Pause before a router is dialled again.
const REDIAL_PAUSE: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Default)]
pub(crate) struct Peers {
    owners: Mutex<Owners>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Owners {
    is_cluster: bool,
    links: BTreeMap<String, Arc<dyn RouterLink>>,
    /// Per partition, whom each peer's latest `Owned` names.
    claims: BTreeMap<PartitionId, BTreeMap<String, Term>>,
}

impl Peers {
    /// The peer that owns the partition as far as is known; none when it is this router or nobody.
    pub(crate) fn owner(&self, partition: PartitionId) -> Option<Arc<dyn RouterLink>> {
        let owners = self.owners();
        let claims = owners.claims.get(&partition)?;
        let (address, _) = claims.iter().max_by_key(|(_, term)| **term)?;
        owners.links.get(address).cloned()
    }

    /// Whether anybody owns a partition that is not ours.
    pub(crate) fn has_others(&self, is_ours: impl Fn(&PartitionId) -> bool) -> bool {
        let owners = self.owners();
        owners.claims.iter().any(|(partition, claims)| !claims.is_empty() && !is_ours(partition))
    }

    /// Whether there may be other routers at all.
    pub(crate) fn is_cluster(&self) -> bool {
        self.owners().is_cluster
    }

    /// Completes when the table has changed after this call.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        Arc::clone(&self.changed).notified_owned()
    }

    /// Stays attached to all routers that discovery names, this one among them or not: its own `Owned` is ignored.
    pub(crate) async fn run(self: Arc<Self>, mut routers: Routers, incarnation: Incarnation) {
        self.owners().is_cluster = true;
        // Ended with this future.
        let mut tasks = JoinSet::new();
        let mut attached: BTreeMap<String, AbortHandle> = BTreeMap::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let named = routers.borrow_and_update().clone();
            attached.retain(|address, task| {
                let stays = named.contains_key(address);
                if !stays {
                    task.abort();
                    self.forget(address);
                }
                stays
            });
            for (address, link) in &named {
                self.owners().links.insert(address.clone(), Arc::clone(link));
                attached.entry(address.clone()).or_insert_with(|| {
                    tasks.spawn(Arc::clone(&self).stay_attached(
                        address.clone(),
                        Arc::clone(link),
                        incarnation,
                    ))
                });
            }
            if routers.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn stay_attached(
        self: Arc<Self>,
        address: String,
        link: Arc<dyn RouterLink>,
        incarnation: Incarnation,
    ) {
        loop {
            if let Ok(mut stream) = link.attach(incarnation).await {
                while let Some(frames) = stream.from_router.next(FRAMES_AT_ONCE).await {
                    frames.into_iter().for_each(|frame| self.heard(&address, &frame));
                }
                self.forget_claims(&address);
            }
            tokio::time::sleep(REDIAL_PAUSE).await;
        }
    }

    fn heard(&self, address: &str, frame: &ToNode) {
        match frame {
            ToNode::Owned { partition, term, .. } => {
                self.owners().claims.entry(*partition).or_default().insert(address.to_owned(), *term);
            }
            ToNode::Ended { partition, .. } => {
                if let Some(claims) = self.owners().claims.get_mut(partition) {
                    claims.remove(address);
                }
            }
            _ => return,
        }
        self.changed.notify_waiters();
    }

    fn forget_claims(&self, address: &str) {
        self.owners().claims.values_mut().for_each(|claims| {
            claims.remove(address);
        });
        self.changed.notify_waiters();
    }

    fn forget(&self, address: &str) {
        self.forget_claims(address);
        self.owners().links.remove(address);
    }

    fn owners(&self) -> MutexGuard<'_, Owners> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
