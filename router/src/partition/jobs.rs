//! What a partition waits for besides its mailbox and its log: each job is a future that ends in one [`Done`].

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use tidegate_eventlog::{BoxFuture, LogRecord, ReadError};
use tidegate_history::HistoryStore;
use tidegate_link::{DeliverSender, Settled};
use tidegate_tenure::{Nonce, StreamId};
use tidegate_vocab::{Channel, Offset, PartitionId};
use tokio::sync::oneshot;

use super::backfill::{Backfill, Chunk};
use super::begin;
use super::replay::{Replay, ReplayError, Stretch};
use crate::context::Context;

/// How a job ended.
pub(super) enum Done {
    /// The store took the batch, or refused it.
    Applied(Result<(), String>),
    /// Time to hand the batch to the store again.
    ApplyAgain,
    /// A stream has room again.
    Room(StreamId),
    /// The high watermark, as asked for at this time.
    HighWatermark(Offset, u64),
    /// The first offset that the log has.
    LogStart(Offset),
    /// The first offset that retention may still want; none when the log did not say.
    Horizon(Option<Offset>),
    /// The history's floor was raised to this, or could not be.
    Forgotten(Option<Offset>),
    /// A chunk of the backward load, or why there is none.
    Chunk(Backfill, Result<Chunk, ReplayError>),
    /// The pause before the next chunk is over.
    NextChunk(Backfill),
    /// The store has the chunk: the floor is here now; or none, when it did not take it.
    Filled(Option<Offset>),
    /// A stretch of the log for a tenure behind the ring.
    Stretch(StreamId, Offset, Replay, Stretch),
    /// The log no longer has that stretch.
    StretchGone(StreamId, Offset),
    /// The stretch could not be read; a second has passed.
    StretchAgain(StreamId, Offset),
    /// The stretch cannot be read by this version.
    StretchUnreadable(u32),
    /// A takeover should have been consumed by now.
    TakeoverOverdue(Nonce),
    /// The pause after a foreign takeover is over.
    Retake,
    /// The pause after the log failed is over.
    ConsumeAgain,
    /// Nothing is left to do.
    Nothing,
}

pub(super) type Jobs = FuturesUnordered<BoxFuture<'static, Done>>;

pub(super) fn after(pause: Duration, done: Done) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        tokio::time::sleep(pause).await;
        done
    })
}

/// Writes rows and H in one batch, on the blocking pool: the store may wait for the disk.
pub(super) fn apply(
    store: Arc<HistoryStore>,
    id: PartitionId,
    rows: Arc<Vec<(Channel, LogRecord)>>,
    new_h: Offset,
) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        let applied = tokio::task::spawn_blocking(move || store.apply(id, &rows, new_h)).await;
        Done::Applied(match applied {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        })
    })
}

pub(super) fn forget_below(
    store: Arc<HistoryStore>,
    id: PartitionId,
    start: Offset,
) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        let raised = tokio::task::spawn_blocking(move || store.forget_below(id, start)).await;
        Done::Forgotten(matches!(raised, Ok(Ok(()))).then_some(start))
    })
}

/// Reads the chunk of the backward load that lies right below `floor`.
pub(super) fn chunk(
    context: Arc<Context>,
    id: PartitionId,
    mut backfill: Backfill,
    floor: Offset,
    horizon: Offset,
) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        let chunk = backfill.chunk(&context, id, floor, horizon).await;
        Done::Chunk(backfill, chunk)
    })
}

/// Lowers the floor by one chunk, on the blocking pool.
pub(super) fn fill(store: Arc<HistoryStore>, id: PartitionId, chunk: Chunk) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        let new_floor = chunk.new_floor;
        let filled =
            tokio::task::spawn_blocking(move || store.extend_floor(id, &chunk.rows, new_floor)).await;
        match filled {
            Ok(Ok(())) => Done::Filled(Some(new_floor)),
            Ok(Err(error)) => {
                tracing::error!(partition = %id, %error, "history refused a chunk of the backward load");
                Done::Filled(None)
            }
            Err(_) => Done::Filled(None),
        }
    })
}

pub(super) fn room(stream: StreamId, sender: DeliverSender) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        sender.room_again().await;
        Done::Room(stream)
    })
}

pub(super) fn high_watermark(context: Arc<Context>, id: PartitionId) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        let asked_ms = context.clock.now_ms();
        match context.log.high_watermark(id).await {
            Ok(next) => Done::HighWatermark(next, asked_ms),
            Err(_) => Done::Nothing,
        }
    })
}

/// Asks from where on history is worth loading.
pub(super) fn horizon(context: Arc<Context>, id: PartitionId) -> BoxFuture<'static, Done> {
    Box::pin(async move { Done::Horizon(begin::horizon(&context, id).await.ok()) })
}

pub(super) fn log_start(context: Arc<Context>, id: PartitionId) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        match context.log.start(id).await {
            Ok(start) => Done::LogStart(start),
            Err(_) => Done::Nothing,
        }
    })
}

/// Reads a part of `range` from its start on, with the replay of the stretch before it if there is one.
pub(super) fn stretch(
    context: Arc<Context>,
    id: PartitionId,
    stream: StreamId,
    range: Range<Offset>,
    replay: Option<Replay>,
) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        let from = range.start;
        let read = async {
            let mut replay = match replay.filter(|replay| replay.next == from) {
                Some(replay) => replay,
                None => Replay::open(&context, id, from).await?,
            };
            let stretch = replay.stretch(&context, range.end).await?;
            Ok::<_, ReplayError>((replay, stretch))
        };
        match read.await {
            Ok((replay, stretch)) => Done::Stretch(stream, from, replay, stretch),
            Err(ReplayError::Read(ReadError::BelowStart { start })) => Done::StretchGone(stream, start),
            Err(ReplayError::UnknownVersion(version)) => Done::StretchUnreadable(version),
            Err(error) => {
                tracing::warn!(partition = %id, %from, %error, "log could not be read for a slow node");
                context.metrics.log_errors.inc();
                tokio::time::sleep(Duration::from_secs(1)).await;
                Done::StretchAgain(stream, from)
            }
        }
    })
}

/// Answers a publisher whose record was consumed before this tenure. Without an answer it hears `indeterminate`.
pub(super) fn verdict(
    context: Arc<Context>,
    id: PartitionId,
    offset: Offset,
    answer: oneshot::Sender<Settled>,
) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        match Replay::verdict(&context, id, offset).await {
            Ok(settled) => {
                // invariant: a publisher that gave up needs no answer
                let _ = answer.send(settled);
            }
            Err(error) => tracing::warn!(partition = %id, %offset, %error, "verdict could not be read again"),
        }
        Done::Nothing
    })
}
