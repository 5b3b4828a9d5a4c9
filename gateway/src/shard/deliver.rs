//! From the node's items to the sockets: one send per socket at the end of a batch.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_vocab::{ErrorKind, LogEpoch, Offset, PartitionId, Problem};
use tidegate_wire::object;

use super::conn::{Conn, Mode, Phase};
use super::fan_out::{event_frame, may_say};
use super::item::{ShardItem, SharedEvent};
use super::outbox::Tag;
use super::table::{ConnIdx, SetIdx, Table};
use super::{Out, Owed, State};
use crate::clock::ticks;

/// Entries for which a shard keeps room between flushes.
const PENDING_KEPT: usize = 16 * 1024;

impl State {
    /// Takes a batch of items and sends each socket what it is owed.
    pub(super) fn deliver(&mut self, items: Vec<ShardItem>) {
        let others = items.iter().filter(|item| !matches!(item, ShardItem::Mark { .. })).count();
        let is_alone = others == 1 && self.pending.is_empty();
        for item in items {
            match item {
                ShardItem::Event(event) => self.on_event(&event, is_alone),
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
    pub(super) fn raise(&mut self, partition: PartitionId, epoch: LogEpoch, next: Offset) -> Option<usize> {
        let part = Table::part_of(self.shared.counts, partition)?;
        let view = &mut self.parts[part];
        view.epoch = Some(epoch);
        view.next = view.next.max(next);
        Some(part)
    }

    /// Notes what the connection is to be sent at the end of the batch.
    pub(super) fn owe(&mut self, idx: ConnIdx, out: Out) {
        let number = self.pending.len() as u32;
        self.pending.push(Owed { idx, number, out });
    }

    /// Queues a whole frame for the end of the batch, behind the first `state` if that is still to come.
    pub(super) fn emit(&mut self, idx: ConnIdx, frame: Bytes, tag: Tag) {
        let Some(conn) = self.conns.get_mut(idx as usize) else { return };
        match &mut conn.opening {
            Some(opening) if !opening.state_sent => opening.held.extend_from_slice(&frame),
            _ => self.owe(idx, Out::Frame(frame, tag)),
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
            self.owe(idx, Out::Event(Arc::clone(event), tag));
        }
    }

    /// Sends everything that the batch queued: per socket one send, the cursor on its last event.
    pub(super) fn flush_pending(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        if pending.windows(2).any(|pair| pair[0].idx > pair[1].idx) {
            // In place; the number keeps each socket's frames in their order.
            pending.sort_unstable_by_key(|owed| (owed.idx, owed.number));
        }
        let tick = self.tick_now();
        let mut cursors: Vec<(SetIdx, Rc<str>)> = Vec::new();
        let mut rest = pending.as_slice();
        let mut written = 0;
        while let Some(Owed { idx, .. }) = rest.first() {
            let len = rest.iter().take_while(|other| other.idx == *idx).count();
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
        group: &[Owed],
        tick: u32,
        cursors: &mut Vec<(SetIdx, Rc<str>)>,
    ) -> u64 {
        let Some(conn) = self.conns.get(idx as usize).filter(|conn| conn.phase == Phase::Open) else {
            return 0;
        };
        let Mode::Stream(framing) = conn.mode else {
            self.poll_may_be_ready(idx);
            return 0;
        };
        let ends_in_event = matches!(group.last(), Some(Owed { out: Out::Event(..), .. }));
        let cursor = if ends_in_event { self.cursor_for_flush(idx, tick, cursors) } else { None };
        let sent = match group {
            _ if self.is_queueing(idx) => self.queue_group(idx, group, framing, cursor.as_deref(), tick),
            [Owed { out: Out::Frame(frame, tag), .. }] => {
                let conn = &mut self.conns[idx as usize];
                send_counted(conn, tick, |conn| conn.send(frame, *tag, tick))
            }
            _ => {
                let mut scratch = std::mem::take(&mut self.scratch);
                scratch.clear();
                for (at, owed) in group.iter().enumerate() {
                    match &owed.out {
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
        cursors: &mut Vec<(SetIdx, Rc<str>)>,
    ) -> Option<Rc<str>> {
        let conn = &self.conns[idx as usize];
        let (set, said_tick) = (conn.set, conn.cursor_tick);
        let cursor = if conn.opening.is_some() {
            self.conn_cursor(idx).into()
        } else if let Some((_, cursor)) = cursors.iter().find(|(other, _)| *other == set) {
            Rc::clone(cursor)
        } else {
            let cursor: Rc<str> = self.set_cursor(set).into();
            if self.table.set(set).members().len() > 1 && cursors.len() < 16 {
                cursors.push((set, Rc::clone(&cursor)));
            }
            cursor
        };
        if !may_say(&cursor, said_tick, tick) {
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
