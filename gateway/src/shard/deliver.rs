//! From the node's items to the sockets: fan-out over follow sets, and one send per socket at the end of a batch.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_vocab::{ErrorKind, LogEpoch, Offset, PartitionId, Problem, limits};
use tidegate_wire::object::{self, Framing};

use super::conn::{Conn, Mode, Phase};
use super::item::{ShardItem, SharedEvent};
use super::outbox::Tag;
use super::table::{ChannelIdx, ConnIdx, SetIdx, Table};
use super::{Out, State};
use crate::clock::{ticks, unix_ms};

/// Entries for which a shard keeps room between flushes.
const PENDING_KEPT: usize = 16 * 1024;

/// One shared frame per framing, made when the first member needs it.
#[derive(Default)]
pub(super) struct Frames([Option<Bytes>; 5]);

impl Frames {
    pub(super) fn get(&mut self, framing: Framing, event: &SharedEvent, cursor: Option<&str>) -> Bytes {
        let slot = match framing {
            Framing::WebSocket => 0,
            Framing::Sse { chunked } => 1 + usize::from(chunked),
            Framing::Ndjson { chunked } => 3 + usize::from(chunked),
        };
        self.0[slot].get_or_insert_with(|| event_frame(framing, event, cursor)).clone()
    }
}

fn event_frame(framing: Framing, event: &SharedEvent, cursor: Option<&str>) -> Bytes {
    let mut out = Vec::with_capacity(event.body().len() + cursor.map_or(0, str::len) + 64);
    object::frame_event(framing, event.event.name.as_str(), event.body(), cursor, &mut out);
    out.into()
}

impl State {
    /// Takes a batch of items and sends each socket what it is owed.
    pub(super) fn deliver(&mut self, items: Vec<ShardItem>) {
        for item in items {
            match item {
                ShardItem::Event(event) => self.on_event(&event),
                ShardItem::Mark { partition, epoch, next } => {
                    self.raise(partition, epoch, next);
                }
                ShardItem::History { want, outcome, partition, epoch, rows } => {
                    self.on_history(want, outcome, partition, epoch, rows);
                    self.flush_pending(); // So that the next chunk sees what this one left in the outbox.
                }
                ShardItem::Established { want, outcome, epoch, upto } => {
                    self.on_established(want, outcome, epoch, upto);
                }
                ShardItem::Lost { partition, channel, upto } => {
                    self.on_lost(partition, channel.as_ref(), upto)
                }
                ShardItem::EpochChanged { partition, epoch } => self.on_epoch_changed(partition, epoch),
            }
        }
        self.flush_pending();
        self.flush_commands();
    }

    /// Raises next[P]; says the partition's index.
    fn raise(&mut self, partition: PartitionId, epoch: LogEpoch, next: Offset) -> Option<usize> {
        let part = Table::part_of(self.shared.counts, partition)?;
        let view = &mut self.parts[part];
        view.epoch = Some(epoch);
        view.next = view.next.max(next);
        Some(part)
    }

    fn on_event(&mut self, event: &Arc<SharedEvent>) {
        if let Some(offset) = event.event.offset {
            debug_assert!(
                Table::part_of(self.shared.counts, event.partition).is_none_or(|part| self.parts[part].next
                    <= offset
                    || self.parts[part].epoch != Some(event.epoch)),
                "a live event comes once and in order"
            );
            self.raise(event.partition, event.epoch, offset.next());
        }
        let Some(channel) = self.table.find(&event.event.channel) else { return };
        let mut count = [0_u64; 4];
        for at in 0..self.table.sets_of(channel).len() {
            let set = self.table.sets_of(channel)[at];
            self.on_event_for_set(event, channel, set, &mut count);
        }
        self.count_deliveries(event, count);
    }

