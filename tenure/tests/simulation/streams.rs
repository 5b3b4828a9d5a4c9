//! The streams between routers and gateways, seen from the routers: hellos, frames up, and what an owner sends.

use tidegate_tenure::{Owner, OwnerOut, StreamId, ToNode, ToRouter};
use tidegate_vocab::Offset;

use crate::audit::{Audit, Scene};
use crate::checks::{Check, owned_is_not_repeated};
use crate::log::View;
use crate::mutant::Mutant;
use crate::world::{Part, Stream, World};

impl World {
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
        self.streams.insert(id, Stream::new(r, g));
        for p in 0..self.parts.len() {
            let router = &mut self.parts[p].routers[r];
            let floor = Offset(router.store.floor);
            if let Some(owner) = &mut router.owner {
                owner.attached(id, floor);
            }
            self.flush(p, r)?;
        }
        Ok(())
    }

    pub(crate) fn router_notices(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        (stream.cut, stream.router_end) = (true, false);
        stream.up.clear();
        for part in &mut self.parts {
            if let Some(owner) = &mut part.routers[stream.router].owner {
                owner.detached(id);
            }
        }
    }

    /// The next frame of a node reaches its router.
    pub(crate) fn deliver_up(&mut self, id: StreamId) -> Check {
        let ignores_cancels = self.is(Mutant::CancelIgnored);
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let Some(frame) = stream.up.pop_front() else { return Ok(()) };
        let (r, p) = (stream.router, frame.partition().number as usize);
        let Part { routers, planted, logs, .. } = &mut self.parts[p];
        let router = &mut routers[r];
        let Some(owner) = &mut router.owner else { return Ok(()) };
        let frame = planted.up(r, id, logs[router.log].epoch, frame);
        match &frame {
            ToRouter::Resume { term, n, from, channels, .. } => {
                let newer = stream.audits.get(&p).is_none_or(|audit| audit.n < *n);
                if owner.term() == Some(*term) && newer {
                    let from = from.unwrap_or(owner.h()).0;
                    stream.audits.insert(p, Audit::open(*term, *n, from, channels));
                }
            }
            ToRouter::Want { term, n, .. }
            | ToRouter::Unwant { term, n, .. }
            | ToRouter::Cancel { term, n, .. } => {
                if let Some(audit) = stream.audits.get_mut(&p)
                    && (audit.term, audit.n) == (*term, *n)
                {
                    audit.heard(&frame);
                }
            }
            ToRouter::Ack { .. } => {}
        }
        if !(ignores_cancels && matches!(frame, ToRouter::Cancel { .. })) {
            owner.on_frame(id, frame, Offset(router.store.floor));
        }
        self.flush(p, r)
    }

    /// Each partition in turn sends what there is room for.
    pub(crate) fn pump(&mut self, p: usize, id: StreamId, failing: bool) -> Check {
        let forgets = self.is(Mutant::EvictedForgotten);
        let Some(stream) = self.streams.get(&id) else { return Ok(()) };
        let r = stream.router;
        let room = self.config.room_bytes.saturating_sub(stream.queued_bytes());
        let Part { routers, logs, .. } = &mut self.parts[p];
        let router = &mut routers[r];
        let Some(owner) = &mut router.owner else { return Ok(()) };
        let chunk_rows = self.config.chunk_rows;
        let view = View { store: &router.store, log: &logs[router.log], chunk_rows, failing, forgets };
        let mut frames = Vec::new();
        owner.pump(id, room, &view, self.now_ms, &mut |frame| frames.push(frame));
        for frame in frames {
            self.push_down(p, id, frame)?;
        }
        self.flush(p, r)
    }

    pub(crate) fn mark(&mut self, p: usize, r: usize, heartbeat: bool) -> Check {
        let mut frames = Vec::new();
        let Some(owner) = &mut self.parts[p].routers[r].owner else { return Ok(()) };
        owner.mark(heartbeat, self.now_ms, &mut |id, frame| frames.push((id, frame)));
        for (id, frame) in frames {
            self.push_down(p, id, frame)?;
        }
        self.flush(p, r)
    }

    /// Carries out what the owner asks for.
    pub(crate) fn flush(&mut self, p: usize, r: usize) -> Check {
        let outs = self.parts[p].routers[r].owner.as_mut().map(Owner::take_out).unwrap_or_default();
        for out in outs {
            match out {
                OwnerOut::Send(id, frame) => self.push_down(p, id, frame)?,
                OwnerOut::AppendTakeover(nonce) => {
                    let part = &mut self.parts[p];
                    part.routers[r].nonce = Some(nonce);
                    part.planted.takes_over(r, nonce);
                    part.appends.push((r, nonce));
                }
                OwnerOut::TakenOver => {
                    if !self.is(Mutant::NoRetake) {
                        self.parts[p].routers[r].retake_at_ms = Some(self.now_ms + 500);
                    }
                }
                OwnerOut::AskHighWatermark => {
                    self.saw("a Want asked for a watermark");
                    self.ask_watermark(p, r);
                }
                OwnerOut::ReadLog { stream, from } => self.parts[p].routers[r].reads.push((stream, from)),
            }
        }
        Ok(())
    }

    /// A frame leaves the owner: it is audited, and queued unless the stream is dead.
    fn push_down(&mut self, p: usize, id: StreamId, frame: ToNode) -> Check {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let Part { routers, logs, planted, .. } = &mut self.parts[p];
        let router = &routers[stream.router];
        let scene = Scene { log: &logs[router.log], store: &router.store, now_ms: self.now_ms };
        if matches!(frame, ToNode::Owned { .. } | ToNode::Ended { .. }) {
            owned_is_not_repeated(stream.audits.get(&p), &frame)?;
            stream.audits.remove(&p);
        }
        if let Some(audit) = stream.audits.get_mut(&p) {
            audit.sends(&frame, &scene)?;
        }
        if !stream.cut && stream.router_end {
            planted.push_down(stream.router, router.store.h, &mut stream.down, frame);
        }
        Ok(())
    }
}
