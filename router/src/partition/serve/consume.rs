//! From the log into the history and to the owner: read and judge, write, and only then consume.

use std::sync::Arc;

use tidegate_eventlog::{LogRecord, ReadError};
use tidegate_tenure::{Record, Verdict};
use tidegate_vocab::{Channel, Offset};
use tracing::Span;

use super::super::replay::settled;
use super::super::{End, jobs};
use super::jobs::Done;
use super::{RETRY_PAUSE, Serving};
use crate::record::{self, Reading};

/// Records that were read and judged, on their way into the history.
pub(super) struct Batch {
    readings: Vec<(Offset, Reading)>,
    rows: Arc<Vec<(Channel, LogRecord)>>,
    new_h: Offset,
    /// The version of the record behind them, if nobody here can read it.
    unknown_version: Option<u32>,
    /// Of its traced events: from being read to being with the owner.
    span: Span,
}

impl Serving<'_> {
    /// Reads and judges what came, and hands it to the store.
    pub(super) fn records_came(&mut self, records: Result<Vec<LogRecord>, ReadError>) -> Result<(), End> {
        if self.task.context.log.epoch(self.task.id.topic) != self.epoch {
            // Of another log: nothing of it may be given out under this one's positions.
            return Err(End::Restart("the log epoch has changed".into()));
        }
        let records = match records {
            Ok(records) => records,
            Err(ReadError::Unavailable { reason }) => {
                tracing::warn!(partition = %self.task.id, reason, "log cannot be read; trying again");
                self.task.context.metrics.log_errors.inc();
                self.records = None;
                self.jobs.push(jobs::after(RETRY_PAUSE, Done::ConsumeAgain));
                return Ok(());
            }
            // Below the start: what is missing is told as lost after the new beginning. Beyond the end: another log.
            Err(error) => return Err(End::Restart(error.to_string())),
        };
        let mut batch = Batch {
            readings: Vec::with_capacity(records.len()),
            rows: Arc::default(),
            new_h: self.owner.h(),
            unknown_version: None,
            span: Span::none(),
        };
        let mut rows = Vec::with_capacity(records.len());
        for record in records {
            let offset = record.offset;
            self.consumed_ms = record.time_ms;
            debug_assert!(offset >= batch.new_h, "the log is consumed in order");
            let reading = record::read(&mut self.window, &self.counts, self.task.id, &record);
            match &reading {
                Reading::UnknownVersion(version) => {
                    batch.unknown_version = Some(*version);
                    break;
                }
                Reading::Event(event, Verdict::Fresh) => rows.push((event.channel.clone(), record)),
                Reading::DeadLetter(channel, reason) => {
                    tracing::error!(
                        partition = %self.task.id, %offset, reason = reason.as_str(), channel = ?channel,
                        "record is a dead letter"
                    );
                    self.task.context.metrics.dead_letter(*reason);
                    self.task.context.dead_letters.keep(self.epoch, self.task.id, &record, *reason);
                    // It takes its place in the history, where a later reader is told of it.
                    rows.extend(channel.clone().map(|channel| (channel, record)));
                }
                Reading::Event(..) | Reading::Takeover(_) => {}
            }
            batch.new_h = offset.next();
            batch.readings.push((offset, reading));
        }
        if batch.readings.is_empty() {
            return batch.unknown_version.map_or(Ok(()), |version| Err(End::UnknownVersion(version)));
        }
        batch.rows = Arc::new(rows);
        let traces = batch.readings.iter().filter_map(|(_, reading)| match reading {
            Reading::Event(event, _) => event.trace,
            _ => None,
        });
        let mut traces = traces.peekable();
        if traces.peek().is_some() {
            batch.span = tidegate_telemetry::consume_span(traces, &self.task.id.to_string());
        }
        self.batch = Some(batch);
        self.apply();
        Ok(())
    }

    pub(super) fn apply(&mut self) {
        let Some(batch) = &self.batch else { return };
        if self.backward.filling {
            return; // It is applied when the chunk is written.
        }
        self.applying = true;
        let store = Arc::clone(&self.task.context.store);
        self.jobs.push(jobs::apply(store, self.task.id, Arc::clone(&batch.rows), batch.new_h));
    }

    /// The history has the batch: now it is consumed, in order.
    pub(super) fn applied(&mut self) -> Result<(), End> {
        self.applying = false;
        let Some(batch) = self.batch.take() else { return Ok(()) };
        self.task.context.metrics.records_consumed.inc_by(batch.readings.len() as u64);
        for (offset, reading) in batch.readings {
            self.task.verdicts.consumed(offset, settled(&reading));
            let record = match reading {
                Reading::Takeover(nonce) => Record::Takeover(nonce),
                Reading::Event(event, Verdict::Fresh) => Record::Event(event),
                Reading::DeadLetter(channel, _) => Record::DeadLetter(channel),
                Reading::Event(..) | Reading::UnknownVersion(_) => Record::Nothing,
            };
            self.owner.consumed(offset, record, self.rows.floor);
        }
        debug_assert_eq!(self.owner.h(), batch.new_h);
        drop(batch.span);
        self.tenure_changed();
        batch.unknown_version.map_or(Ok(()), |version| Err(End::UnknownVersion(version)))
    }
}
