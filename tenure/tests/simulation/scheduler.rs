//! Picks what happens next.

use rand::Rng;
use rand::rngs::StdRng;
use tidegate_tenure::StreamId;

use crate::checks::Check;
use crate::log::Rec;
use crate::mutant::Mutant;
use crate::world::{Failure, ROUTERS, Ran, World};

/// The kinds of steps; a seed draws how likely each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Publish,
    Noise,
    DeadLetter,
    Trim,
    Assign,
    Revoke,
    Land,
    Consume,
    LoadBackward,
    Retake,
    Crash,
    Restart,
    Connect,
    Cut,
    RouterNotices,
    NodeNotices,
    Down,
    Up,
    Pump,
    Mark,
    AskWatermark,
    AnswerWatermark,
    AnswerRead,
    Ephemeral,
    NodeTick,
    Shard,
    Join,
    Leave,
    FollowAnew,
    Time,
}

/// Each kind, and the weights a seed may draw for it: what moves things on is never switched off.
const KINDS: [(Kind, [u32; 4]); 30] = [
    (Kind::Publish, [4, 8, 8, 16]),
    (Kind::Noise, [0, 0, 1, 4]),
    (Kind::DeadLetter, [0, 0, 0, 1]),
    (Kind::Trim, [0, 0, 0, 1]),
    (Kind::Assign, [1, 2, 4, 8]),
    (Kind::Revoke, [1, 1, 2, 8]),
    (Kind::Land, [2, 4, 8, 16]),
    (Kind::Consume, [2, 8, 16, 32]),
    (Kind::LoadBackward, [0, 1, 4, 8]),
    (Kind::Retake, [2, 4, 8, 8]),
    (Kind::Crash, [0, 0, 1, 1]),
    (Kind::Restart, [2, 4, 8, 8]),
    (Kind::Connect, [4, 8, 16, 16]),
    (Kind::Cut, [0, 1, 2, 4]),
    (Kind::RouterNotices, [1, 2, 8, 16]),
    (Kind::NodeNotices, [1, 2, 8, 16]),
    (Kind::Down, [8, 16, 32, 32]),
    (Kind::Up, [8, 16, 32, 32]),
    (Kind::Pump, [4, 16, 32, 32]),
    (Kind::Mark, [1, 2, 8, 8]),
    (Kind::AskWatermark, [0, 1, 2, 2]),
    (Kind::AnswerWatermark, [1, 4, 8, 8]),
    (Kind::AnswerRead, [2, 8, 16, 16]),
    (Kind::Ephemeral, [0, 0, 1, 1]),
    (Kind::NodeTick, [1, 2, 4, 8]),
    (Kind::Shard, [8, 16, 32, 32]),
    (Kind::Join, [4, 8, 16, 16]),
    (Kind::Leave, [0, 2, 4, 8]),
    (Kind::FollowAnew, [0, 0, 1, 2]),
    (Kind::Time, [1, 2, 4, 8]),
];