    fn on_event_for_set(
        &mut self,
        event: &Arc<SharedEvent>,
        channel: ChannelIdx,
        set: SetIdx,
        count: &mut [u64; 4],
    ) {
        let is_small = self.table.set(set).is_small;
        let tag = self.tag_of(channel);
        let has_cursor = event.event.offset.is_some();
        let (mut frames, mut cursor) = (Frames::default(), None);
        for at in 0..self.table.set(set).members().len() {
            let idx = self.table.set(set).members()[at];
            let conn = &self.conns[idx as usize];
            count[conn.transport() as usize] += 1;
            match conn.mode {
                Mode::Stream(framing) if conn.opening.is_none() => {
                    let out = if is_small || !has_cursor {
                        if has_cursor && cursor.is_none() {
                            cursor = Some(self.set_cursor(set));
                        }
                        Out::Frame(frames.get(framing, event, cursor.as_deref()), tag)
                    } else {
                        Out::Event(Arc::clone(event), tag)
                    };
                    self.pending.push((idx, out));
                }
                _ => self.event_while_opening(idx, channel, event),
            }
        }
    }

    pub(super) fn count_deliveries(&self, event: &SharedEvent, count: [u64; 4]) {
        let metrics = &self.shared.metrics;
        for (transport, delivered) in crate::request::Transport::ALL.iter().zip(count) {
            if delivered > 0 {
                metrics.deliveries.with_label_values(&[transport.as_str()]).inc_by(delivered);
            }
        }
        if count.iter().any(|delivered| *delivered > 0) && event.event.offset.is_some() {
            let age_ms = unix_ms().saturating_sub(event.event.time_ms);
            metrics.delivery_latency.observe(age_ms as f64 / 1_000.0);
        }
    }

    /// Queues a whole frame for the end of the batch, behind the first `state` if that is still to come.
    pub(super) fn emit(&mut self, idx: ConnIdx, frame: Bytes, tag: Tag) {
        let Some(conn) = self.conns.get_mut(idx as usize) else { return };
        match &mut conn.opening {
            Some(opening) if !opening.state_sent => opening.held.extend_from_slice(&frame),
            _ => self.pending.push((idx, Out::Frame(frame, tag))),
        }
    }

    /// Queues a cursor that no event carries.
    pub(super) fn emit_cursor(&mut self, idx: ConnIdx, cursor: &str) {
        let Some(Mode::Stream(framing)) = self.conns.get(idx as usize).map(|conn| conn.mode) else { return };
        let mut frame = Vec::with_capacity(cursor.len() + 64);
        object::frame_ping(framing, Some(cursor), &mut frame);
        self.emit(idx, frame.into(), Tag::Keep);
    }

    /// Queues an event of a connection that is still opening: with its own cursor where each event has one.
    pub(super) fn emit_event(&mut self, idx: ConnIdx, event: &Arc<SharedEvent>, tag: Tag) {
        let Some(conn) = self.conns.get(idx as usize) else { return };
        let Mode::Stream(framing) = conn.mode else { return };
        let is_held = conn.opening.as_ref().is_some_and(|opening| !opening.state_sent);
        let is_small = self.table.set(conn.set).is_small;
        if is_small || is_held || event.event.offset.is_none() {
            let cursor = (is_small && event.event.offset.is_some()).then(|| self.conn_cursor(idx));
            self.emit(idx, event_frame(framing, event, cursor.as_deref()), tag);
            if let Some(opening) = self.conns.get_mut(idx as usize).and_then(|conn| conn.opening.as_mut()) {
                opening.last_cursor = cursor.or(opening.last_cursor.take());
            }
        } else {
            self.pending.push((idx, Out::Event(Arc::clone(event), tag)));
        }
    }

    /// Sends everything that the batch queued: per socket one send, the cursor on its last event.
    pub(super) fn flush_pending(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        if pending.windows(2).any(|pair| pair[0].0 > pair[1].0) {
            pending.sort_by_key(|(idx, _)| *idx); // Stable: each socket's frames keep their order.
        }
        let tick = self.tick_now();
        let mut cursors: Vec<(SetIdx, String)> = Vec::new();
        let mut rest = pending.as_slice();
        let mut written = 0;
        while let Some((idx, _)) = rest.first() {
            let len = rest.iter().take_while(|(other, _)| other == idx).count();
            let (group, others) = rest.split_at(len);
            written += self.flush_group(*idx, group, tick, &mut cursors);
            rest = others;
        }
        if written > 0 {
            self.shared.metrics.bytes_out.inc_by(written);
        }
        pending.clear();
        if self.pending.is_empty() {
            pending.shrink_to(PENDING_KEPT);
            self.pending = pending; // Keeps the allocation.
        } else {
            self.flush_pending();
        }
    }

