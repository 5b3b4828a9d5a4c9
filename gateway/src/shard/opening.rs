//! From a request to a live connection: Wants, what they turn out to be, and what comes meanwhile. What the client is told of it is
//! in [`told`](super::told).

use std::sync::Arc;

use tidegate_tenure::{LostReason, Outcome, WantFrom, WantId};
use tidegate_vocab::{Channel, Event, LogEpoch, Offset, PartitionId, limits};

use super::conn::{Mode, Opening, Progress, Sub};
use super::item::{NodeCommand, SharedEvent};
use super::outbox::Tag;
use super::table::{ChannelIdx, ConnIdx};
use super::{NO_SET, Out, State};
use crate::clock::ticks;
use crate::request::{CursorParam, EventsRequest};

/// Bytes that wait for a slow client beyond which its history pauses, to go on from there once they are gone.
const HISTORY_PAUSE_BYTES: usize = 256 * 1024;
/// Wants for which there is room while none is under way.
const WANTS_KEPT: usize = 1_024;

impl State {
    /// Asks for every channel of a new connection, which is in its set already.
    pub(super) fn want_all(&mut self, idx: ConnIdx, generation: u32, request: &EventsRequest) {
        let set = self.conns[idx as usize].set;
        let mut channels: Vec<ChannelIdx> = self.table.set(set).channels().collect();
        // The implicit ones first: they are live when the history of a named one on their partition comes, whose rows
        // then need not come with a cursor from before themselves.
        channels.sort_by_key(|channel| !self.table.entry(*channel).name.is_reserved());
        let mut subs = Vec::with_capacity(channels.len());
        for channel in channels {
            let entry = self.table.entry(channel);
            let (name, partition) = (entry.name.clone(), self.table.partition(channel));
            let (from, start) = want_from(request, &name, partition);
            let want = self.want(idx, generation, channel, from);
            subs.push(Sub {
                channel,
                progress: Progress::Pending { want, next: start },
                outcome: None,
                told: false,
                start,
                bad_cursor: request.cursor == CursorParam::Bad,
            });
        }
        let grace_tick = self.tick_now() + ticks(limits::STATE_GRACE_MS);
        let opening =
            Opening { subs, state_sent: false, grace_tick, held: Vec::new(), last_cursor: None, poll: None };
        self.conns[idx as usize].opening = Some(Box::new(opening));
        self.settle_later(idx, generation);
        self.flush_commands();
    }

    fn want(&mut self, idx: ConnIdx, generation: u32, channel: ChannelIdx, from: WantFrom) -> WantId {
        self.want_sequence += 1;
        let want = WantId(u64::from(self.number) << 48 | self.want_sequence);
        self.wants.insert(want, (idx, generation, channel));
        let entry = self.table.entry(channel);
        let (partition, channel) = (self.table.partition(channel), entry.name.clone());
        self.commands.push_back(NodeCommand::Subscribe { want, partition, channel, from });
        want
    }

    pub(super) fn sub(&mut self, idx: ConnIdx, channel: ChannelIdx) -> Option<&mut Sub> {
        let opening = self.conns.get_mut(idx as usize)?.opening.as_mut()?;
        opening.subs.iter_mut().find(|sub| sub.channel == channel)
    }

    /// A live event of a channel of a connection that is still opening, or of a waiting poll.
    pub(super) fn event_while_opening(
        &mut self,
        idx: ConnIdx,
        channel: ChannelIdx,
        event: &Arc<SharedEvent>,
    ) {
        let Some(sub) = self.sub(idx, channel) else { return };
        let Progress::Live { from } = sub.progress else { return };
        if event.event.offset.is_some_and(|offset| offset < from) {
            return; // Given by its History, or before the cursor that it came with.
        }
        if self.conns[idx as usize].mode == Mode::Poll {
            self.event_for_poll(idx, channel, event);
        } else {
            self.emit_event(idx, event, self.tag_of(channel));
        }
    }

    pub(super) fn on_history(
        &mut self,
        want: WantId,
        outcome: Outcome,
        partition: PartitionId,
        epoch: LogEpoch,
        rows: Vec<Arc<Event>>,
    ) {
        let Some(&(idx, _, channel)) = self.wants.get(&want) else { return };
        let first = rows.first().and_then(|row| row.offset).unwrap_or_default();
        self.note_outcome(idx, channel, outcome, Some((epoch, first)));
        let pause_bytes = HISTORY_PAUSE_BYTES.min(self.shared.outbox_bytes_limit() / 4);
        if self.conns[idx as usize].queued_bytes() > pause_bytes {
            self.stall(idx, channel, want, epoch, first);
            return;
        }
        self.tell_if_known(idx); // A channel's `state` comes before its events.
        for row in rows {
            let Some(offset) = row.offset else { continue };
            let is_poll = self.conns[idx as usize].mode == Mode::Poll;
            let event = Arc::new(SharedEvent::new(row, partition, epoch));
            if is_poll && !self.add_to_poll(idx, &event) {
                self.stall(idx, channel, want, epoch, offset);
                self.owe(idx, Out::Poll);
                return;
            }
            if let Some(sub) = self.sub(idx, channel) {
                sub.progress = Progress::Pending { want, next: Some((epoch, offset.next())) };
            }
            if !is_poll {
                self.emit_event(idx, &event, Tag::Keep); // It was asked for: a slow client's history pauses instead.
            }
        }
        self.tell_if_known(idx);
    }

