//! A gateway's driver around its [`tidegate_tenure::Node`]s, and the clients that come and go.

use rand::Rng;
use tidegate_tenure::{NodeOut, StreamId, ToRouter, WantFrom, WantId};
use tidegate_vocab::{Cursor, LogEpoch, Offset, Term};

use crate::checks::{
    Check, Session, Violation, interest_agrees, resume_goes_on, stale_frames_reach_no_shard,
};
use crate::client::{Conn, Follow, Sub};
use crate::mutant::Mutant;
use crate::world::{Item, World};

impl World {
    pub(crate) fn node_notices(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        (stream.cut, stream.node_end) = (true, false);
        stream.down.clear();
        for part in &mut self.parts {
            part.nodes[stream.gateway].node.stream_down(id);
        }
    }

    /// The next frame of a router reaches its node.
    pub(crate) fn deliver_down(&mut self, id: StreamId) -> Check {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let Some(frame) = stream.down.pop_front() else { return Ok(()) };
        let (g, p) = (stream.gateway, frame.partition().number as usize);
        let part = &mut self.parts[p];
        for (stream, frame) in part.planted.down(g, id, frame, part.nodes[g].session) {
            let part = &mut self.parts[p];
            let side = &mut part.nodes[g];
            let mut out = Vec::new();
            let (session, address) = (side.session, crate::checks::address(stream, &frame));
            if address.is_some() && session == address {
                part.planted.heeded(g, &mut side.node, stream, &frame, self.now_ms, &mut out);
            } else {
                side.node.on_frame(stream, frame.clone(), self.now_ms, &mut out);
            }
            stale_frames_reach_no_shard(session, stream, &frame, &out)?;
            if address.is_some_and(|address| session != Some(address)) {
                self.saw("a stale frame was dropped");
            }
            self.carry(g, p, out)?;
        }
        self.plant_holds_across_logs(g, p)
    }

    pub(crate) fn node_tick(&mut self, g: usize) -> Check {
        for p in 0..self.parts.len() {
            let mut out = Vec::new();
            self.parts[p].nodes[g].node.tick(self.now_ms, &mut out);
            self.carry(g, p, out)?;
        }
        Ok(())
    }

    /// Carries out what the node says: frames to its stream, the rest to the shard.
    pub(crate) fn carry(&mut self, g: usize, p: usize, outs: Vec<NodeOut>) -> Check {
        let epoch = self.parts[p].nodes[g].node.epoch();
        for out in outs {
            if matches!(out, NodeOut::EpochChanged(_)) {
                self.parts[p].nodes[g].highest = Term::NONE; // Terms of two logs are not compared.
            }
            let NodeOut::Send(id, mut frame) = out else {
                let untold = self.is(Mutant::EpochUntold) && matches!(out, NodeOut::EpochChanged(_));
                if !untold {
                    self.inboxes[g].push_back(Item { p, epoch, out });
                }
                continue;
            };
            self.plant_folded(g, &mut frame);
            self.notes_what_is_told(g, p, id, &frame)?;
            if let Some(stream) = self.streams.get_mut(&id)
                && stream.node_end
                && !stream.cut
            {
                let part = &mut self.parts[p];
                let h = part.routers[stream.router].store.h;
                part.planted.push_up(id, h, &mut stream.up, &mut stream.down, frame);
            }
        }
        Ok(())
    }

    fn notes_what_is_told(&mut self, g: usize, p: usize, stream: StreamId, frame: &ToRouter) -> Check {
        let side = &mut self.parts[p].nodes[g];
        match frame {
            ToRouter::Resume { term, n, from, channels, .. } => {
                *self.seen.entry("a Resume").or_default() += 1;
                let session = Session { stream, term: *term, n: *n };
                resume_goes_on(side.session, side.highest, session, *from)?;
                side.session = Some(session);
                side.highest = *term;
                side.told = channels.iter().cloned().collect();
            }
            ToRouter::Want { channel, .. } => {
                side.told.insert(channel.clone());
            }
            ToRouter::Unwant { channel, .. } => {
                *self.seen.entry("an Unwant").or_default() += 1;
                side.told.remove(channel);
            }
            ToRouter::Cancel { .. } => *self.seen.entry("a Cancel").or_default() += 1,
            ToRouter::Ack { held, held_xor, .. } => interest_agrees(&side.told, *held, *held_xor)?,
        }
        Ok(())
    }

