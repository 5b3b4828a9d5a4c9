//! Where an assigned partition goes on, and the lead-in that makes its verdicts right (TENURES, rules 3 and 14).

use std::sync::Arc;

use tidegate_eventlog::ReadError;
use tidegate_history::HistoryError;
use tidegate_tenure::Window;
use tidegate_vocab::{LogEpoch, Offset, PartitionId};

use super::replay::{Replay, ReplayError};
use crate::context::Context;

/// A partition ready to be consumed.
pub(super) struct Begun {
    pub(super) epoch: LogEpoch,
    /// Next to consume.
    pub(super) h: Offset,
    /// The first offset that the history covers.
    pub(super) floor: Offset,
    /// The first offset that the log has.
    pub(super) log_start: Offset,
    /// What the lead-in left.
    pub(super) window: Window,
}

/// Why a partition could not begin; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum BeginError {
    #[error("log does not answer: {0}")]
    Log(#[from] ReadError),
    #[error("history does not answer: {0}")]
    Store(#[from] HistoryError),
    #[error("lead-in failed: {0}")]
    LeadIn(ReplayError),
    #[error("a record has version {0}, which this router cannot read")]
    UnknownVersion(u32),
    #[error("history task did not run")]
    Pool,
}

/// Goes on where the store got to if it belongs to this log and lies within it; from the log's start otherwise.
pub(super) async fn begin(context: Arc<Context>, id: PartitionId) -> Result<Begun, BeginError> {
    let epoch = context.log.epoch(id.topic);
    let log_start = context.log.start(id).await?;
    let end = context.log.high_watermark(id).await?;
    let stored = context.store.interval(id);
    let usable = stored.filter(|stored| stored.epoch == epoch && stored.h >= log_start && stored.h <= end);
    let (h, floor) = match usable {
        Some(stored) => (stored.h, stored.floor),
        None => {
            tracing::debug!(partition = %id, ?stored, %log_start, "history starts anew at the log's start");
            let store = Arc::clone(&context.store);
            tokio::task::spawn_blocking(move || store.reset(id, epoch, log_start))
                .await
                .map_err(|_| BeginError::Pool)??;
            (log_start, log_start)
        }
    };
    let lead_in = Replay::open(&context, id, h).await.map_err(|error| match error {
        ReplayError::UnknownVersion(version) => BeginError::UnknownVersion(version),
        other => BeginError::LeadIn(other),
    })?;
    Ok(Begun { epoch, h, floor, log_start, window: lead_in.window })
}