pub(crate) fn draw_weights(rng: &mut StdRng) -> Vec<u32> {
    KINDS.iter().map(|(_, choices)| choices[rng.random_range(0..choices.len())]).collect()
}

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
        match kind {
            Kind::Publish => self.publish(),
            Kind::Noise => self.log.append(Rec::Noise, self.now_ms),
            Kind::DeadLetter => {
                let has_key = !self.one_in(4);
                let channel = has_key.then(|| self.draw_channel());
                self.log.append(Rec::DeadLetter(channel), self.now_ms);
            }
            Kind::Trim => self.trim(),
            Kind::Assign => return self.assign_any(),
            Kind::Land => {
                if !self.appends.is_empty() {
                    let index = self.rng.random_range(0..self.appends.len());
                    let again = self.one_in(10);
                    self.note(|| format!("land {index}"));
                    self.land(index, again);
                }
            }
            Kind::Time => {
                let long = self.one_in(self.config.long_time_in);
                self.now_ms += if long { 61_000 } else { self.rng.random_range(1..400) };
                self.note(|| format!("time, long: {long}"));
            }
            Kind::Join | Kind::Leave | Kind::FollowAnew => return self.client_step(kind),
            Kind::Cut | Kind::RouterNotices | Kind::NodeNotices | Kind::Down | Kind::Up | Kind::Pump => {
                return self.stream_step(kind);
            }
            Kind::Connect => {
                let (r, g) =
                    (self.rng.random_range(0..ROUTERS), self.rng.random_range(0..self.gateways.len()));
                return self.connect_if_down(r, g);
            }
            Kind::NodeTick | Kind::Shard => {
                let g = self.rng.random_range(0..self.gateways.len());
                self.note(|| format!("{kind:?} g{g}"));
                return if kind == Kind::Shard { self.shard_step(g) } else { self.node_tick(g) };
            }
            _ => return self.router_step(kind),
        }
        Ok(())
    }

    fn publish(&mut self) {
        let channel = self.draw_channel();
        let ttl = self.one_in(8).then(|| self.now_ms + self.rng.random_range(1..2_000));
        self.note(|| format!("publish {} in {channel:?}, expires {ttl:?}", 0));
        self.log.publish(&channel, self.now_ms, ttl);
    }

    fn trim(&mut self) {
        if self.one_in(2) {
            self.log.start += self.rng.random_range(0..=(self.log.end() - self.log.start) / 2);
            let start = self.log.start;
            self.note(|| format!("log starts at {start}"));
        }
        let r = self.rng.random_range(0..ROUTERS);
        self.routers[r].store.trim(self.log.start);
    }

    pub(crate) fn assign_any(&mut self) -> Check {
        let Some(r) = self.any_router(|world, r| world.routers[r].up) else { return Ok(()) };
        self.note(|| format!("assign r{r}"));
        self.assign(r)
    }

    pub(crate) fn connect_if_down(&mut self, r: usize, g: usize) -> Check {
        let live = |stream: &crate::world::Stream| stream.router == r && stream.gateway == g && !stream.cut;
        if !self.routers[r].up || self.streams.values().any(live) {
            return Ok(());
        }
        self.note(|| format!("connect r{r} g{g}"));
        self.connect(r, g)
    }

    fn router_step(&mut self, kind: Kind) -> Check {
        let assigned = self.assigned;
        let now_ms = self.now_ms;
        let found = self.any_router(|world, r| {
            let router = &world.routers[r];
            match kind {
                Kind::Revoke => router.believes && assigned != Some(r),
                Kind::Consume => router.believes && router.store.h < world.log.end(),
                Kind::Retake => router.retake_at_ms.is_some_and(|at| at <= now_ms),
                Kind::Restart => !router.up,
                Kind::AnswerWatermark => !router.asks.is_empty(),
                Kind::AnswerRead => !router.reads.is_empty(),
                _ => router.up && router.owner.is_some(),
            }
        });
        let Some(r) = found else { return Ok(()) };
        self.note(|| format!("{kind:?} r{r}"));
        match kind {
            Kind::Revoke => return self.revoke(r),
            Kind::Consume => {
                for _ in 0..self.rng.random_range(1..4) {
                    self.consume(r)?;
                }
            }
            Kind::Retake => return self.retake(r),
            Kind::Restart => self.routers[r].up = true,
            Kind::Crash => {
                let wiped = self.rng.random();
                self.crash(r, wiped);
            }
            Kind::LoadBackward => return self.load_backward(r, 2),
            Kind::Mark => {
                let heartbeat = self.rng.random();
                return self.mark(r, heartbeat);
            }
            Kind::AskWatermark => self.ask_watermark(r),
            Kind::AnswerWatermark => self.answer_watermark(r),
            Kind::AnswerRead => return self.answer_read(r),
            Kind::Ephemeral => {
                let channel = self.draw_channel();
                return self.ephemeral(r, channel);
            }
            _ => {}
        }
        Ok(())
    }

    fn stream_step(&mut self, kind: Kind) -> Check {
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
                return self.pump(id, failing);
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
        let g = self.rng.random_range(0..self.gateways.len());
        self.note(|| format!("{kind:?} client {c} g{g}"));
        match kind {
            Kind::Join if self.clients[c].conn.is_none() => return self.join(c, g),
            Kind::Leave if self.clients[c].conn.is_some() => return self.cut(c),
            Kind::FollowAnew => {
                let index = self.rng.random_range(0..self.clients[c].follows.len());
                return self.follow_anew(c, index);
            }
            _ => {}
        }
        Ok(())
    }
}