    /// A client connects to a gateway with what it has: a cursor, or wishes.
    pub(crate) fn join(&mut self, c: usize, g: usize) -> Check {
        self.clients[c].conn = Some(Conn { gateway: g, subs: Vec::new() });
        for index in 0..self.clients[c].follows.len() {
            let sub = self.begin(c, index, g)?;
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
        self.clients[c].cursor = None;
        let sub = self.begin(c, index, g)?;
        if let Some(conn) = &mut self.clients[c].conn {
            conn.subs[index] = sub;
        }
        Ok(())
    }

    /// One channel of a new connection: from the cursor, if that covers it.
    fn begin(&mut self, c: usize, index: usize, g: usize) -> Result<Sub, Violation> {
        let (p, channel) = (self.clients[c].follows[index].p, self.clients[c].follows[index].channel.clone());
        let part = &self.parts[p];
        let covered = self.clients[c].cursor.as_ref().filter(|cursor| cursor.covers(&channel));
        let from = match covered.and_then(|cursor| cursor.position(part.id)) {
            Some((epoch, offset)) => WantFrom::Next { epoch, offset: offset.unwrap_or_default() },
            None => {
                self.clients[c].follows[index] = Follow::new(p, channel);
                self.draw_wish(p)
            }
        };
        let part = &self.parts[p];
        let follow = &mut self.clients[c].follows[index];
        let pos = match from {
            WantFrom::Next { epoch, offset } => Some((epoch, offset.0)),
            _ => None,
        };
        if let Some((epoch, asked)) = pos
            && part.log_of(epoch).is_some()
        {
            follow.epoch.get_or_insert(epoch);
            follow.start.get_or_insert(asked);
        }
        follow.verified = follow.verified.min(pos.map_or(0, |(_, asked)| asked));
        let asked_above_log =
            pos.is_some_and(|(epoch, asked)| part.log_of(epoch).is_some_and(|log| asked > log.end()));
        let want = WantId(0);
        let mut sub = Sub { want, established: false, paused: false, pos, last: None, asked_above_log };
        self.plant_local_join(g, c, index, from, &mut sub);
        sub.want = self.subscribe(c, index, g, from)?;
        Ok(sub)
    }

    fn subscribe(&mut self, c: usize, index: usize, g: usize, from: WantFrom) -> Result<WantId, Violation> {
        let want = if self.is(Mutant::HistoryWithoutWantId) {
            WantId((c * 8 + index) as u64)
        } else {
            WantId(self.name())
        };
        let (p, channel) = (self.clients[c].follows[index].p, self.clients[c].follows[index].channel.clone());
        let mut out = Vec::new();
        self.parts[p].planted.asks(want, &channel, from);
        if self.parts[p].nodes[g].node.subscribe(want, channel, from, self.now_ms, &mut out) {
            self.saw(if from == WantFrom::Now { "a node's own fresh" } else { "a node's own recovered" });
        }
        self.carry(g, p, out)?;
        Ok(want)
    }

    /// A connection ends; its cursor is made of the positions of its channels.
    pub(crate) fn cut(&mut self, c: usize) -> Check {
        for index in 0..self.clients[c].follows.len() {
            self.leave(c, index)?;
        }
        let client = &mut self.clients[c];
        let Some(conn) = client.conn.take() else { return Ok(()) };
        let mut cursor = Cursor::default();
        for (follow, sub) in client.follows.iter().zip(&conn.subs) {
            let part = &self.parts[follow.p];
            if let Some((epoch, position)) = sub.position(&part.nodes[conn.gateway]) {
                cursor.cover(&follow.channel, part.id, epoch, Offset(position));
            }
        }
        client.cursor = Cursor::parse(&cursor.encode()).ok();
        Ok(())
    }

    fn leave(&mut self, c: usize, index: usize) -> Check {
        let client = &self.clients[c];
        let Some(conn) = client.conn.as_ref().filter(|conn| !conn.subs[index].paused) else { return Ok(()) };
        let (g, want, follow) = (conn.gateway, conn.subs[index].want, &client.follows[index]);
        let p = follow.p;
        let node = &mut self.parts[p].nodes[g].node;
        let mut out = Vec::new();
        // A HistoryEnd may be on its way to the shard: the node knows better than we do.
        if !node.cancel(want, self.now_ms, &mut out) {
            node.release(&follow.channel, self.now_ms);
        }
        self.carry(g, p, out)
    }

    /// A slow client has not read what it was given: its History goes on from `first` later.
    pub(crate) fn pause(&mut self, c: usize, index: usize, epoch: LogEpoch, first: u64) -> Check {
        self.saw("a paused History");
        self.leave(c, index)?;
        let follow = &mut self.clients[c].follows[index];
        follow.count_in(epoch);
        follow.start.get_or_insert(first);
        if let Some(sub) = self.sub(c, index) {
            (sub.paused, sub.pos) = (true, Some((epoch, first)));
        }
        Ok(())
    }

    /// A slow client has caught up: its paused Histories go on.
    pub(crate) fn go_on(&mut self, c: usize) -> Check {
        let Some(g) = self.clients[c].conn.as_ref().map(|conn| conn.gateway) else { return Ok(()) };
        for index in 0..self.clients[c].follows.len() {
            let Some((epoch, pos)) = self.sub(c, index).filter(|sub| sub.paused).and_then(|sub| sub.pos)
            else {
                continue;
            };
            let from = WantFrom::Next { epoch, offset: Offset(pos) };
            let want = self.subscribe(c, index, g, from)?;
            if let Some(sub) = self.sub(c, index) {
                (sub.paused, sub.want) = (false, want);
            }
        }
        Ok(())
    }

    /// One History chunk in so many finds its client slow.
    pub(crate) fn is_slow(&mut self) -> bool {
        self.config.slow_in > 0 && self.rng.random_ratio(1, self.config.slow_in)
    }
}
