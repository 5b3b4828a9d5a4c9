//! One event to all who follow its channel: over follow sets, each with one frame and one cursor.
//!
//! An event that comes alone is written at once, socket by socket, from the one frame: nothing is noted and nothing allocated
//! for a delivery. Of several that come together each socket is to get what it is owed in one send, so they are noted.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_vocab::limits;
use tidegate_wire::object::{self, Framing};

use super::conn::Mode;
use super::item::SharedEvent;
use super::outbox::Tag;
use super::table::{ChannelIdx, ConnIdx, SetIdx, Table};
use super::{Out, State};
use crate::clock::{ticks, unix_ms};

/// Connections whose memory is fetched together.
const FETCHED_AT_ONCE: usize = 16;

/// One shared frame per framing, made when the first member needs it.
#[derive(Default)]
pub(super) struct Frames([Option<Bytes>; 5]);

impl Frames {
    pub(super) fn get(&mut self, framing: Framing, event: &SharedEvent, cursor: Option<&str>) -> &Bytes {
        let slot = match framing {
            Framing::WebSocket => 0,
            Framing::Sse { chunked } => 1 + usize::from(chunked),
            Framing::Ndjson { chunked } => 3 + usize::from(chunked),
        };
        self.0[slot].get_or_insert_with(|| event_frame(framing, event, cursor))
    }
}

pub(super) fn event_frame(framing: Framing, event: &SharedEvent, cursor: Option<&str>) -> Bytes {
    let mut out = Vec::with_capacity(event.body().len() + cursor.map_or(0, str::len) + 64);
    object::frame_event(framing, event.event.name.as_str(), event.body(), cursor, &mut out);
    out.into()
}

/// An event on its way to the members of one set.
struct ForSet<'a> {
    event: &'a Arc<SharedEvent>,
    tag: Tag,
    /// Nothing else is to be sent with it.
    is_alone: bool,
    /// Each frame has the cursor.
    is_small: bool,
    cursor: Option<String>,
    with_cursor: Frames,
    bare: Frames,
    tick: u32,
}

impl State {
    /// `is_alone`: no other event waits to be sent with it.
    pub(super) fn on_event(&mut self, event: &Arc<SharedEvent>, is_alone: bool) {
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
        let mut written = 0;
        for at in 0..self.table.sets_of(channel).len() {
            let set = self.table.sets_of(channel)[at];
            written += self.on_event_for_set(event, channel, set, is_alone, &mut count);
        }
        if written > 0 {
            self.shared.metrics.bytes_out.inc_by(written);
        }
        self.count_deliveries(event, count);
    }

    /// Says how many bytes sockets took. Sends change no set: who cannot be sent to is only noted.
    fn on_event_for_set(
        &mut self,
        event: &Arc<SharedEvent>,
        channel: ChannelIdx,
        set: SetIdx,
        is_alone: bool,
        count: &mut [u64; 4],
    ) -> u64 {
        let is_small = self.table.set(set).is_small;
        let says_cursor = event.event.offset.is_some() && (is_small || is_alone);
        let mut on_way = ForSet {
            event,
            tag: self.tag_of(channel),
            is_alone,
            is_small,
            cursor: says_cursor.then(|| self.set_cursor(set)),
            with_cursor: Frames::default(),
            bare: Frames::default(),
            tick: self.tick_now(),
        };
        let mut written = 0;
        let mut copied = [0; FETCHED_AT_ONCE];
        let len = self.table.set(set).members().len();
        for from in (0..len).step_by(FETCHED_AT_ONCE) {
            let members = &self.table.set(set).members()[from..len.min(from + FETCHED_AT_ONCE)];
            let batch = &mut copied[..members.len()];
            batch.copy_from_slice(members);
            self.fetch(batch);
            for idx in batch {
                let conn = &self.conns[*idx as usize];
                count[conn.transport() as usize] += 1;
                match conn.mode {
                    Mode::Stream(framing) if conn.opening.is_none() => {
                        written += self.on_event_for_member(&mut on_way, *idx, framing);
                    }
                    _ => self.event_while_opening(*idx, channel, event),
                }
            }
        }
        written
    }

    /// Reads one word of each cache line of these connections. The processor waits for many at once, and for each by itself
    /// when a system call stands between them.
    fn fetch(&self, members: &[ConnIdx]) {
        let mut words = 0;
        for idx in members {
            let conn = &self.conns[*idx as usize];
            words ^= conn.sequence ^ u64::from(conn.cursor_tick) ^ u64::from(conn.stream.is_h2());
            words ^= u64::from(conn.outbox.is_some()) ^ u64::from(conn.opening.is_some());
        }
        std::hint::black_box(words);
    }

    fn on_event_for_member(&mut self, on_way: &mut ForSet<'_>, idx: ConnIdx, framing: Framing) -> u64 {
        let ForSet { event, tag, is_alone, is_small, cursor, with_cursor, bare, tick } = on_way;
        if !*is_alone && !*is_small && event.event.offset.is_some() {
            self.owe(idx, Out::Event(Arc::clone(event), *tag));
            return 0;
        }
        let conn = &mut self.conns[idx as usize];
        let cursor = cursor.as_deref().filter(|cursor| *is_small || may_say(cursor, conn.cursor_tick, *tick));
        let frames = if cursor.is_some() { with_cursor } else { bare };
        let frame = frames.get(framing, event, cursor);
        let taken = if *is_alone { conn.send_at_once(frame, *tick) } else { 0 };
        if cursor.is_some() && !*is_small && *is_alone {
            conn.cursor_tick = *tick;
        }
        if taken < frame.len() || (*is_alone && conn.stream.has_unsent()) {
            let tag = if taken > 0 { Tag::Keep } else { *tag }; // What has begun to leave is not left out.
            let rest = frame.slice(taken..);
            self.owe(idx, Out::Frame(rest, tag));
        }
        taken as u64
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
}

/// Whether an event's frame may have this cursor where not every frame has one: a long cursor is said once a second.
pub(super) fn may_say(cursor: &str, said_tick: u32, tick: u32) -> bool {
    cursor.len() <= limits::CURSOR_BYTES_EVERY_FLUSH || tick.saturating_sub(said_tick) >= ticks(1_000)
}
