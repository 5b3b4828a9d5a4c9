//! One at a time for each partition.

use std::sync::Arc;

use tidegate_vocab::{PartitionCounts, PartitionId, Topic};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A lock for each partition that is handed on in the order in which it was asked for.
pub(crate) struct Turns([Vec<Arc<Semaphore>>; Topic::COUNT]);

impl Turns {
    pub(crate) fn new(counts: PartitionCounts) -> Self {
        Self(Topic::ALL.map(|topic| (0..counts.of(topic)).map(|_| Arc::new(Semaphore::new(1))).collect()))
    }

    /// None for a partition that there is not.
    pub(crate) async fn take(&self, partition: PartitionId) -> Option<OwnedSemaphorePermit> {
        let turn = self.0[partition.topic as usize].get(partition.number as usize)?;
        Arc::clone(turn).acquire_owned().await.ok()
    }
}
