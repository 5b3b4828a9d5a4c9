//! What a router's driver does around its [`Owner`]: take over, consume, read back, learn of another log.

use std::sync::Arc;

use rand::Rng;
use tidegate_tenure::{Nonce, Owner, Record, Row};
use tidegate_vocab::{Channel, Event, EventName, Offset, Payload};

use crate::checks::{Check, serves_by_its_own_takeover, store_is_an_interval};
use crate::log::{Log, Rec, Store};
use crate::mutant::Mutant;
use crate::world::{EPOCHS, Part, World};

impl World {
    /// The group gives the partition to a router; the one that had it learns so later.
    pub(crate) fn assign(&mut self, p: usize, r: usize) -> Check {
        self.parts[p].assigned = Some(r);
        let nonce = Nonce(u128::from(self.name()));
        if !self.parts[p].routers[r].believes || self.parts[p].routers[r].owner.is_none() {
            self.open_owner(p, r);
        }
        let router = &mut self.parts[p].routers[r];
        router.believes = true;
        router.retake_at_ms = None;
        if let Some(owner) = &mut router.owner {
            owner.assigned(nonce);
        }
        self.flush(p, r)
    }

    /// Rule 3: the store goes on from H, or starts anew when it is older than the tail, or of another log.
    fn open_owner(&mut self, p: usize, r: usize) {
        let (id, current) = (self.parts[p].id, self.parts[p].logs.len() - 1);
        let (start, end) = (self.parts[p].log().start, self.parts[p].log().end());
        let tail = self.rng.random_range(start..=end);
        let epoch = self.parts[p].log().epoch;
        let router = &mut self.parts[p].routers[r];
        let kept = router.store.h >= tail && router.log == current;
        if kept && router.owner.is_some() && self.rng.random() {
            return;
        }
        if !kept {
            router.store = Store::wiped(tail, &self.config);
        }
        router.log = current;
        let h = Offset(router.store.h);
        let mut owner = Owner::new(id, epoch, h).with_ring_bytes_limit(self.config.ring_bytes);
        router.asks.clear();
        router.reads.clear();
        for (id, stream) in &self.streams {
            if stream.router == r && stream.router_end {
                owner.attached(*id, Offset(router.store.floor));
            }
        }
        router.owner = Some(owner);
    }

    pub(crate) fn revoke(&mut self, p: usize, r: usize) -> Check {
        self.parts[p].routers[r].believes = false;
        self.parts[p].routers[r].retake_at_ms = None;
        if let Some(owner) = &mut self.parts[p].routers[r].owner {
            owner.revoked();
        }
        self.flush(p, r)
    }

    /// The pause after a foreign takeover is over.
    pub(crate) fn retake(&mut self, p: usize, r: usize) -> Check {
        let nonce = Nonce(u128::from(self.name()));
        self.parts[p].routers[r].retake_at_ms = None;
        self.saw("a retake");
        if let Some(owner) = &mut self.parts[p].routers[r].owner {
            owner.retake(nonce);
        }
        self.flush(p, r)
    }

    /// The topic is made anew, and perhaps refilled beyond where the old one ended. Routers learn of it late.
    pub(crate) fn make_anew(&mut self) {
        let Some(epoch) = EPOCHS.get(self.parts[0].logs.len()) else { return };
        self.saw("a topic made anew");
        for p in 0..self.parts.len() {
            let most = if self.rng.random() { self.parts[p].log().end() + 10 } else { 4 };
            self.parts[p].logs.push(Log::new(*epoch));
            self.parts[p].planted.log_made_anew();
            for _ in 0..self.rng.random_range(0..=most) {
                let channel = self.draw_channel(p);
                let now_ms = self.now_ms;
                self.parts[p].log_mut().publish(&channel, now_ms, None);
            }
        }
    }

    /// A router's check of the epoch: its tenure ends, and it begins anew in the current log.
    pub(crate) fn notice_log(&mut self, p: usize, r: usize) -> Check {
        let part = &mut self.parts[p];
        let router = &mut part.routers[r];
        router.retake_at_ms = None;
        if let Some(owner) = &mut router.owner {
            owner.revoked();
        }
        self.flush(p, r)?;
        let router = &mut self.parts[p].routers[r];
        (router.owner, router.believes) = (None, false);
        if self.parts[p].assigned == Some(r) {
            return self.assign(p, r);
        }
        Ok(())
    }

    /// True when it reads a log that is no longer the topic's.
    pub(crate) fn reads_an_old_log(&self, p: usize, r: usize) -> bool {
        self.parts[p].routers[r].owner.is_some()
            && self.parts[p].routers[r].log + 1 < self.parts[p].logs.len()
    }

    /// A takeover reaches the log, perhaps long after its router lost the partition.
    pub(crate) fn land(&mut self, p: usize, index: usize, again: bool) {
        let now_ms = self.now_ms;
        let part = &mut self.parts[p];
        let (router, nonce) = part.appends[index];
        if !again {
            part.appends.remove(index);
        }
        let end = part.log().end();
        part.planted.landed(router, nonce, end);
        part.log_mut().append(Rec::Takeover { router, nonce }, now_ms);
    }

