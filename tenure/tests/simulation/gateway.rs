//! A gateway's driver around its [`tidegate_tenure::Node`], its shard, and the clients on it.

use tidegate_tenure::{LostReason, NodeOut, Outcome, StreamId, ToRouter, WantFrom, WantId};
use tidegate_vocab::{Channel, Offset};

use crate::checks::{
    Check, Session, hold, interest_agrees, live_lost_has_a_cause, one_channel_sees_no_repeat, pos_rises,
    resume_goes_on, stale_frames_reach_no_shard,
};
use crate::client::{Conn, Follow, Sub};
use crate::mutant::Mutant;
use crate::world::{EPOCH, OTHER_EPOCH, World};

impl World {
    pub(crate) fn node_notices(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        (stream.cut, stream.node_end) = (true, false);
        stream.down.clear();
        self.gateways[stream.gateway].node.stream_down(id);
    }

    /// The next frame of a router reaches its node.
    pub(crate) fn deliver_down(&mut self, id: StreamId) -> Check {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let Some(frame) = stream.down.pop_front() else { return Ok(()) };
        let g = stream.gateway;
        for (stream, frame) in self.planted.down(g, id, frame, self.gateways[g].session) {
            let gateway = &mut self.gateways[g];
            let mut out = Vec::new();
            gateway.node.on_frame(stream, frame.clone(), self.now_ms, &mut out);
            let (session, address) = (gateway.session, crate::checks::address(stream, &frame));
            stale_frames_reach_no_shard(gateway.session, stream, &frame, &out)?;
            match address {
                Some(address) if session != Some(address) => self.saw("a stale frame was dropped"),
                _ => {}
            }
            self.carry(g, out)?;
        }
        Ok(())
    }

    pub(crate) fn node_tick(&mut self, g: usize) -> Check {
        let mut out = Vec::new();
        self.gateways[g].node.tick(self.now_ms, &mut out);
        self.carry(g, out)
    }

    /// Carries out what the node says: frames to its stream, the rest to the shard.
    fn carry(&mut self, g: usize, outs: Vec<NodeOut>) -> Check {
        for out in outs {
            let NodeOut::Send(id, mut frame) = out else {
                self.gateways[g].inbox.push_back(out);
                continue;
            };
            self.plant_folded(g, &mut frame);
            let gateway = &mut self.gateways[g];
            match &frame {
                ToRouter::Resume { term, n, from, channels, .. } => {
                    *self.seen.entry("a Resume").or_default() += 1;
                    let session = Session { stream: id, term: *term, n: *n };
                    resume_goes_on(gateway.session, gateway.highest, session, *from)?;
                    gateway.session = Some(session);
                    gateway.highest = *term;
                    gateway.told = channels.iter().cloned().collect();
                }
                ToRouter::Want { channel, .. } => {
                    gateway.told.insert(channel.clone());
                }
                ToRouter::Unwant { channel, .. } => {
                    *self.seen.entry("an Unwant").or_default() += 1;
                    gateway.told.remove(channel);
                }
                ToRouter::Cancel { .. } => *self.seen.entry("a Cancel").or_default() += 1,
                ToRouter::Ack { held, held_xor, .. } => interest_agrees(&gateway.told, *held, *held_xor)?,
            }
            if let Some(stream) = self.streams.get_mut(&id)
                && stream.node_end
                && !stream.cut
            {
                let r = stream.router;
                let h = self.routers[r].store.h;
                self.planted.push_up(id, h, &mut stream.up, &mut stream.down, frame);
            }
        }
        Ok(())
    }

    /// A client connects to a gateway with what it has: a cursor, or its wish.
    pub(crate) fn join(&mut self, c: usize, g: usize) -> Check {
        self.clients[c].conn = Some(Conn { gateway: g, subs: Vec::new() });
        for index in 0..self.clients[c].follows.len() {
            let wish = self.draw_wish();
            let follow = &mut self.clients[c].follows[index];
            if follow.start.is_none() {
                follow.wish = wish;
            }
            let sub = self.subscribe(c, index, g)?;
            if let Some(conn) = &mut self.clients[c].conn {
                conn.subs.push(sub);
            }
        }
        Ok(())
    }

