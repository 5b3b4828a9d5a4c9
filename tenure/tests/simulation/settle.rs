//! Lets everything heal and drain, and says what must be true then.

use tidegate_tenure::StreamId;
use tidegate_vocab::Channel;

use crate::checks::{Check, hold, nothing_is_missing};
use crate::scheduler::Kind;
use crate::world::{ROUTERS, World};

impl World {
    /// Everything heals, and nothing new is published.
    pub(crate) fn settle(&mut self, steps: &mut u64) -> Check {
        let mut unsettled = Ok(());
        for round in 0..200 {
            *steps += 1;
            self.note(|| format!("settle, round {round}"));
            self.trace_frozen = round > 2;
            // At some point long enough for whatever lingers to end.
            self.now_ms += if round == 12 { 61_000 } else { 700 };
            self.heal(round)?;
            self.check()?;
            unsettled = self.settled();
            if unsettled.is_ok() && round > 16 {
                return Ok(());
            }
        }
        unsettled
    }

    fn heal(&mut self, round: usize) -> Check {
        for r in 0..ROUTERS {
            self.routers[r].up = true;
        }
        if self.assigned.is_none() {
            self.assign_any()?;
        }
        for c in 0..self.clients.len() {
            if self.clients[c].conn.is_none() {
                self.join(c, c % self.gateways.len())?;
            }
        }
        while !self.appends.is_empty() {
            self.land(0, false);
        }
        for r in 0..ROUTERS {
            if self.routers[r].believes && self.assigned != Some(r) {
                self.revoke(r)?;
            }
            if round == 0 {
                self.cut_streams_end(r);
            }
            for g in 0..self.gateways.len() {
                self.connect_if_down(r, g)?;
            }
            while self.routers[r].believes && self.routers[r].store.h < self.log.end() {
                self.consume(r)?;
            }
            if self.routers[r].retake_at_ms.is_some_and(|at| at <= self.now_ms) {
                self.retake(r)?;
            }
            self.load_backward(r, 50)?;
            self.ask_watermark(r);
            while !self.routers[r].asks.is_empty() {
                self.answer_watermark(r);
            }
            while !self.routers[r].reads.is_empty() {
                self.answer_read(r)?;
            }
        }
        self.drain()
    }

    fn cut_streams_end(&mut self, r: usize) {
        let cut: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.router == r && stream.cut)
            .map(|(id, _)| *id)
            .collect();
        for id in cut {
            self.router_notices(id);
            self.node_notices(id);
        }
        self.streams.retain(|_, stream| stream.router_end || stream.node_end);
    }

    /// Queues, pumps, Marks and Acks, until nothing moves in this round.
    fn drain(&mut self) -> Check {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for _ in 0..4 {
            for id in &ids {
                while self.streams.get(id).is_some_and(|stream| !stream.up.is_empty()) {
                    self.note_stream(Kind::Up, *id);
                    self.deliver_up(*id)?;
                }
                self.pump(*id, false)?;
                while self.streams.get(id).is_some_and(|stream| !stream.down.is_empty()) {
                    self.note_stream(Kind::Down, *id);
                    self.deliver_down(*id)?;
                }
            }
            for r in 0..ROUTERS {
                self.mark(r, true)?;
            }
            for g in 0..self.gateways.len() {
                self.node_tick(g)?;
                while !self.gateways[g].inbox.is_empty() {
                    self.shard_step(g)?;
                    self.check()?;
                }
            }
        }
        Ok(())
    }

    /// What must be true once everything has healed and drained.
    fn settled(&self) -> Check {
        for (r, router) in self.routers.iter().enumerate() {
            let serves = router.owner.as_ref().is_some_and(|owner| owner.term().is_some());
            let due = self.assigned == Some(r);
            hold(serves == due, "the_assigned_router_serves", || format!("r{r}: {serves}, {due}"))?;
        }
        for (g, gateway) in self.gateways.iter().enumerate() {
            let wanted = |channel: &Channel| {
                let here = self
                    .clients
                    .iter()
                    .filter(|client| client.conn.as_ref().is_some_and(|conn| conn.gateway == g));
                here.flat_map(|client| &client.follows).any(|follow| follow.channel == *channel)
            };
            // Only while an owner still sends by it: a session that ended takes its wants with it.
            let open = gateway.session.filter(|session| {
                let audit = self.streams.get(&session.stream).and_then(|stream| stream.audit.as_ref());
                audit.is_some_and(|audit| (audit.term, audit.n) == (session.term, session.n))
            });
            let stray = gateway.told.iter().filter(|_| open.is_some()).find(|channel| !wanted(channel));
            hold(stray.is_none(), "interest_ends", || format!("g{g} still wants {stray:?}"))?;
        }
        for (c, client) in self.clients.iter().enumerate() {
            let subs = client.conn.iter().flat_map(|conn| &conn.subs);
            for (follow, sub) in client.follows.iter().zip(subs) {
                hold(sub.established, "everyone_is_established", || {
                    format!("client {c} waits for {:?}, from {:?}", follow.channel, sub.pos)
                })?;
                nothing_is_missing(follow, &self.log, self.now_ms)?;
            }
        }
        Ok(())
    }
}
