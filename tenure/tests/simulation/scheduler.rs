//! Picks what happens next.

use rand::Rng;
use tidegate_tenure::StreamId;

use crate::checks::Check;
use crate::kinds::{KINDS, Kind};
use crate::log::Rec;
use crate::mutant::Mutant;
use crate::world::{Failure, ROUTERS, Ran, World};

/// Runs one seed to its end.
pub(crate) fn run(seed: u64, mutant: Option<Mutant>, traced: bool) -> Ran {
    let mut world = World::new(seed, mutant, traced);
    let mut steps = 0;
    let ended = world.wander(&mut steps).and_then(|()| world.settle(&mut steps));
    match ended {
        Ok(()) => Ok((steps, world.seen)),
        Err(violation) => Err(Failure { violation, trace: world.trace.into_iter().flatten().collect() }),
    }
}

impl World {
    fn wander(&mut self, steps: &mut u64) -> Check {
        let total: u32 = self.config.weights.iter().sum();
        for _ in 0..self.config.steps {
            let mut at = self.rng.random_range(0..total);
            let mut index = 0;
            while at >= self.config.weights[index] {
                at -= self.config.weights[index];
                index += 1;
            }
            *steps += 1;
            self.step(KINDS[index].0)?;
            self.check()?;
        }
        Ok(())
    }