    /// A client drops one channel and asks for it anew, with nothing kept.
    pub(crate) fn follow_anew(&mut self, c: usize, index: usize) -> Check {
        let Some(g) = self.clients[c].conn.as_ref().map(|conn| conn.gateway) else { return Ok(()) };
        self.leave(c, index)?;
        let channel = self.clients[c].follows[index].channel.clone();
        self.clients[c].follows[index] = Follow::new(channel, self.draw_wish());
        let sub = self.subscribe(c, index, g)?;
        if let Some(conn) = &mut self.clients[c].conn {
            conn.subs[index] = sub;
        }
        Ok(())
    }

    fn subscribe(&mut self, c: usize, index: usize, g: usize) -> Result<Sub, crate::checks::Violation> {
        let want = if self.is(Mutant::HistoryWithoutWantId) {
            WantId((c * 8 + index) as u64)
        } else {
            WantId(self.name())
        };
        let end = self.log.end();
        let follow = &mut self.clients[c].follows[index];
        let from = match follow.cursor {
            Some(cursor) => WantFrom::Next { epoch: EPOCH, offset: Offset(cursor) },
            None => follow.wish,
        };
        let asked = match from {
            WantFrom::Next { offset, epoch } if epoch == EPOCH => Some(offset.0),
            _ => None,
        };
        if let (Some(asked), None) = (asked, follow.start) {
            follow.start = Some(asked);
        }
        follow.verified = follow.verified.min(asked.unwrap_or(0));
        let mut sub = Sub {
            want,
            established: false,
            pos: asked,
            last: None,
            asked_above_log: asked.is_some_and(|asked| asked > end),
            asked_other_epoch: matches!(from, WantFrom::Next { epoch, .. } if epoch == OTHER_EPOCH),
        };
        let channel = follow.channel.clone();
        self.plant_local_join(g, &channel, from, &mut sub);
        let mut out = Vec::new();
        if self.gateways[g].node.subscribe(want, channel, from, self.now_ms, &mut out) {
            self.saw(if from == WantFrom::Now { "a node's own fresh" } else { "a node's own recovered" });
        }
        self.carry(g, out)?;
        Ok(sub)
    }

    /// A connection ends; its cursor is the least position of its channels.
    pub(crate) fn cut(&mut self, c: usize) -> Check {
        for index in 0..self.clients[c].follows.len() {
            self.leave(c, index)?;
        }
        let client = &mut self.clients[c];
        let Some(conn) = client.conn.take() else { return Ok(()) };
        let shard_next = self.gateways[conn.gateway].shard_next;
        let positions: Vec<Option<u64>> = conn.subs.iter().map(|sub| sub.position(shard_next)).collect();
        let least = positions.iter().flatten().min().copied();
        for (follow, position) in client.follows.iter_mut().zip(positions) {
            follow.cursor = position.and(least).or(follow.cursor);
        }
        Ok(())
    }

    fn leave(&mut self, c: usize, index: usize) -> Check {
        let client = &self.clients[c];
        let Some(conn) = &client.conn else { return Ok(()) };
        let (sub, channel) = (&conn.subs[index], &client.follows[index].channel);
        let node = &mut self.gateways[conn.gateway].node;
        // A HistoryEnd may be on its way to the shard: the node knows better than we do.
        let mut out = Vec::new();
        if !node.cancel(sub.want, self.now_ms, &mut out) {
            node.release(channel, self.now_ms);
        }
        let g = conn.gateway;
        self.carry(g, out)
    }