    /// Sends one socket what it is owed; says how many bytes it took.
    fn flush_group(
        &mut self,
        idx: ConnIdx,
        group: &[(ConnIdx, Out)],
        tick: u32,
        cursors: &mut Vec<(SetIdx, String)>,
    ) -> u64 {
        let Some(conn) = self.conns.get(idx as usize).filter(|conn| conn.phase == Phase::Open) else {
            return 0;
        };
        let Mode::Stream(framing) = conn.mode else {
            self.poll_may_be_ready(idx);
            return 0;
        };
        let ends_in_event = matches!(group.last(), Some((_, Out::Event(..))));
        let cursor = if ends_in_event { self.cursor_for_flush(idx, tick, cursors) } else { None };
        let sent = match group {
            _ if self.is_queueing(idx) => self.queue_group(idx, group, framing, cursor.as_deref(), tick),
            [(_, Out::Frame(frame, tag))] => {
                let conn = &mut self.conns[idx as usize];
                send_counted(conn, tick, |conn| conn.send(frame, *tag, tick))
            }
            _ => {
                let mut scratch = std::mem::take(&mut self.scratch);
                scratch.clear();
                for (at, (_, out)) in group.iter().enumerate() {
                    match out {
                        Out::Frame(frame, _) => scratch.extend_from_slice(frame),
                        Out::Event(event, _) => {
                            let cursor = cursor.as_deref().filter(|_| at + 1 == group.len());
                            object::frame_event(
                                framing,
                                event.event.name.as_str(),
                                event.body(),
                                cursor,
                                &mut scratch,
                            );
                        }
                        Out::Poll => {}
                    }
                }
                let conn = &mut self.conns[idx as usize];
                let sent = send_counted(conn, tick, |conn| conn.send_slice(&scratch, tick));
                self.scratch = scratch;
                sent
            }
        };
        let (before, after, result) = sent;
        let written = self.note_sent(idx, before, after, result);
        if after == 0 {
            return written;
        }
        if after > self.shared.outbox_bytes_limit() {
            self.close(idx, &Problem::new(ErrorKind::SlowConsumer, "outbox is full"));
        } else {
            self.arm(idx, ticks(self.shared.config.outbox_age_limit.as_millis() as u64));
        }
        written
    }

    /// The cursor for the last event of a flush; a long one at most once a second.
    fn cursor_for_flush(
        &mut self,
        idx: ConnIdx,
        tick: u32,
        cursors: &mut Vec<(SetIdx, String)>,
    ) -> Option<String> {
        let conn = &self.conns[idx as usize];
        let (set, since) = (conn.set, tick.saturating_sub(conn.cursor_tick));
        let cursor = if conn.opening.is_some() {
            self.conn_cursor(idx)
        } else if let Some((_, cursor)) = cursors.iter().find(|(other, _)| *other == set) {
            cursor.clone()
        } else {
            let cursor = self.set_cursor(set);
            if self.table.set(set).members().len() > 1 && cursors.len() < 16 {
                cursors.push((set, cursor.clone()));
            }
            cursor
        };
        if cursor.len() > limits::CURSOR_BYTES_EVERY_FLUSH && since < ticks(1_000) {
            return None;
        }
        self.conns[idx as usize].cursor_tick = tick;
        Some(cursor)
    }
}

/// Sends and says what waited before and after.
fn send_counted(
    conn: &mut Conn,
    tick: u32,
    send: impl FnOnce(&mut Conn) -> std::io::Result<usize>,
) -> (usize, usize, std::io::Result<usize>) {
    let before = conn.queued_bytes();
    let result = send(conn);
    conn.wrote_tick = tick;
    (before, conn.queued_bytes(), result)
}
