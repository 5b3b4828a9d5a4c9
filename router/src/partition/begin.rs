//! Where an assigned partition goes on, and the lead-in that makes its verdicts right (TENURES, rules 3 and 14).

use std::sync::Arc;

use tidegate_eventlog::ReadError;
use tidegate_history::HistoryError;
use tidegate_tenure::Window;
use tidegate_vocab::{LogEpoch, Offset, PartitionId, limits};

use super::replay::{Replay, ReplayError};
use crate::context::Context;

/// A store that is behind by no more goes on, however old it is: that many records are soon read.
const CATCH_UP_OFFSETS: u64 = limits::IDEMPOTENCY_WINDOW_OFFSETS;

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

/// Goes on where the store got to, if it belongs to this log, lies within it and is not far behind; otherwise near the
/// log's end, where almost everyone's cursor lies, and the backward load brings the rest (TENURES, rule 3).
pub(super) async fn begin(context: Arc<Context>, id: PartitionId) -> Result<Begun, BeginError> {
    let epoch = context.log.epoch(id.topic);
    let (start, end) = context.log.bounds(id).await?;
    let since = |ago_ms: u64| context.clock.now_ms().saturating_sub(ago_ms);
    let stored = context.store.interval(id);
    let usable = stored.filter(|stored| stored.epoch == epoch && stored.h >= start && stored.h <= end);
    let usable = match usable {
        Some(stored) if end.0 - stored.h.0 > CATCH_UP_OFFSETS => {
            let oldest = since(context.config.tail_ms + limits::IDEMPOTENCY_WINDOW_MS);
            let oldest = context.log.offset_at(id, oldest).await?;
            Some(stored).filter(|stored| stored.h >= oldest)
        }
        other => other,
    };
    let (h, floor) = match usable {
        Some(stored) => (stored.h, stored.floor),
        None => {
            let h = context.log.offset_at(id, since(context.config.tail_ms)).await?.clamp(start, end);
            tracing::info!(partition = %id, ?stored, %start, %h, %end, "history is loaded anew, backwards from its tail");
            let store = Arc::clone(&context.store);
            tokio::task::spawn_blocking(move || store.reset(id, epoch, h))
                .await
                .map_err(|_| BeginError::Pool)??;
            (h, h)
        }
    };
    let lead_in = Replay::open_within(&context, id, h, start).await.map_err(|error| match error {
        ReplayError::UnknownVersion(version) => BeginError::UnknownVersion(version),
        other => BeginError::LeadIn(other),
    })?;
    Ok(Begun { epoch, h, floor, log_start: start, window: lead_in.window })
}

/// The first offset that any channel's retention may still want: what lies below is gone for everybody. Time is the
/// log's, so a partition that has been quiet for long keeps what it had. Not needed to begin, so asked for afterwards.
pub(super) async fn horizon(context: &Context, id: PartitionId) -> Result<Offset, ReadError> {
    let (start, end) = context.log.bounds(id).await?;
    let age_ms = context.config.history_age_ms(id.topic);
    if end <= start || age_ms == u64::MAX {
        return Ok(start);
    }
    let last = context.log.read(id, Offset(end.0 - 1), 1, 1).await?;
    let Some(last) = last.first() else { return Ok(start) };
    Ok(context.log.offset_at(id, last.time_ms.saturating_sub(age_ms)).await?.clamp(start, end))
}
