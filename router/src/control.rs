//! The control topic: what every node has to know at once, read by every router from the log's start.
//!
//! Owns what is known of it and how fresh that is. A router vouches only after one full read, and only for what it had
//! read when it asked for the high watermark (TENURES, rule 18); whoever holds an answer adds the answer's own age. A
//! record that only a newer router can read ends the vouching: nobody may go on past it (rule 11).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use prost::Message as _;
use tidegate_eventlog::{LogRecord, NewRecord, ReadError};
use tidegate_link::{ControlAnswer, ControlAsk, ControlStanding};
use tidegate_proto::frames::{revocation_from_wire, revocation_to_wire};
use tidegate_proto::log::v1::{self as proto, record::Body};
use tidegate_vocab::{
    ErrorKind, LogEpoch, Offset, PartitionId, Position, Problem, Revocation, Topic, limits,
};
use tokio::sync::Notify;

use crate::Router;
use crate::context::Context;
use crate::record::{self, DeadReason};

/// The one partition.
const PARTITION: PartitionId = PartitionId { topic: Topic::Control, number: 0 };
/// Between two looks at the end of the topic.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long one look may take before it is begun anew.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub(crate) struct ControlTopic {
    known: RwLock<Known>,
    look_now: Notify,
    /// Behind the last record that this router was acked.
    acked: AtomicU64,
}

#[derive(Default)]
struct Known {
    epoch: LogEpoch,
    start: Offset,
    next: Offset,
    records: VecDeque<(Offset, Revocation)>,
    /// When the high watermark was asked for up to which everything has been read; none before the first full read.
    reached: Option<Instant>,
    /// The version of a record that nobody here can read.
    unknown_version: Option<u32>,
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("a record of version {0} needs a newer router")]
    UnknownVersion(u32),
    #[error("the log ends before what was read of it")]
    Behind,
    #[error("the log did not answer in time")]
    Timeout,
}

impl ControlTopic {
    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a node that has read so far gets, with a word on how fresh it is.
    pub(crate) fn answer(&self, ask: ControlAsk, is_blind: bool) -> ControlAnswer {
        let known = self.known();
        let from = if ask.epoch == known.epoch { ask.next.max(known.start) } else { known.start };
        let first = known.records.partition_point(|(offset, _)| *offset < from);
        let mut records: Vec<_> =
            known.records.iter().skip(first).take(limits::CONTROL_RECORDS_AT_ONCE + 1).cloned().collect();
        let is_all = records.len() <= limits::CONTROL_RECORDS_AT_ONCE;
        records.truncate(limits::CONTROL_RECORDS_AT_ONCE);
        let next = match records.last() {
            Some((last, _)) if !is_all => last.next(),
            _ => known.next,
        };
        let standing = match known.reached {
            None => ControlStanding::Loading,
            Some(_) if known.unknown_version.is_some() => ControlStanding::Loading,
            Some(_) if !is_all => ControlStanding::More,
            // What was acked here and not read yet, nobody may be told to do without.
            Some(_) if is_blind && known.next.0 < self.acked.load(Ordering::Acquire) => {
                ControlStanding::Loading
            }
            Some(_) if is_blind => ControlStanding::Blind,
            Some(reached) => {
                let age_ms = u64::try_from(reached.elapsed().as_millis()).unwrap_or(u64::MAX);
                ControlStanding::Fresh { age_ms }
            }
        };
        ControlAnswer { epoch: known.epoch, start: known.start, records, next, standing }
    }

    /// Whether it has been read as far as it can be.
    pub(crate) fn ready(&self) -> Result<(), String> {
        let known = self.known();
        match (known.unknown_version, known.reached) {
            (Some(version), _) => Err(format!("a control record of version {version} needs a newer router")),
            (None, None) => Err("the control topic has not been read yet".into()),
            (None, Some(_)) => Ok(()),
        }
    }

