//! The model log of one partition, and what one router's store keeps of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tidegate_tenure::{Chunk, Nonce, Rows, RowsError};
use tidegate_vocab::{Channel, Event, EventName, LogEpoch, Offset, Payload};

use crate::config::Config;

/// One record of the log.
#[derive(Debug, Clone)]
pub(crate) enum Rec {
    Event(Arc<Event>),
    /// Could not be read; without a usable key it might have been anybody's.
    DeadLetter(Option<Channel>),
    Takeover {
        router: usize,
        nonce: Nonce,
    },
    /// Nothing to deliver: a repeat, a conflict, a marker.
    Noise,
}

/// All records ever appended, and from where on the log still has them.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) epoch: LogEpoch,
    records: Vec<(u64, Rec)>,
    pub(crate) start: u64,
}

impl Log {
    pub(crate) fn new(epoch: LogEpoch) -> Self {
        Self { epoch, records: Vec::new(), start: 0 }
    }

    pub(crate) fn end(&self) -> u64 {
        self.records.len() as u64
    }

    pub(crate) fn get(&self, offset: u64) -> Option<&Rec> {
        self.records.get(offset as usize).map(|(_, rec)| rec)
    }

    pub(crate) fn append(&mut self, rec: Rec, now_ms: u64) {
        self.records.push((now_ms, rec));
    }

    pub(crate) fn publish(&mut self, channel: &Channel, now_ms: u64, expires_ms: Option<u64>) {
        let event = Event {
            channel: channel.clone(),
            name: EventName::MESSAGE,
            payload: Payload::Json(Bytes::from_static(b"{}")),
            time_ms: now_ms,
            offset: Some(Offset(self.end())),
            expires_ms,
            trace: None,
        };
        self.append(Rec::Event(Arc::new(event)), now_ms);
    }

    pub(crate) fn event(&self, offset: u64) -> Option<&Arc<Event>> {
        match self.get(offset) {
            Some(Rec::Event(event)) => Some(event),
            _ => None,
        }
    }

    /// Offsets of the events of `channel` in `[from, upto)`.
    pub(crate) fn rows<'a>(
        &'a self,
        channel: &'a Channel,
        from: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = u64> + 'a {
        (from..upto.min(self.end()).max(from))
            .filter(move |offset| self.event(*offset).is_some_and(|event| event.channel == *channel))
    }

    /// True when a record of the channel, or one that might have been, stands there and could not be read.
    pub(crate) fn is_dead(&self, channel: &Channel, offset: u64) -> bool {
        let dead = |of: &Option<Channel>| of.as_ref().is_none_or(|of| of == channel);
        matches!(self.get(offset), Some(Rec::DeadLetter(of)) if dead(of))
    }

    /// The time index: the first offset whose record is at least as late as `time_ms`.
    pub(crate) fn at_time(&self, time_ms: u64) -> u64 {
        self.records.partition_point(|(time, _)| *time < time_ms) as u64
    }

    /// True when the event at `offset` may be left out of a replay by now.
    pub(crate) fn is_expired(&self, offset: u64, now_ms: u64) -> bool {
        self.event(offset).is_some_and(|event| event.expires_ms.is_some_and(|at| at <= now_ms))
    }
}

/// A router's durable store: an interval `[floor, h)`, less what was evicted per channel.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) floor: u64,
    pub(crate) h: u64,
    rows: BTreeMap<Channel, VecDeque<Arc<Event>>>,
    evicted: BTreeMap<Channel, u64>,
    rows_limit: usize,
    channels: Vec<Channel>,
}

impl Store {
    pub(crate) fn wiped(at: u64, config: &Config) -> Self {
        Self {
            floor: at,
            h: at,
            rows: BTreeMap::new(),
            evicted: BTreeMap::new(),
            rows_limit: config.store_rows,
            channels: config.channels.clone(),
        }
    }

    pub(crate) fn evicted(&self) -> &BTreeMap<Channel, u64> {
        &self.evicted
    }

    fn evict(&mut self, channel: &Channel, offset: u64) {
        let evicted = self.evicted.entry(channel.clone()).or_default();
        *evicted = (*evicted).max(offset + 1);
    }

    fn evict_dead(&mut self, channel: Option<&Channel>, offset: u64) {
        let all = if channel.is_none() { self.channels.clone() } else { Vec::new() };
        for channel in channel.into_iter().chain(&all) {
            self.evict(channel, offset);
        }
    }