    fn any_router(&mut self, fits: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..ROUTERS).filter(|r| fits(self, *r)).collect();
        self.any(&fitting)
    }

    fn any_stream(&mut self, fits: impl Fn(&crate::world::Stream) -> bool) -> Option<StreamId> {
        let fitting: Vec<StreamId> =
            self.streams.iter().filter(|(_, stream)| fits(stream)).map(|(id, _)| *id).collect();
        self.any(&fitting)
    }

    fn any<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.rng.random_range(0..from.len())]) }
    }

    /// One step of one kind, somewhere; nothing when there is nowhere.
    fn step(&mut self, kind: Kind) -> Check {
        let p = self.draw_part();
        match kind {
            Kind::Publish => self.publish(p),
            Kind::Noise | Kind::DeadLetter => self.append_other(p, kind),
            Kind::Trim => self.trim(p),
            Kind::MakeAnew => {
                self.note(|| "the topic is made anew".to_owned());
                self.make_anew();
            }
            Kind::Assign => return self.assign_any(p),
            Kind::Land => {
                if !self.parts[p].appends.is_empty() {
                    let index = self.rng.random_range(0..self.parts[p].appends.len());
                    let again = self.one_in(10);
                    self.note(|| format!("p{p} land {index}"));
                    self.land(p, index, again);
                }
            }
            Kind::Time => {
                let long = self.one_in(self.config.long_time_in);
                self.now_ms += if long { 61_000 } else { self.rng.random_range(1..400) };
                self.note(|| format!("time, long: {long}"));
            }
            Kind::Join | Kind::Leave | Kind::FollowAnew | Kind::GoOn => return self.client_step(kind),
            Kind::Cut | Kind::RouterNotices | Kind::NodeNotices | Kind::Down | Kind::Up | Kind::Pump => {
                return self.stream_step(p, kind);
            }
            Kind::Connect => {
                let (r, g) = (self.rng.random_range(0..ROUTERS), self.draw_gateway());
                return self.connect_if_down(r, g);
            }
            Kind::NodeTick | Kind::Shard => {
                let g = self.draw_gateway();
                self.note(|| format!("{kind:?} g{g}"));
                return if kind == Kind::Shard { self.shard_step(g) } else { self.node_tick(g) };
            }
            _ => return self.router_step(p, kind),
        }
        Ok(())
    }

    fn draw_gateway(&mut self) -> usize {
        self.rng.random_range(0..self.inboxes.len())
    }

    fn publish(&mut self, p: usize) {
        let channel = self.draw_channel(p);
        let ttl = self.one_in(8).then(|| self.now_ms + self.rng.random_range(1..2_000));
        let (now_ms, end) = (self.now_ms, self.parts[p].log().end());
        self.note(|| format!("p{p} publish {end} in {channel:?}, expires {ttl:?}"));
        self.parts[p].log_mut().publish(&channel, now_ms, ttl);
    }

    fn append_other(&mut self, p: usize, kind: Kind) {
        let rec = if kind == Kind::Noise {
            Rec::Noise
        } else {
            let has_key = !self.one_in(4);
            Rec::DeadLetter(has_key.then(|| self.draw_channel(p)))
        };
        let now_ms = self.now_ms;
        self.parts[p].log_mut().append(rec, now_ms);
    }

    fn trim(&mut self, p: usize) {
        if self.one_in(2) {
            let most = (self.parts[p].log().end() - self.parts[p].log().start) / 2;
            let more = self.rng.random_range(0..=most);
            self.parts[p].log_mut().start += more;
            let start = self.parts[p].log().start;
            self.note(|| format!("p{p} log starts at {start}"));
        }
        let r = self.rng.random_range(0..ROUTERS);
        let start = self.parts[p].read_by(r).start;
        self.parts[p].routers[r].store.trim(start);
    }

    pub(crate) fn assign_any(&mut self, p: usize) -> Check {
        let Some(r) = self.any_router(|world, r| world.routers_up[r]) else { return Ok(()) };
        self.note(|| format!("p{p} assign r{r}"));
        self.assign(p, r)
    }

    pub(crate) fn connect_if_down(&mut self, r: usize, g: usize) -> Check {
        let live = |stream: &crate::world::Stream| stream.router == r && stream.gateway == g && !stream.cut;
        if !self.routers_up[r] || self.streams.values().any(live) {
            return Ok(());
        }
        self.note(|| format!("connect r{r} g{g}"));
        self.connect(r, g)
    }

    fn router_step(&mut self, p: usize, kind: Kind) -> Check {
        let assigned = self.parts[p].assigned;
        let now_ms = self.now_ms;
        let found = self.any_router(|world, r| {
            let router = &world.parts[p].routers[r];
            match kind {
                Kind::Revoke => router.believes && assigned != Some(r),
                Kind::Consume => router.believes && router.store.h < world.parts[p].read_by(r).end(),
                Kind::Retake => router.retake_at_ms.is_some_and(|at| at <= now_ms),
                Kind::Restart => !world.routers_up[r],
                Kind::AnswerWatermark => !router.asks.is_empty(),
                Kind::AnswerRead => !router.reads.is_empty(),
                Kind::NoticeLog => world.reads_an_old_log(p, r),
                _ => world.routers_up[r] && router.owner.is_some(),
            }
        });
        let Some(r) = found else { return Ok(()) };
        self.note(|| format!("p{p} {kind:?} r{r}"));
        match kind {
            Kind::Revoke => return self.revoke(p, r),
            Kind::Consume => {
                for _ in 0..self.rng.random_range(1..4) {
                    self.consume(p, r)?;
                }
            }
            Kind::Retake => return self.retake(p, r),
            Kind::Restart => self.routers_up[r] = true,
            Kind::Crash => {
                let wiped = self.rng.random();
                self.crash(r, wiped);
            }
            Kind::LoadBackward => return self.load_backward(p, r, 2),
            Kind::Mark => {
                let heartbeat = self.rng.random();
                return self.mark(p, r, heartbeat);
            }
            Kind::AskWatermark => self.ask_watermark(p, r),
            Kind::AnswerWatermark => self.answer_watermark(p, r),
            Kind::AnswerRead => return self.answer_read(p, r),
            Kind::NoticeLog => return self.notice_log(p, r),
            Kind::Ephemeral => {
                let channel = self.draw_channel(p);
                return self.ephemeral(p, r, channel);
            }
            _ => {}
        }
        Ok(())
    }

    fn stream_step(&mut self, p: usize, kind: Kind) -> Check {
        let room = self.config.room_bytes;
        let found = self.any_stream(|stream| match kind {
            Kind::Cut => !stream.cut,
            Kind::RouterNotices => stream.cut && stream.router_end,
            Kind::NodeNotices => stream.cut && stream.node_end,
            Kind::Down => stream.node_end && !stream.down.is_empty(),
            Kind::Up => stream.router_end && !stream.up.is_empty(),
            _ => stream.router_end && stream.queued_bytes() < room,
        });
        let Some(id) = found else { return Ok(()) };
        self.note_stream(kind, id);
        match kind {
            Kind::Cut => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.cut = true;
                }
            }
            Kind::RouterNotices => self.router_notices(id),
            Kind::NodeNotices => self.node_notices(id),
            Kind::Down => return self.deliver_down(id),
            Kind::Up => return self.deliver_up(id),
            _ => {
                let failing = self.one_in(16);
                return self.pump(p, id, failing);
            }
        }
        self.streams.retain(|_, stream| stream.router_end || stream.node_end);
        Ok(())
    }

    pub(crate) fn note_stream(&mut self, kind: Kind, id: StreamId) {
        let Some(stream) = self.streams.get(&id).filter(|_| self.trace.is_some()) else { return };
        let between = format!("r{} g{} {id:?}", stream.router, stream.gateway);
        let line = match kind {
            Kind::Down => format!("{between} down {:?}", stream.down.front()),
            Kind::Up => format!("{between} up {:?}", stream.up.front()),
            _ => format!("{between} {kind:?}"),
        };
        self.note(|| line);
    }

    fn client_step(&mut self, kind: Kind) -> Check {
        let c = self.rng.random_range(0..self.clients.len());
        let g = self.draw_gateway();
        self.note(|| format!("{kind:?} client {c} g{g}"));
        match kind {
            Kind::Join if self.clients[c].conn.is_none() => return self.join(c, g),
            Kind::Leave if self.clients[c].conn.is_some() => return self.cut(c),
            Kind::GoOn => return self.go_on(c),
            Kind::FollowAnew => {
                let index = self.rng.random_range(0..self.clients[c].follows.len());
                return self.follow_anew(c, index);
            }
            _ => {}
        }
        Ok(())
    }
}
