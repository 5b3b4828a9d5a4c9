//! Reading the log again, with the same verdicts: for a lead-in, for tenures behind the ring, for late questions.

use tidegate_eventlog::ReadError;
use tidegate_link::Settled;
use tidegate_tenure::{Row, Verdict, Window};
use tidegate_vocab::{Offset, PartitionId, limits};

use crate::context::Context;
use crate::record::{self, Reading};

/// Rows and bytes of one read of a lead-in, of which only keys are kept: a new owner has nothing else to do yet. No log
/// gives more rows at once.
const LEAD_IN_ROWS: usize = 4 * limits::READ_ROWS_LIMIT;
const LEAD_IN_BYTES: usize = 4 * limits::READ_BYTES_LIMIT;

/// A place in the log with the window of keys before it.
pub(super) struct Replay {
    id: PartitionId,
    pub(super) window: Window,
    pub(super) next: Offset,
}

/// Why a replay did not get on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("a record has version {0}, which this router cannot read")]
    UnknownVersion(u32),
    #[error("the log ends before the offset asked for")]
    Ended,
}

/// Some rows to deliver, in order, and the offset up to which there are no others.
pub(super) struct Stretch {
    pub(super) rows: Vec<Row>,
    pub(super) upto: Offset,
}

impl Replay {
    /// Goes to `at`: reads one window before it, without using what it finds (rule 14).
    pub(super) async fn open(context: &Context, id: PartitionId, at: Offset) -> Result<Self, ReplayError> {
        let start = context.log.start(id).await?;
        Self::open_within(context, id, at, start).await
    }

    /// The same, where the log's start is known.
    pub(super) async fn open_within(
        context: &Context,
        id: PartitionId,
        at: Offset,
        start: Offset,
    ) -> Result<Self, ReplayError> {
        let from = lead_in_from(context, id, at, start).await?;
        let mut replay = Self { id, window: Window::default(), next: from };
        while replay.next < at {
            for (offset, reading) in replay.read_up_to(context, at, LEAD_IN_ROWS, LEAD_IN_BYTES).await? {
                if let Reading::UnknownVersion(version) = reading {
                    return Err(ReplayError::UnknownVersion(version));
                }
                debug_assert!(offset < at);
            }
        }
        Ok(replay)
    }

    /// What is to be delivered next, not past `upto`: events that are the first of their key, and dead letters.
    pub(super) async fn stretch(&mut self, context: &Context, upto: Offset) -> Result<Stretch, ReplayError> {
        let readings = self.read(context, upto).await?;
        let mut rows = Vec::with_capacity(readings.len());
        for (offset, reading) in readings {
            match reading {
                Reading::Event(event, Verdict::Fresh) => rows.push(Row::Event(event)),
                Reading::DeadLetter(channel, _) => rows.push(Row::DeadLetter { offset, channel }),
                Reading::UnknownVersion(version) => return Err(ReplayError::UnknownVersion(version)),
                _ => {}
            }
        }
        Ok(Stretch { rows, upto: self.next })
    }

    /// The verdict of the record at `offset`.
    pub(super) async fn verdict(
        context: &Context,
        id: PartitionId,
        offset: Offset,
    ) -> Result<Settled, ReplayError> {
        let mut replay = Self::open(context, id, offset).await?;
        let readings = replay.read(context, offset.next()).await?;
        let found = readings.iter().find(|(at, _)| *at == offset).map(|(_, reading)| settled(reading));
        found.ok_or(ReplayError::Ended)
    }

    /// Reads one step, not past `upto`.
    pub(super) async fn read(
        &mut self,
        context: &Context,
        upto: Offset,
    ) -> Result<Vec<(Offset, Reading)>, ReplayError> {
        self.read_up_to(context, upto, limits::READ_ROWS_LIMIT, limits::READ_BYTES_LIMIT).await
    }

    async fn read_up_to(
        &mut self,
        context: &Context,
        upto: Offset,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Vec<(Offset, Reading)>, ReplayError> {
        let most = usize::try_from(upto.0.saturating_sub(self.next.0)).unwrap_or(usize::MAX);
        let most = most.clamp(1, max_rows);
        let records = context.log.read(self.id, self.next, most, max_bytes).await?;
        let counts = context.log.counts();
        let mut readings = Vec::with_capacity(records.len());
        for record in &records {
            // Offsets may be sparse: a read of as many rows may reach past `upto`.
            if record.offset >= upto {
                self.next = upto;
                return Ok(readings);
            }
            readings.push((record.offset, record::read(&mut self.window, &counts, self.id, record)));
            self.next = record.offset.next();
        }
        if records.is_empty() {
            nothing_before(context, self.id, upto).await?;
            self.next = upto;
        }
        Ok(readings)
    }
}

/// After a read that found nothing: the rest up to `upto` is there and holds no records, as the marks of foreign
/// transactions do not, or the log ends before it.
pub(super) async fn nothing_before(
    context: &Context,
    id: PartitionId,
    upto: Offset,
) -> Result<(), ReplayError> {
    if context.log.high_watermark(id).await? >= upto { Ok(()) } else { Err(ReplayError::Ended) }
}

/// Where the window of a record at `at` begins, in offsets and in record time.
async fn lead_in_from(
    context: &Context,
    id: PartitionId,
    at: Offset,
    start: Offset,
) -> Result<Offset, ReplayError> {
    let log = &context.log;
    if at < start {
        return Err(ReadError::BelowStart { start }.into());
    }
    if at == start {
        return Ok(at);
    }
    // Whatever is judged from `at` on is at least as young as the record before it.
    let before = log.read(id, Offset(at.0 - 1), 1, 1).await?;
    // Where nothing can be read the time is not known: more of the window than need be does no harm.
    let by_time = match before.first() {
        Some(before) => {
            log.offset_at(id, before.time_ms.saturating_sub(limits::IDEMPOTENCY_WINDOW_MS)).await?
        }
        None => start,
    };
    let by_offset = Offset(at.0.saturating_sub(limits::IDEMPOTENCY_WINDOW_OFFSETS));
    Ok(by_time.max(by_offset).max(start).min(at))
}

/// What a reading means to a publisher.
pub(super) fn settled(reading: &Reading) -> Settled {
    match reading {
        Reading::Event(_, Verdict::DuplicateOf(first)) => Settled::DuplicateOf(*first),
        Reading::Event(_, Verdict::Conflict) => Settled::Conflict,
        Reading::Event(_, Verdict::Fresh) | Reading::Takeover(_) => Settled::Fresh,
        Reading::DeadLetter(..) | Reading::UnknownVersion(_) => Settled::Unreadable,
    }
}
