//! The one shard of a gateway: what it makes of what its nodes pushed.

use tidegate_tenure::{LostReason, NodeOut, Outcome, WantId};
use tidegate_vocab::{Channel, LogEpoch};

use crate::checks::{
    Check, epoch_is_told, hold, live_lost_has_a_cause, one_channel_sees_no_repeat, pos_rises,
};
use crate::client::{Follow, Sub};
use crate::mutant::Mutant;
use crate::world::{Item, World};

impl World {
    /// The shard takes the next thing that its nodes pushed.
    pub(crate) fn shard_step(&mut self, g: usize) -> Check {
        let Some(Item { p, epoch, out }) = self.inboxes[g].pop_front() else { return Ok(()) };
        if let NodeOut::EpochChanged(epoch) = out {
            return self.live_in_another_log(g, p, epoch);
        }
        let Some(epoch) = epoch else { return Ok(()) };
        match out {
            NodeOut::Send(..) | NodeOut::EpochChanged(_) => Ok(()),
            NodeOut::Mark(next) => {
                self.raise(g, p, epoch, next.0, next.0);
                self.plant_mark_to_pending(g, p, next.0);
                Ok(())
            }
            NodeOut::Event(event) => {
                let Some(offset) = event.offset else { return Ok(()) };
                let dedupe_below = self.parts[p].planted.dedupe_below(g, offset.next().0);
                self.raise(g, p, epoch, offset.0, offset.next().0);
                let to_pending = self.is(Mutant::LiveEventToPending);
                for (c, index) in self.subs_of(g, &event.channel) {
                    let told = self.clients[c].follows[index].epoch;
                    let Some(sub) = self.sub(c, index) else { continue };
                    if sub.established {
                        epoch_is_told(told, epoch)?;
                    }
                    if sub.established || to_pending {
                        self.give(c, index, epoch, offset.0, dedupe_below)?;
                    }
                }
                Ok(())
            }
            NodeOut::History { want, rows, .. } => {
                self.saw("a History chunk");
                let offsets: Vec<u64> =
                    rows.iter().filter_map(|row| row.offset).map(|offset| offset.0).collect();
                if self.is_slow()
                    && let (Some(&(c, index)), Some(first)) =
                        (self.addressed(g, want).first(), offsets.first())
                {
                    return self.pause(c, index, epoch, *first);
                }
                for offset in offsets {
                    let dedupe_below = self.parts[p].planted.dedupe_below(g, offset + 1);
                    for (c, index) in self.addressed(g, want) {
                        self.give(c, index, epoch, offset, dedupe_below)?;
                    }
                }
                Ok(())
            }
            NodeOut::Established { want, outcome, epoch, upto } => {
                self.parts[p].nodes[g].shard_epoch.get_or_insert(epoch);
                for (c, index) in self.addressed(g, want) {
                    self.establish(c, index, outcome, epoch, upto.0)?;
                }
                Ok(())
            }
            NodeOut::Lost { channel, upto } => self.live_lost(g, p, channel.as_ref(), upto.0),
        }
    }

    /// next[P] rises. Who goes on from now in a new log learns here where that was: at `seen` or below.
    fn raise(&mut self, g: usize, p: usize, epoch: LogEpoch, seen: u64, next: u64) {
        let side = &mut self.parts[p].nodes[g];
        side.shard_epoch = Some(epoch);
        side.shard_next = side.shard_next.max(next);
        for client in &mut self.clients {
            let Some(conn) = client.conn.as_ref().filter(|conn| conn.gateway == g) else { continue };
            for (follow, sub) in client.follows.iter_mut().zip(&conn.subs) {
                if follow.p == p && sub.established && follow.start.is_none() {
                    (follow.start, follow.verified) = (Some(seen), seen);
                }
            }
        }
    }