    /// Gives a Want up for now; it goes on from `next`.
    fn stall(&mut self, idx: ConnIdx, channel: ChannelIdx, want: WantId, epoch: LogEpoch, next: Offset) {
        self.wants.remove(&want);
        let entry = self.table.entry(channel);
        let (partition, name) = (self.table.partition(channel), entry.name.clone());
        self.commands.push_back(NodeCommand::Cancel { want, partition, channel: name });
        if let Some(sub) = self.sub(idx, channel) {
            sub.progress = Progress::Stalled { epoch, next };
        }
    }

    /// The outbox is empty: what was paused goes on.
    pub(super) fn resume_stalled(&mut self, idx: ConnIdx) {
        let Some(conn) =
            self.conns.get(idx as usize).filter(|conn| conn.set != NO_SET && conn.mode != Mode::Poll)
        else {
            return;
        };
        let (generation, Some(opening)) = (conn.generation, conn.opening.as_ref()) else { return };
        let stalled: Vec<(ChannelIdx, LogEpoch, Offset)> = opening
            .subs
            .iter()
            .filter_map(|sub| match sub.progress {
                Progress::Stalled { epoch, next } => Some((sub.channel, epoch, next)),
                _ => None,
            })
            .collect();
        for (channel, epoch, offset) in stalled {
            let want = self.want(idx, generation, channel, WantFrom::Next { epoch, offset });
            if let Some(sub) = self.sub(idx, channel) {
                sub.progress = Progress::Pending { want, next: Some((epoch, offset)) };
            }
        }
        self.flush_commands();
    }

    pub(super) fn on_established(&mut self, want: WantId, outcome: Outcome, epoch: LogEpoch, upto: Offset) {
        let Some((idx, generation, channel)) = self.wants.remove(&want) else { return };
        if self.wants.is_empty() && self.wants.capacity() > WANTS_KEPT {
            self.wants = super::Map::default(); // After a burst.
        }
        let part = self.table.entry(channel).part();
        self.parts[part].epoch.get_or_insert(epoch);
        let (had_begun_well, was_told) = self.sub(idx, channel).map_or((false, false), |sub| {
            (sub.outcome.is_some_and(|outcome| !matches!(outcome, Outcome::Lost(_))), sub.told)
        });
        self.note_outcome(idx, channel, outcome, Some((epoch, upto)));
        if let Some(sub) = self.sub(idx, channel) {
            sub.progress = Progress::Live { from: upto };
        }
        if let (Outcome::Lost(reason), true) = (outcome, had_begun_well) {
            // Evicted while it was being replayed: what was said is taken back, or was not said yet.
            if was_told {
                self.tell_gap(idx, channel, reason);
            } else if let Some(sub) = self.sub(idx, channel) {
                sub.outcome = Some(outcome);
            }
        }
        self.tell_if_known(idx);
        if self.conns[idx as usize].mode == Mode::Poll {
            self.owe(idx, Out::Poll);
        }
        self.settle(idx, generation);
    }

    /// Remembers what a channel turned out to be; the first answer counts.
    fn note_outcome(
        &mut self,
        idx: ConnIdx,
        channel: ChannelIdx,
        outcome: Outcome,
        start: Option<(LogEpoch, Offset)>,
    ) {
        let Some(sub) = self.sub(idx, channel) else { return };
        if sub.outcome.is_some() {
            return;
        }
        let outcome = if sub.bad_cursor { Outcome::Lost(LostReason::BadCursor) } else { outcome };
        sub.outcome = Some(outcome);
        if outcome != Outcome::Recovered || sub.start.is_none() {
            sub.start = start;
        }
        let label = match outcome {
            Outcome::Recovered => "recovered",
            Outcome::Fresh => "fresh",
            Outcome::Lost(reason) => reason.as_str(),
        };
        self.shared.metrics.subscriptions.with_label_values(&[label]).inc();
    }

    /// Ends an opening whose channels are all live, told, and caught up with by the shard. Its last event may have come
    /// with a cursor that repeats it, for the sake of a channel that was pending; the cursor that does not goes out now.
    pub(super) fn settle(&mut self, idx: ConnIdx, generation: u32) -> bool {
        let parts = &self.parts;
        let table = &self.table;
        let Some(conn) = self.conns.get_mut(idx as usize).filter(|conn| conn.generation == generation) else {
            return true;
        };
        let Some(opening) = &conn.opening else { return true };
        let is_settled = conn.mode != Mode::Poll
            && opening.state_sent
            && opening.subs.iter().all(|sub| {
                sub.told
                    && matches!(sub.progress, Progress::Live { from } if from <= parts[table.entry(sub.channel).part()].next)
            });
        if is_settled {
            let last = conn.opening.take().and_then(|opening| opening.last_cursor);
            let set = conn.set;
            if let Some(last) = last {
                let cursor = self.set_cursor(set);
                if cursor != last {
                    self.emit_cursor(idx, &cursor);
                }
            }
        }
        is_settled
    }
}

/// From where a channel is wanted, and the position that it counts with meanwhile.
fn want_from(
    request: &EventsRequest,
    channel: &Channel,
    partition: PartitionId,
) -> (WantFrom, Option<(LogEpoch, Offset)>) {
    if let CursorParam::Good(cursor) = &request.cursor
        && cursor.covers(channel)
        && let Some((epoch, next)) = cursor.position(partition)
    {
        let offset = next.unwrap_or_default();
        return (WantFrom::Next { epoch, offset }, Some((epoch, offset)));
    }
    let is_bad = request.cursor == CursorParam::Bad;
    (if is_bad || channel.is_everyone() { WantFrom::Now } else { request.fresh }, None)
}
