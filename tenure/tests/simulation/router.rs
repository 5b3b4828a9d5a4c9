//! What a router's driver does around its [`Owner`]: consume, append, pump, mark, answer.

use std::sync::Arc;

use rand::Rng;
use tidegate_tenure::{Nonce, Owner, OwnerOut, Record, Row, StreamId, ToNode, ToRouter};
use tidegate_vocab::{Channel, Event, EventName, Offset, Payload};

use crate::audit::{Audit, Scene};
use crate::checks::{Check, serves_by_its_own_takeover, store_is_an_interval};
use crate::log::{Rec, Store, View};
use crate::mutant::Mutant;
use crate::world::{EPOCH, PARTITION, World};

impl World {
    /// The group gives the partition to a router; the one that had it learns so later.
    pub(crate) fn assign(&mut self, r: usize) -> Check {
        self.assigned = Some(r);
        let nonce = Nonce(u128::from(self.name()));
        if !self.routers[r].believes || self.routers[r].owner.is_none() {
            self.open_owner(r);
        }
        let router = &mut self.routers[r];
        router.believes = true;
        router.retake_at_ms = None;
        if let Some(owner) = &mut router.owner {
            owner.assigned(nonce);
        }
        self.flush(r)
    }

    /// Rule 3: the store goes on from H, or starts anew when it is older than the tail.
    fn open_owner(&mut self, r: usize) {
        let (start, end) = (self.log.start, self.log.end());
        let tail = self.rng.random_range(start..=end);
        let router = &mut self.routers[r];
        let kept = router.store.h >= tail;
        if kept && router.owner.is_some() && self.rng.random() {
            return;
        }
        if !kept {
            router.store = Store::wiped(tail, &self.config);
        }
        let h = Offset(router.store.h);
        let mut owner = Owner::new(PARTITION, EPOCH, h).with_ring_bytes_limit(self.config.ring_bytes);
        router.asks.clear();
        router.reads.clear();
        for (id, stream) in &self.streams {
            if stream.router == r && stream.router_end {
                owner.attached(*id, Offset(router.store.floor));
            }
        }
        router.owner = Some(owner);
    }

    pub(crate) fn revoke(&mut self, r: usize) -> Check {
        self.routers[r].believes = false;
        self.routers[r].retake_at_ms = None;
        if let Some(owner) = &mut self.routers[r].owner {
            owner.revoked();
        }
        self.flush(r)
    }

    /// The pause after a foreign takeover is over.
    pub(crate) fn retake(&mut self, r: usize) -> Check {
        let nonce = Nonce(u128::from(self.name()));
        self.routers[r].retake_at_ms = None;
        self.saw("a retake");
        if let Some(owner) = &mut self.routers[r].owner {
            owner.retake(nonce);
        }
        self.flush(r)
    }

    /// A takeover reaches the log, perhaps long after its router lost the partition.
    pub(crate) fn land(&mut self, index: usize, again: bool) {
        let (router, nonce) = self.appends[index];
        if !again {
            self.appends.remove(index);
        }
        self.planted.landed(router, nonce, self.log.end());
        self.log.append(Rec::Takeover { router, nonce }, self.now_ms);
    }

    pub(crate) fn consume(&mut self, r: usize) -> Check {
        let router = &mut self.routers[r];
        let (offset, floor) = (router.store.h, Offset(router.store.floor));
        let Some(rec) = self.log.get(offset) else { return Ok(()) };
        router.store.consume(rec);
        store_is_an_interval(&router.store, offset, &self.log)?;
        let record = match rec {
            Rec::Event(event) => Record::Event(Arc::clone(event)),
            Rec::DeadLetter(channel) => Record::DeadLetter(channel.clone()),
            Rec::Takeover { nonce, .. } => Record::Takeover(*nonce),
            Rec::Noise => Record::Nothing,
        };
        if let Some(owner) = &mut router.owner {
            let record = self.planted.consumed(r, rec, record, offset);
            owner.consumed(Offset(offset), record, floor);
        }
        self.remember_gone(r);
        self.flush(r)?;
        let router = &self.routers[r];
        let term = router.owner.as_ref().and_then(Owner::term);
        serves_by_its_own_takeover(&self.log, router.store.h, router.nonce, term)
    }