    /// The shard takes the next thing that its node pushed.
    pub(crate) fn shard_step(&mut self, g: usize) -> Check {
        let Some(out) = self.gateways[g].inbox.pop_front() else { return Ok(()) };
        match out {
            NodeOut::Send(..) => Ok(()),
            NodeOut::Mark(next) => {
                self.gateways[g].shard_next = self.gateways[g].shard_next.max(next.0);
                self.plant_mark_to_pending(g, next.0);
                Ok(())
            }
            NodeOut::Event(event) => {
                let Some(offset) = event.offset else { return Ok(()) };
                let dedupe_below = self.planted.dedupe_below(g, offset.next().0);
                self.gateways[g].shard_next = self.gateways[g].shard_next.max(offset.next().0);
                let to_pending = self.is(Mutant::LiveEventToPending);
                for (c, index) in self.subs_of(g, &event.channel) {
                    if self.sub(c, index).is_some_and(|sub| sub.established || to_pending) {
                        self.give(c, index, offset.0, dedupe_below)?;
                    }
                }
                Ok(())
            }
            NodeOut::History { want, rows, .. } => {
                self.saw("a History chunk");
                for offset in rows.iter().filter_map(|row| row.offset) {
                    let dedupe_below = self.planted.dedupe_below(g, offset.next().0);
                    for (c, index) in self.addressed(g, want) {
                        self.give(c, index, offset.0, dedupe_below)?;
                    }
                }
                Ok(())
            }
            NodeOut::Established { want, outcome, upto, .. } => {
                for (c, index) in self.addressed(g, want) {
                    self.establish(c, index, outcome, upto.0)?;
                }
                Ok(())
            }
            NodeOut::Lost { channel, upto } => self.live_lost(g, channel.as_ref(), upto.0),
            NodeOut::EpochChanged(_) => hold(false, "epoch_stays", || "there is one epoch here".to_owned()),
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
            if let Some(index) = conn.subs.iter().position(|sub| sub.want == want) {
                found.push((c, index));
                if self.is(Mutant::HistoryToEverySubscriber) {
                    return self.subs_of(g, &client.follows[index].channel);
                }
            }
        }
        found
    }

    /// One event for one subscription: dedupe is per (connection, channel).
    fn give(&mut self, c: usize, index: usize, offset: u64, dedupe_below: u64) -> Check {
        let channels = self.clients[c].follows.len();
        self.saw("an event offered");
        let client = &mut self.clients[c];
        let Some(sub) = client.conn.as_mut().and_then(|conn| conn.subs.get_mut(index)) else { return Ok(()) };
        if sub.pos.is_some_and(|pos| offset < pos) || offset < dedupe_below {
            return Ok(());
        }
        let follow = &mut client.follows[index];
        pos_rises(sub.last, offset)?;
        one_channel_sees_no_repeat(channels, follow, offset)?;
        sub.last = Some(offset);
        sub.pos = Some(offset + 1);
        follow.start.get_or_insert(offset);
        follow.got.insert(offset);
        self.saw("an event delivered");
        Ok(())
    }

    fn establish(&mut self, c: usize, index: usize, outcome: Outcome, upto: u64) -> Check {
        let Some(sub) = self.sub(c, index) else { return Ok(()) };
        let (from, above, other_epoch) = (sub.pos, sub.asked_above_log, sub.asked_other_epoch);
        sub.established = true;
        sub.pos = Some(from.map_or(upto, |from| from.max(upto)));
        self.saw(match outcome {
            Outcome::Recovered => "recovered",
            Outcome::Fresh => "fresh",
            Outcome::Lost(reason) => reason.as_str(),
        });
        match outcome {
            Outcome::Lost(LostReason::Epoch) => {
                hold(other_epoch, "lost_has_a_cause", || "epoch, in this epoch".to_owned())?;
            }
            Outcome::Lost(LostReason::BadCursor) => {
                hold(above, "lost_has_a_cause", || format!("bad cursor from {from:?}"))?;
                if let Some(sub) = self.sub(c, index) {
                    sub.pos = Some(upto);
                }
                let follow = &mut self.clients[c].follows[index];
                (follow.start, follow.verified) = (Some(upto), upto);
            }
            Outcome::Lost(LostReason::Expired) => {
                let channel = self.clients[c].follows[index].channel.clone();
                let from = from.unwrap_or(0);
                self.lost_has_a_cause(&channel, from)?;
                self.clients[c].follows[index].lost.push((from, upto));
            }
            Outcome::Recovered | Outcome::Fresh => {}
        }
        self.clients[c].follows[index].start.get_or_insert(upto);
        Ok(())
    }

    fn live_lost(&mut self, g: usize, channel: Option<&Channel>, upto: u64) -> Check {
        let channels = channel.map_or_else(|| self.config.channels.clone(), |channel| vec![channel.clone()]);
        for channel in channels {
            for (c, index) in self.subs_of(g, &channel) {
                let shard_next = self.gateways[g].shard_next;
                let Some(sub) = self.sub(c, index).filter(|sub| sub.established) else { continue };
                let from = sub.position(shard_next).unwrap_or(0);
                if from >= upto {
                    continue;
                }
                sub.pos = Some(upto);
                live_lost_has_a_cause(&self.log, &channel, from, upto)?;
                self.clients[c].follows[index].lost.push((from, upto));
                self.saw("lost while live");
            }
        }
        Ok(())
    }
}