    /// Looks at the topic until it is dropped.
    pub(crate) async fn follow(&self, context: &Context) {
        let mut is_failing = false;
        loop {
            let asked = Instant::now();
            let looked = tokio::time::timeout(LOOK_TIMEOUT, self.look(context, asked)).await;
            match looked.unwrap_or(Err(LookError::Timeout)) {
                Ok(()) => is_failing = false,
                Err(error) if is_failing => tracing::debug!(%error, "control topic cannot be read"),
                Err(error) => {
                    tracing::warn!(%error, "control topic cannot be read; trying again");
                    is_failing = true;
                }
            }
            self.gauge(context);
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = self.look_now.notified() => {}
            }
        }
    }

    /// Reads up to the high watermark as it is now.
    async fn look(&self, context: &Context, asked: Instant) -> Result<(), LookError> {
        let log = &context.log;
        let epoch = log.epoch(Topic::Control);
        let (start, end) = log.bounds(PARTITION).await?;
        let mut next = self.begin(epoch, start);
        if end < next {
            return Err(LookError::Behind);
        }
        while next < end {
            let rows = log.read(PARTITION, next, limits::READ_ROWS_LIMIT, limits::READ_BYTES_LIMIT).await?;
            let rows: Vec<_> = rows.into_iter().take_while(|row| row.offset < end).collect();
            // What holds no record, as the mark of a foreign transaction, is passed over.
            next = rows.last().map_or(end, |row| row.offset.next());
            self.take(context, epoch, next, &rows)?;
        }
        if log.epoch(Topic::Control) == epoch {
            self.write(|known| known.reached = (known.epoch == epoch).then_some(asked));
        }
        Ok(())
    }

    fn write(&self, change: impl FnOnce(&mut Known)) {
        // Each change is whole before the lock is let go: a panic elsewhere leaves nothing half done.
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Forgets what has expired, or everything if the log is another one. Returns where to read on.
    fn begin(&self, epoch: LogEpoch, start: Offset) -> Offset {
        let mut next = start;
        self.write(|known| {
            if known.epoch != epoch {
                *known = Known { epoch, ..Known::default() };
                self.acked.store(0, Ordering::Release);
            }
            known.start = start;
            known.next = known.next.max(start);
            while known.records.front().is_some_and(|(offset, _)| *offset < start) {
                known.records.pop_front();
            }
            next = known.next;
        });
        next
    }

    fn take(
        &self,
        context: &Context,
        epoch: LogEpoch,
        next: Offset,
        rows: &[LogRecord],
    ) -> Result<(), LookError> {
        let mut came = Vec::with_capacity(rows.len());
        let (mut next, mut unknown_version) = (next, None);
        for row in rows {
            match read(row) {
                Reading::Revocation(revocation) => came.push((row.offset, revocation)),
                Reading::UnknownVersion(version) => {
                    // What stands before it counts, and is not read again.
                    (next, unknown_version) = (row.offset, Some(version));
                    break;
                }
                Reading::DeadLetter => {
                    tracing::error!(offset = %row.offset, "control record is a dead letter");
                    context.metrics.dead_letter(DeadReason::Malformed);
                    context.dead_letters.keep(epoch, PARTITION, row, DeadReason::Malformed);
                }
            }
        }
        self.write(|known| {
            known.unknown_version = unknown_version;
            known.records.extend(came);
            known.next = next;
        });
        unknown_version.map_or(Ok(()), |version| Err(LookError::UnknownVersion(version)))
    }

    fn gauge(&self, context: &Context) {
        let known = self.known();
        context.metrics.control_records.set(i64::try_from(known.records.len()).unwrap_or(i64::MAX));
        context
            .metrics
            .control_age
            .set(known.reached.map_or(f64::NAN, |reached| reached.elapsed().as_secs_f64()));
    }
}

enum Reading {
    Revocation(Revocation),
    DeadLetter,
    UnknownVersion(u32),
}

fn read(row: &LogRecord) -> Reading {
    let Ok(decoded) = proto::Record::decode(row.value.clone()) else { return Reading::DeadLetter };
    match decoded.body {
        _ if decoded.version > record::VERSION => Reading::UnknownVersion(decoded.version),
        Some(Body::Revocation(revocation)) if decoded.version > 0 => {
            revocation_from_wire(revocation).map_or(Reading::DeadLetter, Reading::Revocation)
        }
        _ => Reading::DeadLetter,
    }
}

impl Router {
    /// Takes back some tokens of a user; completes once the log has it.
    ///
    /// # Errors
    /// What is wrong with the log. The call may be repeated: a second record changes nothing.
    pub async fn revoke(&self, revocation: &Revocation) -> Result<Position, Problem> {
        let context = Arc::clone(&self.context);
        let body = Some(Body::Revocation(revocation_to_wire(revocation)));
        let value = proto::Record { version: record::VERSION, body }.encode_to_vec();
        let key = revocation.user.to_string().into_bytes().into();
        let record = NewRecord { key, value: value.into(), headers: Vec::new() };
        let outcome = context.log.append_record(PARTITION, record).await.map_err(|error| {
            let mut problem = crate::publish::upstream_problem(&error);
            if problem.kind == ErrorKind::Indeterminate {
                problem.detail = "the outcome is not known; say it again".into();
            }
            problem
        });
        if let Ok(appended) = &outcome {
            self.control.acked.fetch_max(appended.offset.next().0, Ordering::AcqRel);
        }
        context.metrics.revoked(outcome.as_ref().map(|_| ()).map_err(|problem| problem.kind));
        self.control.look_now.notify_one();
        outcome.map(|appended| Position::new(context.log.epoch(Topic::Control), PARTITION, appended.offset))
    }
}