    /// Takes the record at H.
    pub(crate) fn consume(&mut self, rec: &Rec) {
        match rec {
            Rec::Event(event) => {
                let rows = self.rows.entry(event.channel.clone()).or_default();
                rows.push_back(Arc::clone(event));
                if rows.len() > self.rows_limit
                    && let Some(old) = rows.pop_front()
                {
                    self.evict(&old.channel, old.offset.unwrap_or_default().0);
                }
            }
            Rec::DeadLetter(channel) => self.evict_dead(channel.as_ref(), self.h),
            Rec::Takeover { .. } | Rec::Noise => {}
        }
        self.h += 1;
    }

    /// Extends the interval downwards by up to `count` records.
    pub(crate) fn load_backward(&mut self, log: &Log, count: u64) {
        for _ in 0..count {
            if self.floor <= log.start {
                return;
            }
            self.floor -= 1;
            let offset = self.floor;
            match log.get(offset) {
                Some(Rec::Event(event)) => {
                    let evicted = self.evicted.get(&event.channel).copied().unwrap_or(0);
                    let rows = self.rows.entry(event.channel.clone()).or_default();
                    if rows.len() >= self.rows_limit || offset < evicted {
                        self.evict(&event.channel, offset);
                    } else {
                        rows.push_front(Arc::clone(event));
                    }
                }
                Some(Rec::DeadLetter(channel)) => self.evict_dead(channel.as_ref(), offset),
                _ => {}
            }
        }
    }

    /// Drops what lies below the log's start.
    pub(crate) fn trim(&mut self, start: u64) {
        if self.floor < start && start <= self.h {
            self.floor = start;
            for rows in self.rows.values_mut() {
                rows.retain(|row| row.offset >= Some(Offset(start)));
            }
            self.evicted.retain(|_, evicted| *evicted > start);
        }
    }
}

/// A store as the owner may read it in one step.
pub(crate) struct View<'a> {
    pub(crate) store: &'a Store,
    pub(crate) log: &'a Log,
    /// Rows in one read.
    pub(crate) chunk_rows: usize,
    /// The store does not answer.
    pub(crate) failing: bool,
    /// A mutant: it does not know what it evicted.
    pub(crate) forgets: bool,
}

impl View<'_> {
    fn rows(&self, channel: &Channel) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        self.store.rows.get(channel).into_iter().flatten()
    }

    fn ready(&self) -> Result<(), RowsError> {
        if self.failing { Err(RowsError("the model says no".to_owned())) } else { Ok(()) }
    }
}

impl Rows for View<'_> {
    fn floor(&self) -> Offset {
        Offset(self.store.floor)
    }

    fn log_start(&self) -> Offset {
        Offset(self.log.start)
    }

    fn evicted(&self, channel: &Channel) -> Result<Offset, RowsError> {
        self.ready()?;
        if self.forgets {
            return Ok(Offset(0));
        }
        Ok(Offset(self.store.evicted.get(channel).copied().unwrap_or(0)))
    }

    fn read(&self, channel: &Channel, from: Offset, upto: Offset) -> Result<Chunk, RowsError> {
        self.ready()?;
        let inside = |row: &&Arc<Event>| row.offset >= Some(from) && row.offset < Some(upto);
        let mut rows: Vec<_> =
            self.rows(channel).filter(inside).take(self.chunk_rows + 1).map(Arc::clone).collect();
        let complete = rows.len() <= self.chunk_rows;
        rows.truncate(self.chunk_rows);
        Ok((rows, complete))
    }

    fn first_of_last(&self, channel: &Channel, count: u32, upto: Offset) -> Result<Offset, RowsError> {
        self.ready()?;
        if count == 0 {
            return Ok(upto);
        }
        let mut latest = self.rows(channel).rev().filter(|row| row.offset < Some(upto));
        let nth = latest.nth(count as usize - 1).and_then(|row| row.offset);
        Ok(nth.unwrap_or(self.floor()))
    }

    fn first_since(&self, _channel: &Channel, time_ms: u64, upto: Offset) -> Result<Offset, RowsError> {
        self.ready()?;
        Ok(Offset(self.log.at_time(time_ms)).clamp(self.floor().min(upto), upto))
    }
}
