//! What a client is told of its channels: the `state` when it comes, and a `gap` where events of a live channel are gone.

use bytes::Bytes;
use tidegate_tenure::{LostReason, Outcome};
use tidegate_vocab::{Channel, LogEpoch, Offset, PartitionId};
use tidegate_wire::object::{self, Told};

use super::conn::{Mode, Opening, Progress};
use super::outbox::Tag;
use super::table::{ChannelIdx, ConnIdx, Table};
use super::{Out, State};

/// Bytes held behind the first `state` beyond which it is sent, whatever is still pending.
const HELD_BYTES_LIMIT: usize = 64 * 1024;

impl State {
    /// Sends the first `state` once every channel's outcome is known (or too much waits behind it), and a further one
    /// for each channel that was pending then.
    pub(super) fn tell_if_known(&mut self, idx: ConnIdx) {
        let Some(conn) = self.conns.get(idx as usize).filter(|conn| conn.mode != Mode::Poll) else { return };
        let Some(opening) = &conn.opening else { return };
        let is_known = opening.subs.iter().all(|sub| sub.outcome.is_some());
        let news = opening.subs.iter().any(|sub| sub.outcome.is_some() && !sub.told);
        let is_due = is_known || opening.held.len() > HELD_BYTES_LIMIT;
        if (!opening.state_sent && is_due) || (opening.state_sent && news) {
            self.tell(idx);
        }
    }

    /// Sends a `state` with what is known and not told yet; the first one names the rest as pending.
    pub(super) fn tell(&mut self, idx: ConnIdx) {
        let Some(conn) = self.conns.get(idx as usize) else { return };
        let (Mode::Stream(framing), Some(opening)) = (conn.mode, &conn.opening) else { return };
        let is_first = !opening.state_sent;
        let told = self.told(opening, is_first);
        let cursor = if is_first { self.start_cursor(opening) } else { self.conn_cursor(idx) };
        let state = object::state_object(&cursor, &told);
        let mut frame = Vec::with_capacity(state.len() + 64);
        object::frame_object(framing, "state", &state, Some(&cursor), &mut frame);
        if let Some(opening) = self.conns.get_mut(idx as usize).and_then(|conn| conn.opening.as_mut()) {
            for sub in opening.subs.iter_mut().filter(|sub| sub.outcome.is_some()) {
                sub.told = true;
            }
            opening.state_sent = true;
            frame.append(&mut opening.held);
        }
        self.owe(idx, Out::Frame(frame.into(), Tag::Keep));
    }

    /// What a `state` or a poll's answer says of the channels.
    pub(super) fn told(&self, opening: &Opening, with_pending: bool) -> Told {
        let mut told = Told::default();
        for sub in opening.subs.iter().filter(|sub| !sub.told) {
            let name = self.table.entry(sub.channel).name.clone();
            match sub.outcome {
                Some(Outcome::Recovered) => told.recovered.push(name),
                Some(Outcome::Fresh) => told.fresh.push(name),
                Some(Outcome::Lost(reason)) => told.lost.push((name, reason.as_str())),
                None if with_pending => told.pending.push(name),
                None => {}
            }
        }
        told
    }

    pub(super) fn tell_gap(&mut self, idx: ConnIdx, channel: ChannelIdx, reason: LostReason) {
        let Some(Mode::Stream(framing)) = self.conns.get(idx as usize).map(|conn| conn.mode) else { return };
        let gap = object::gap_object(&self.table.entry(channel).name, reason.as_str());
        let mut frame = Vec::with_capacity(gap.len() + 64);
        object::frame_object(framing, "gap", &gap, None, &mut frame);
        self.emit(idx, Bytes::from(frame), Tag::Keep);
    }

    /// Events of live subscriptions are gone: each is told.
    pub(super) fn on_lost(&mut self, partition: PartitionId, channel: Option<&Channel>, upto: Offset) {
        self.polled.clear();
        let Some(part) = Table::part_of(self.shared.counts, partition) else { return };
        let channels = match channel {
            Some(name) => self.table.find(name).into_iter().collect(),
            None => self.table.channels_on(part),
        };
        for channel in channels {
            for idx in self.followers(channel) {
                let is_live = match self.sub(idx, channel).map(|sub| sub.progress) {
                    None => true,
                    Some(Progress::Live { from }) => from < upto,
                    Some(_) => false,
                };
                if is_live && self.conns[idx as usize].mode == Mode::Poll {
                    if let Some(sub) = self.sub(idx, channel) {
                        sub.outcome = Some(Outcome::Lost(LostReason::Expired));
                    }
                    self.owe(idx, Out::Poll);
                } else if is_live {
                    self.tell_gap(idx, channel, LostReason::Expired);
                }
            }
        }
    }

    /// Another log: live subscriptions go on from now and are told so.
    pub(super) fn on_epoch_changed(&mut self, partition: PartitionId, epoch: LogEpoch) {
        self.polled.clear();
        let Some(part) = Table::part_of(self.shared.counts, partition) else { return };
        self.parts[part] = super::Part { epoch: Some(epoch), next: Offset(0) };
        for channel in self.table.channels_on(part) {
            for idx in self.followers(channel) {
                if let Some(sub) = self.sub(idx, channel) {
                    if let Progress::Live { from } = &mut sub.progress {
                        *from = Offset(0);
                        sub.outcome = Some(Outcome::Lost(LostReason::Epoch)); // What a waiting poll answers with.
                    }
                    sub.start = None;
                }
                if self.conns[idx as usize].mode == Mode::Poll {
                    self.owe(idx, Out::Poll);
                } else {
                    self.tell_gap(idx, channel, LostReason::Epoch);
                }
            }
        }
    }

    fn followers(&self, channel: ChannelIdx) -> Vec<ConnIdx> {
        self.table
            .sets_of(channel)
            .iter()
            .flat_map(|set| self.table.set(*set).members().iter().copied())
            .collect()
    }
}
