//! Lets everything heal and drain, and says what must be true then.

use tidegate_tenure::StreamId;
use tidegate_vocab::Channel;

use crate::checks::{Check, hold, nothing_is_missing};
use crate::kinds::Kind;
use crate::world::{ROUTERS, World};

impl World {
    /// Everything heals, and nothing new is published.
    pub(crate) fn settle(&mut self, steps: &mut u64) -> Check {
        let mut unsettled = Ok(());
        for round in 0..200 {
            *steps += 1;
            self.note(|| format!("settle, round {round}"));
            self.trace_frozen = round > 2;
            if round == 10 {
                self.config.slow_in = 0;
            }
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
        self.routers_up = vec![true; ROUTERS];
        for c in 0..self.clients.len() {
            if self.clients[c].conn.is_none() {
                self.join(c, c % self.inboxes.len())?;
            }
            self.go_on(c)?;
        }
        for r in 0..ROUTERS {
            if round == 0 {
                self.cut_streams_end(r);
            }
            for g in 0..self.inboxes.len() {
                self.connect_if_down(r, g)?;
            }
        }
        for p in 0..self.parts.len() {
            if self.parts[p].assigned.is_none() {
                self.assign_any(p)?;
            }
            while !self.parts[p].appends.is_empty() {
                self.land(p, 0, false);
            }
            for r in 0..ROUTERS {
                self.heal_router(p, r)?;
            }
        }
        self.drain()
    }

    fn heal_router(&mut self, p: usize, r: usize) -> Check {
        if self.reads_an_old_log(p, r) {
            self.notice_log(p, r)?;
        }
        if self.parts[p].routers[r].believes && self.parts[p].assigned != Some(r) {
            self.revoke(p, r)?;
        }
        while self.parts[p].routers[r].believes
            && self.parts[p].routers[r].store.h < self.parts[p].read_by(r).end()
        {
            self.consume(p, r)?;
        }
        if self.parts[p].routers[r].retake_at_ms.is_some_and(|at| at <= self.now_ms) {
            self.retake(p, r)?;
        }
        self.load_backward(p, r, 50)?;
        self.ask_watermark(p, r);
        while !self.parts[p].routers[r].asks.is_empty() {
            self.answer_watermark(p, r);
        }
        while !self.parts[p].routers[r].reads.is_empty() {
            self.answer_read(p, r)?;
        }
        Ok(())
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
                self.drain_down(*id)?;
                for p in 0..self.parts.len() {
                    self.pump(p, *id, false)?;
                    self.drain_down(*id)?;
                }
            }
            for (p, r) in (0..self.parts.len()).flat_map(|p| (0..ROUTERS).map(move |r| (p, r))) {
                self.mark(p, r, true)?;
            }
            for g in 0..self.inboxes.len() {
                self.node_tick(g)?;
                while !self.inboxes[g].is_empty() {
                    self.shard_step(g)?;
                    self.check()?;
                }
            }
        }
        Ok(())
    }

    fn drain_down(&mut self, id: StreamId) -> Check {
        while self.streams.get(&id).is_some_and(|stream| !stream.down.is_empty()) {
            self.note_stream(Kind::Down, id);
            self.deliver_down(id)?;
        }
        Ok(())
    }

    /// What must be true once everything has healed and drained.
    fn settled(&self) -> Check {
        for (p, part) in self.parts.iter().enumerate() {
            for (r, router) in part.routers.iter().enumerate() {
                let serves = router.owner.as_ref().is_some_and(|owner| owner.term().is_some());
                let due = part.assigned == Some(r);
                hold(serves == due, "the_assigned_router_serves", || format!("p{p} r{r}: {serves}, {due}"))?;
            }
            for g in 0..part.nodes.len() {
                self.interest_ends(p, g)?;
            }
        }
        for (c, client) in self.clients.iter().enumerate() {
            let subs = client.conn.iter().flat_map(|conn| &conn.subs);
            for (follow, sub) in client.follows.iter().zip(subs) {
                hold(sub.established, "everyone_is_established", || {
                    format!("client {c} waits for {:?}, from {:?}", follow.channel, sub.pos)
                })?;
                let log = self.parts[follow.p].log();
                hold(follow.epoch == Some(log.epoch), "everyone_is_in_the_log", || {
                    format!("client {c} counts {:?} in {:?}", follow.channel, follow.epoch)
                })?;
                nothing_is_missing(follow, log, self.now_ms)?;
            }
        }
        Ok(())
    }

    fn interest_ends(&self, p: usize, g: usize) -> Check {
        let side = &self.parts[p].nodes[g];
        let wanted = |channel: &Channel| {
            let here =
                self.clients.iter().filter(|it| it.conn.as_ref().is_some_and(|conn| conn.gateway == g));
            here.flat_map(|client| &client.follows).any(|follow| follow.channel == *channel)
        };
        // Only while an owner still sends by it: a session that ended takes its wants with it.
        let open = side.session.filter(|session| {
            let audit = self.streams.get(&session.stream).and_then(|stream| stream.audits.get(&p));
            audit.is_some_and(|audit| (audit.term, audit.n) == (session.term, session.n))
        });
        let stray = side.told.iter().filter(|_| open.is_some()).find(|channel| !wanted(channel));
        hold(stray.is_none(), "interest_ends", || format!("p{p} g{g} still wants {stray:?}"))
    }
}