    pub(crate) fn consume(&mut self, p: usize, r: usize) -> Check {
        let Part { routers, logs, planted, .. } = &mut self.parts[p];
        let router = &mut routers[r];
        let log = &logs[router.log];
        let (offset, floor) = (router.store.h, Offset(router.store.floor));
        let Some(rec) = log.get(offset) else { return Ok(()) };
        router.store.consume(rec);
        store_is_an_interval(&router.store, offset, log)?;
        let record = match rec {
            Rec::Event(event) => Record::Event(Arc::clone(event)),
            Rec::DeadLetter(channel) => Record::DeadLetter(channel.clone()),
            Rec::Takeover { nonce, .. } => Record::Takeover(*nonce),
            Rec::Noise => Record::Nothing,
        };
        if let Some(owner) = &mut router.owner {
            let record = planted.consumed(r, rec, record, offset);
            owner.consumed(Offset(offset), record, floor);
        }
        self.remember_gone(p, r);
        self.flush(p, r)?;
        let router = &self.parts[p].routers[r];
        let term = router.owner.as_ref().and_then(Owner::term);
        serves_by_its_own_takeover(self.parts[p].read_by(r), router.store.h, router.nonce, term)
    }

    pub(crate) fn load_backward(&mut self, p: usize, r: usize, count: u64) -> Check {
        let Part { routers, logs, .. } = &mut self.parts[p];
        let log = &logs[routers[r].log];
        routers[r].store.load_backward(log, count);
        store_is_an_interval(&routers[r].store, routers[r].store.h, log)?;
        self.remember_gone(p, r);
        Ok(())
    }

    pub(crate) fn crash(&mut self, r: usize, wiped: bool) {
        self.routers_up[r] = false;
        for part in &mut self.parts {
            let router = &mut part.routers[r];
            router.believes = false;
            router.owner = None;
            router.retake_at_ms = None;
            router.asks.clear();
            router.reads.clear();
            if wiped {
                router.store = Store::wiped(part.logs[router.log].start, &self.config);
            }
            if part.assigned == Some(r) {
                part.assigned = None;
            }
        }
        for stream in self.streams.values_mut().filter(|stream| stream.router == r) {
            (stream.cut, stream.router_end) = (true, false);
            stream.up.clear();
        }
    }

    pub(crate) fn ephemeral(&mut self, p: usize, r: usize, channel: Channel) -> Check {
        let event = Event {
            channel,
            name: EventName::MESSAGE,
            payload: Payload::Json(bytes::Bytes::from_static(b"0")),
            time_ms: self.now_ms,
            offset: None,
            expires_ms: None,
            trace: None,
        };
        if let Some(owner) = &mut self.parts[p].routers[r].owner {
            owner.ephemeral(&Arc::new(event), |_| true);
        }
        self.flush(p, r)
    }

    pub(crate) fn answer_watermark(&mut self, p: usize, r: usize) {
        let end = self.parts[p].read_by(r).end();
        let stale = self.is(Mutant::WatermarkIsOwnH);
        let router = &mut self.parts[p].routers[r];
        if router.asks.is_empty() {
            return;
        }
        let (asked_ms, end_then) = router.asks.remove(0);
        let next = if stale { router.store.h } else { self.rng.random_range(end_then..=end) };
        if let Some(owner) = &mut router.owner {
            owner.high_watermark(Offset(next), asked_ms);
        }
    }

    pub(crate) fn ask_watermark(&mut self, p: usize, r: usize) {
        let end = self.parts[p].read_by(r).end();
        self.parts[p].routers[r].asks.push((self.now_ms, end));
    }

    /// A read of the log for a tenure behind the ring is answered, perhaps with rows above H.
    pub(crate) fn answer_read(&mut self, p: usize, r: usize) -> Check {
        let further = self.rng.random_range(0..8);
        let Part { routers, logs, .. } = &mut self.parts[p];
        let router = &mut routers[r];
        let log = &logs[router.log];
        if router.reads.is_empty() {
            return Ok(());
        }
        let (id, from) = router.reads.remove(0);
        let upto = (from.0 + further).min(log.end());
        let Some(owner) = &mut router.owner else { return Ok(()) };
        if from.0 < log.start {
            owner.log_gone(id, Offset(log.start));
            *self.seen.entry("the log was gone").or_default() += 1;
        } else {
            let row = |offset| match log.get(offset) {
                Some(Rec::Event(event)) => Some(Row::Event(Arc::clone(event))),
                Some(Rec::DeadLetter(channel)) => {
                    Some(Row::DeadLetter { offset: Offset(offset), channel: channel.clone() })
                }
                _ => None,
            };
            *self.seen.entry("the log was read").or_default() += 1;
            owner.log_rows(id, from, (from.0..upto).filter_map(row).collect(), Offset(upto));
        }
        self.flush(p, r)
    }
}