    pub(crate) fn subs_of(&self, g: usize, channel: &Channel) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (c, client) in self.clients.iter().enumerate() {
            let Some(conn) = client.conn.as_ref().filter(|conn| conn.gateway == g) else { continue };
            let index = client.follows.iter().position(|follow| follow.channel == *channel);
            found.extend(index.filter(|index| *index < conn.subs.len()).map(|index| (c, index)));
        }
        found
    }

    pub(crate) fn sub(&mut self, c: usize, index: usize) -> Option<&mut Sub> {
        self.clients[c].conn.as_mut().and_then(|conn| conn.subs.get_mut(index))
    }

    /// The subscription that a Want belongs to.
    fn addressed(&self, g: usize, want: WantId) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (c, client) in self.clients.iter().enumerate() {
            let Some(conn) = client.conn.as_ref().filter(|conn| conn.gateway == g) else { continue };
            if let Some(index) = conn.subs.iter().position(|sub| sub.want == want && !sub.paused) {
                found.push((c, index));
                if self.is(Mutant::HistoryToEverySubscriber) {
                    return self.subs_of(g, &client.follows[index].channel);
                }
            }
        }
        found
    }

    /// One event for one subscription: dedupe is per (connection, channel).
    fn give(&mut self, c: usize, index: usize, epoch: LogEpoch, offset: u64, dedupe_below: u64) -> Check {
        let client = &mut self.clients[c];
        *self.seen.entry("an event offered").or_default() += 1;
        let on_partition = client.follows.iter().filter(|follow| follow.p == client.follows[index].p).count();
        let Some(sub) = client.conn.as_mut().and_then(|conn| conn.subs.get_mut(index)) else { return Ok(()) };
        let has_it = sub.pos.is_some_and(|(of, pos)| of == epoch && offset < pos);
        if has_it || offset < dedupe_below {
            return Ok(());
        }
        let follow = &mut client.follows[index];
        follow.count_in(epoch);
        pos_rises(sub.last, offset)?;
        one_channel_sees_no_repeat(on_partition, follow, offset)?;
        sub.last = Some(offset);
        sub.pos = Some((epoch, offset + 1));
        follow.start.get_or_insert(offset);
        follow.got.insert(offset);
        self.saw("an event delivered");
        Ok(())
    }

    fn establish(&mut self, c: usize, index: usize, outcome: Outcome, epoch: LogEpoch, upto: u64) -> Check {
        let Some(sub) = self.sub(c, index) else { return Ok(()) };
        let (asked, above) = (sub.pos, sub.asked_above_log);
        let asked_here = asked.filter(|(of, _)| *of == epoch).map(|(_, pos)| pos);
        sub.established = true;
        sub.pos = Some((epoch, asked_here.map_or(upto, |pos| pos.max(upto))));
        self.saw(match outcome {
            Outcome::Recovered => "recovered",
            Outcome::Fresh => "fresh",
            Outcome::Lost(reason) => reason.as_str(),
        });
        let (p, channel) = (self.clients[c].follows[index].p, self.clients[c].follows[index].channel.clone());
        match outcome {
            Outcome::Lost(LostReason::Epoch) => {
                let from_elsewhere = asked.is_some() && asked_here.is_none();
                hold(from_elsewhere, "lost_has_a_cause", || format!("epoch, from {asked:?} in {epoch}"))?;
                self.begins_at(c, index, epoch, upto);
            }
            Outcome::Lost(LostReason::BadCursor) => {
                hold(above, "lost_has_a_cause", || format!("bad cursor from {asked:?}"))?;
                self.begins_at(c, index, epoch, upto);
            }
            Outcome::Lost(LostReason::Expired) => {
                let from = asked_here.unwrap_or(0);
                self.lost_has_a_cause(p, epoch, &channel, from)?;
                self.clients[c].follows[index].lost.push((from, upto));
            }
            Outcome::Recovered | Outcome::Fresh => {
                epoch_is_told(asked.map(|(of, _)| of).or(Some(epoch)), epoch)?
            }
        }
        let follow = &mut self.clients[c].follows[index];
        follow.count_in(epoch);
        follow.start.get_or_insert(upto);
        Ok(())
    }

    /// What it was told puts everything before behind it.
    fn begins_at(&mut self, c: usize, index: usize, epoch: LogEpoch, upto: u64) {
        let follow = &mut self.clients[c].follows[index];
        let anew = Follow::new(follow.p, follow.channel.clone());
        *follow = Follow { epoch: Some(epoch), start: Some(upto), verified: upto, ..anew };
        if let Some(sub) = self.sub(c, index) {
            (sub.pos, sub.last) = (Some((epoch, upto)), None);
        }
    }

    fn live_lost(&mut self, g: usize, p: usize, channel: Option<&Channel>, upto: u64) -> Check {
        let channels = channel.map_or_else(|| self.config.channels_of(p), |channel| vec![channel.clone()]);
        for (c, index) in channels.iter().flat_map(|channel| self.subs_of(g, channel)).collect::<Vec<_>>() {
            let Some(sub) = self.clients[c].conn.as_ref().map(|conn| &conn.subs[index]) else { continue };
            let side = &self.parts[p].nodes[g];
            let (position, Some(epoch)) = (sub.position(side), side.shard_epoch) else { continue };
            if !sub.established || position.is_some_and(|(_, from)| from >= upto) {
                continue;
            }
            let from = position.map_or(0, |(_, from)| from);
            if let Some(log) = self.parts[p].log_of(epoch) {
                live_lost_has_a_cause(log, &self.clients[c].follows[index].channel, from, upto)?;
            }
            if let Some(sub) = self.sub(c, index) {
                sub.pos = Some((epoch, upto));
            }
            self.clients[c].follows[index].lost.push((from, upto));
            self.saw("lost while live");
        }
        Ok(())
    }

    /// Established subscriptions go on from now in another log, and are told that what came between is lost.
    fn live_in_another_log(&mut self, g: usize, p: usize, epoch: LogEpoch) -> Check {
        let keeps_next = self.is(Mutant::NextSurvivesEpoch);
        let side = &mut self.parts[p].nodes[g];
        side.shard_epoch = Some(epoch);
        if !keeps_next {
            side.shard_next = 0;
        }
        for channel in self.config.channels_of(p) {
            for (c, index) in self.subs_of(g, &channel) {
                let Some(sub) = self.sub(c, index).filter(|sub| sub.established) else { continue };
                (sub.pos, sub.last) = (None, None);
                let anew = Follow::new(p, channel.clone());
                self.clients[c].follows[index] = Follow { epoch: Some(epoch), ..anew };
                self.saw("another log while live");
            }
        }
        Ok(())
    }
}
