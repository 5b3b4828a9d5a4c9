//! What a client that reads too slowly loses: by its channels' policies, and told by a `gap`.

use std::io;

use bytes::Bytes;
use tidegate_wire::object::{self, Framing};

use super::conn::Mode;
use super::outbox::Tag;
use super::table::{ChannelIdx, ConnIdx, Table};
use super::{Out, Owed, State};
use crate::config::SlowPolicy;

/// The reason of a `gap` for a client that did not read.
const REASON: &str = "slow";

impl State {
    /// Whether live events of the channel may be left out.
    pub(super) fn tag_of(&self, channel: ChannelIdx) -> Tag {
        match self.table.entry(channel).slow {
            SlowPolicy::Disconnect => Tag::Keep,
            SlowPolicy::Conflate | SlowPolicy::DropOldest => Tag::Event(channel),
        }
    }

    /// Whether what is sent to this connection goes behind what waits already, each event by itself.
    pub(super) fn is_queueing(&self, idx: ConnIdx) -> bool {
        self.may_leave_out && self.conns.get(idx as usize).is_some_and(|conn| conn.outbox.is_some())
    }

    /// Adds a group to what waits for a slow socket. Says what waited before and after, as a send does.
    pub(super) fn queue_group(
        &mut self,
        idx: ConnIdx,
        group: &[Owed],
        framing: Framing,
        cursor: Option<&str>,
        tick: u32,
    ) -> (usize, usize, io::Result<usize>) {
        let before = self.conns[idx as usize].queued_bytes();
        for (at, owed) in group.iter().enumerate() {
            let (bytes, tag) = match &owed.out {
                Out::Frame(frame, tag) => (frame.clone(), *tag),
                Out::Event(event, tag) => {
                    let cursor = cursor.filter(|_| at + 1 == group.len());
                    let mut frame = Vec::with_capacity(event.body().len() + cursor.map_or(0, str::len) + 64);
                    let name = event.event.name.as_str();
                    object::frame_event(framing, name, event.body(), cursor, &mut frame);
                    (frame.into(), *tag)
                }
                Out::Poll => continue,
            };
            self.queue(idx, bytes, tag, framing, tick);
        }
        self.make_room(idx, tick);
        (before, self.conns[idx as usize].queued_bytes(), Ok(0))
    }

    fn queue(&mut self, idx: ConnIdx, bytes: Bytes, tag: Tag, framing: Framing, tick: u32) {
        let (table, conn) = (&self.table, &mut self.conns[idx as usize]);
        if let (Tag::Event(channel), Some(outbox)) = (tag, &mut conn.outbox)
            && table.entry(channel).slow == SlowPolicy::Conflate
            && outbox.supersede(channel, tick, || gap_frame(table, framing, channel))
        {
            self.shared.metrics.slow_dropped.with_label_values(&[SlowPolicy::Conflate.as_str()]).inc();
        }
        conn.keep(bytes, tag, tick, false);
    }

    /// Leaves out the oldest of what may be, until the rest is within the limit.
    pub(super) fn make_room(&mut self, idx: ConnIdx, tick: u32) {
        let limit = self.shared.outbox_bytes_limit();
        self.leave_out(idx, |outbox, gap| outbox.trim(limit, tick, gap));
    }

    /// Leaves out what may be and has waited since before `tick_limit`.
    pub(super) fn leave_out_older(&mut self, idx: ConnIdx, tick_limit: u32, tick: u32) {
        let before = self.conns.get(idx as usize).map_or(0, |conn| conn.queued_bytes());
        self.leave_out(idx, |outbox, gap| outbox.trim_older(tick_limit, tick, gap));
        let after = self.conns.get(idx as usize).map_or(0, |conn| conn.queued_bytes());
        self.shared.metrics.outbox_bytes.add(after as i64 - before as i64);
    }

    fn leave_out(
        &mut self,
        idx: ConnIdx,
        leave_out: impl FnOnce(&mut super::outbox::Outbox, &dyn Fn(ChannelIdx) -> Bytes) -> u64,
    ) {
        let table = &self.table;
        let Some(conn) = self.conns.get_mut(idx as usize) else { return };
        let Mode::Stream(framing) = conn.mode else { return };
        let Some(outbox) = &mut conn.outbox else { return };
        let count = leave_out(outbox, &|channel| gap_frame(table, framing, channel));
        if count > 0 {
            self.shared
                .metrics
                .slow_dropped
                .with_label_values(&[SlowPolicy::DropOldest.as_str()])
                .inc_by(count);
        }
    }
}

fn gap_frame(table: &Table, framing: Framing, channel: ChannelIdx) -> Bytes {
    let gap = object::gap_object(&table.entry(channel).name, REASON);
    let mut frame = Vec::with_capacity(gap.len() + 64);
    object::frame_object(framing, "gap", &gap, None, &mut frame);
    frame.into()
}