    pub(crate) fn load_backward(&mut self, r: usize, count: u64) -> Check {
        let router = &mut self.routers[r];
        router.store.load_backward(&self.log, count);
        self.remember_gone(r);
        store_is_an_interval(&self.routers[r].store, self.routers[r].store.h, &self.log)
    }

    pub(crate) fn crash(&mut self, r: usize, wiped: bool) {
        let router = &mut self.routers[r];
        router.up = false;
        router.believes = false;
        router.owner = None;
        router.retake_at_ms = None;
        router.asks.clear();
        router.reads.clear();
        if wiped {
            router.store = Store::wiped(self.log.start, &self.config);
        }
        for stream in self.streams.values_mut().filter(|stream| stream.router == r) {
            (stream.cut, stream.router_end) = (true, false);
            stream.up.clear();
        }
        if self.assigned == Some(r) {
            self.assigned = None;
        }
    }

    /// A node's new stream says hello: an older one of the same node is closed.
    pub(crate) fn connect(&mut self, r: usize, g: usize) -> Check {
        let older: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.router == r && stream.gateway == g && stream.router_end)
            .map(|(id, _)| *id)
            .collect();
        for id in older {
            self.router_notices(id);
        }
        let id = StreamId(self.name());
        self.streams.insert(id, crate::world::Stream::new(r, g));
        let floor = Offset(self.routers[r].store.floor);
        if let Some(owner) = &mut self.routers[r].owner {
            owner.attached(id, floor);
        }
        self.flush(r)
    }

    pub(crate) fn router_notices(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        (stream.cut, stream.router_end) = (true, false);
        stream.up.clear();
        if let Some(owner) = &mut self.routers[stream.router].owner {
            owner.detached(id);
        }
    }

    /// The next frame of a node reaches its router.
    pub(crate) fn deliver_up(&mut self, id: StreamId) -> Check {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let Some(frame) = stream.up.pop_front() else { return Ok(()) };
        let router = &mut self.routers[stream.router];
        let Some(owner) = &mut router.owner else { return Ok(()) };
        let frame = self.planted.up(stream.router, frame);
        match &frame {
            ToRouter::Resume { term, n, from, channels, .. } => {
                let newer = stream.audit.as_ref().is_none_or(|audit| audit.n < *n);
                if owner.term() == Some(*term) && newer {
                    let from = from.unwrap_or(owner.h()).0;
                    stream.audit = Some(Audit::open(*term, *n, from, channels));
                }
            }
            ToRouter::Want { term, n, .. }
            | ToRouter::Unwant { term, n, .. }
            | ToRouter::Cancel { term, n, .. } => {
                if let Some(audit) = &mut stream.audit
                    && (audit.term, audit.n) == (*term, *n)
                {
                    audit.heard(&frame);
                }
            }
            ToRouter::Ack { .. } => {}
        }
        let (r, floor) = (stream.router, Offset(router.store.floor));
        owner.on_frame(id, frame, floor);
        self.flush(r)
    }

    pub(crate) fn pump(&mut self, id: StreamId, failing: bool) -> Check {
        let Some(stream) = self.streams.get(&id) else { return Ok(()) };
        let r = stream.router;
        let room = self.config.room_bytes.saturating_sub(stream.queued_bytes());
        let forgets = self.is(Mutant::EvictedForgotten);
        let router = &mut self.routers[r];
        let Some(owner) = &mut router.owner else { return Ok(()) };
        let view = View {
            store: &router.store,
            log: &self.log,
            chunk_rows: self.config.chunk_rows,
            failing,
            forgets,
        };
        let mut frames = Vec::new();
        owner.pump(id, room, &view, self.now_ms, &mut |frame| frames.push(frame));
        for frame in frames {
            self.push_down(id, frame)?;
        }
        self.flush(r)
    }

    pub(crate) fn mark(&mut self, r: usize, heartbeat: bool) -> Check {
        let mut frames = Vec::new();
        let Some(owner) = &mut self.routers[r].owner else { return Ok(()) };
        owner.mark(heartbeat, self.now_ms, &mut |id, frame| frames.push((id, frame)));
        for (id, frame) in frames {
            self.push_down(id, frame)?;
        }
        self.flush(r)
    }

    pub(crate) fn ephemeral(&mut self, r: usize, channel: Channel) -> Check {
        let event = Event {
            channel,
            name: EventName::MESSAGE,
            payload: Payload::Json(bytes::Bytes::from_static(b"0")),
            time_ms: self.now_ms,
            offset: None,
            expires_ms: None,
            trace: None,
        };
        if let Some(owner) = &mut self.routers[r].owner {
            owner.ephemeral(&Arc::new(event), |_| true);
        }
        self.flush(r)
    }

    pub(crate) fn answer_watermark(&mut self, r: usize) {
        let router = &mut self.routers[r];
        if router.asks.is_empty() {
            return;
        }
        let (asked_ms, end_then) = router.asks.remove(0);
        let stale = self.planted.mutant == Some(Mutant::WatermarkIsOwnH);
        let next = if stale { router.store.h } else { self.rng.random_range(end_then..=self.log.end()) };
        if let Some(owner) = &mut router.owner {
            owner.high_watermark(Offset(next), asked_ms);
        }
    }

    pub(crate) fn ask_watermark(&mut self, r: usize) {
        let end = self.log.end();
        self.routers[r].asks.push((self.now_ms, end));
    }

    /// A read of the log for a tenure behind the ring is answered, perhaps with rows above H.
    pub(crate) fn answer_read(&mut self, r: usize) -> Check {
        if self.routers[r].reads.is_empty() {
            return Ok(());
        }
        let (id, from) = self.routers[r].reads.remove(0);
        let upto = (from.0 + self.rng.random_range(0..8)).min(self.log.end());
        let Some(owner) = &mut self.routers[r].owner else { return Ok(()) };
        if from.0 < self.log.start {
            owner.log_gone(id, Offset(self.log.start));
            *self.seen.entry("the log was gone").or_default() += 1;
        } else {
            let row = |offset| match self.log.get(offset) {
                Some(Rec::Event(event)) => Some(Row::Event(Arc::clone(event))),
                Some(Rec::DeadLetter(channel)) => {
                    Some(Row::DeadLetter { offset: Offset(offset), channel: channel.clone() })
                }
                _ => None,
            };
            *self.seen.entry("the log was read").or_default() += 1;
            owner.log_rows(id, from, (from.0..upto).filter_map(row).collect(), Offset(upto));
        }
        self.flush(r)
    }

    /// Carries out what the owner asks for.
    pub(crate) fn flush(&mut self, r: usize) -> Check {
        let outs = self.routers[r].owner.as_mut().map(Owner::take_out).unwrap_or_default();
        for out in outs {
            match out {
                OwnerOut::Send(id, frame) => self.push_down(id, frame)?,
                OwnerOut::AppendTakeover(nonce) => {
                    self.routers[r].nonce = Some(nonce);
                    self.planted.takes_over(r, nonce);
                    self.appends.push((r, nonce));
                }
                OwnerOut::TakenOver => {
                    if !self.is(Mutant::NoRetake) {
                        self.routers[r].retake_at_ms = Some(self.now_ms + 500);
                    }
                }
                OwnerOut::AskHighWatermark => {
                    self.saw("a Want asked for a watermark");
                    self.ask_watermark(r);
                }
                OwnerOut::ReadLog { stream, from } => self.routers[r].reads.push((stream, from)),
            }
        }
        Ok(())
    }

    /// A frame leaves the owner: it is audited, and queued unless the stream is dead.
    fn push_down(&mut self, id: StreamId, frame: ToNode) -> Check {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let router = &self.routers[stream.router];
        let scene = Scene { log: &self.log, store: &router.store, now_ms: self.now_ms };
        if matches!(frame, ToNode::Owned { .. } | ToNode::Ended { .. }) {
            crate::checks::owned_is_not_repeated(stream.audit.as_ref(), &frame)?;
            stream.audit = None;
        }
        if let Some(audit) = &mut stream.audit {
            audit.sends(&frame, &scene)?;
        }
        if !stream.cut && stream.router_end {
            self.planted.push_down(stream.router, router.store.h, &mut stream.down, frame);
        }
        Ok(())
    }
}
