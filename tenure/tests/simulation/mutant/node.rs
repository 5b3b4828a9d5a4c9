//! What a node and its shard make of what they hear.

use std::sync::Arc;

use tidegate_tenure::{Node, NodeOut, Outcome, StreamId, ToNode, ToRouter, WantFrom, WantId};
use tidegate_vocab::{Channel, Offset};

use super::{Mutant, Planted};
use crate::checks::Check;
use crate::client::Sub;
use crate::world::World;

impl Planted {
    /// Below which a shard gives nothing to anybody.
    pub(crate) fn dedupe_below(&mut self, g: usize, next: u64) -> u64 {
        if !self.is(Mutant::DedupeByPartition) {
            return 0;
        }
        let position = self.positions.entry(g).or_default();
        let below = *position;
        *position = below.max(next);
        below
    }

    /// A subscription asks its node.
    pub(crate) fn asks(&mut self, want: WantId, channel: &Channel, from: WantFrom) {
        if self.mutant.is_some() {
            self.asked.insert(want, (channel.clone(), from));
        }
    }

    /// A node hears a frame of its session, or something that makes it think so; its shard gets what is true.
    pub(crate) fn heeded(
        &mut self,
        g: usize,
        node: &mut Node,
        stream: StreamId,
        frame: &ToNode,
        now_ms: u64,
        out: &mut Vec<NodeOut>,
    ) {
        match (self.mutant, frame) {
            (Some(Mutant::HoldSurvivesLost), ToNode::Lost { channel, upto, .. }) => {
                out.push(NodeOut::Lost { channel: channel.clone(), upto: *upto });
            }
            (Some(Mutant::RingHasGap), ToNode::Event { partition, term, n, event })
                if event.offset.is_some_and(|offset| offset.0 % 2 == 0) =>
            {
                let next = event.offset.unwrap_or_default().next();
                let mark = ToNode::Mark { partition: *partition, term: *term, n: *n, next, age_ms: 0 };
                node.on_frame(stream, mark, now_ms, &mut Vec::new());
                out.push(NodeOut::Event(Arc::clone(event)));
            }
            (_, ToNode::HistoryEnd { partition, term, n, want, outcome, upto }) => {
                let begin = self.hold_begins(g, node, *want, *upto);
                let (partition, term, n, want, outcome) = (*partition, *term, *n, *want, *outcome);
                let end = ToNode::HistoryEnd { partition, term, n, want, outcome, upto: begin };
                node.on_frame(stream, end, now_ms, out);
                for said in out {
                    if let NodeOut::Established { upto: said, .. } = said {
                        *said = *upto;
                    }
                }
            }
            _ => {
                if let ToNode::Lost { channel: lost, upto, .. } = frame {
                    for ((_, channel), (begin, _)) in &mut self.holds {
                        if lost.as_ref().is_none_or(|lost| lost == channel) {
                            *begin = upto.0.max(*begin);
                        }
                    }
                }
                node.on_frame(stream, frame.clone(), now_ms, out);
            }
        }
    }

    /// Where a node takes the hold of the Want's channel to begin.
    fn hold_begins(&mut self, g: usize, node: &Node, want: WantId, upto: Offset) -> Offset {
        let Some((channel, from)) = self.asked.get(&want) else { return upto };
        let (known, epoch) = (self.holds.get(&(g, channel.clone())).copied(), node.epoch());
        let begin = match (self.mutant, from) {
            (Some(Mutant::HoldBeginsAtCursor), WantFrom::Next { epoch: asked, offset })
                if Some(*asked) == epoch =>
            {
                upto.min(*offset)
            }
            (Some(Mutant::HoldSurvivesUnwant), _) => match known {
                Some((begin, of)) if of == epoch => upto.min(Offset(begin)),
                _ => upto,
            },
            _ => upto,
        };
        let least = known.filter(|(_, of)| *of == epoch).map_or(begin.0, |(known, _)| known.min(begin.0));
        self.holds.insert((g, channel.clone()), (least, epoch));
        begin
    }
}

impl World {
    /// A pending subscription is listed in a Resume as if it were established.
    pub(crate) fn plant_folded(&mut self, g: usize, frame: &mut ToRouter) {
        if !self.is(Mutant::ResumeFoldsPending) {
            return;
        }
        let p = frame.partition().number as usize;
        let ToRouter::Resume { channels, .. } = frame else { return };
        for channel in self.config.channels_of(p) {
            for (c, index) in self.subs_of(g, &channel) {
                let Some(sub) = self.sub(c, index).filter(|sub| sub.pos.is_some()) else { continue };
                sub.established = true;
                if !channels.contains(&channel) {
                    channels.push(channel.clone());
                }
            }
        }
    }

    /// A channel that the node holds already is joined where the node stands.
    pub(crate) fn plant_local_join(
        &mut self,
        g: usize,
        c: usize,
        index: usize,
        from: WantFrom,
        sub: &mut Sub,
    ) {
        let (p, channel) = (self.clients[c].follows[index].p, self.clients[c].follows[index].channel.clone());
        let side = &self.parts[p].nodes[g];
        let (Some(epoch), next) = (side.shard_epoch, side.shard_next) else { return };
        let at = match from {
            WantFrom::Next { offset, epoch: asked } if asked == epoch => offset.0,
            WantFrom::Now => next,
            _ => return,
        };
        let others = self.subs_of(g, &channel).into_iter().any(|other| other != (c, index));
        if self.is(Mutant::JoinLocally) && at >= next && others {
            sub.established = true;
            sub.pos = Some((epoch, at));
            self.clients[c].follows[index].count_in(epoch);
        }
    }

    pub(crate) fn plant_mark_to_pending(&mut self, g: usize, p: usize, next: u64) {
        if !self.is(Mutant::MarkToPending) {
            return;
        }
        for client in &mut self.clients {
            let Some(conn) = client.conn.as_mut().filter(|conn| conn.gateway == g) else { continue };
            let subs = client.follows.iter().zip(&mut conn.subs).filter(|(follow, _)| follow.p == p);
            for (_, sub) in subs {
                sub.pos = sub.pos.map(|(epoch, pos)| (epoch, pos.max(next)));
            }
        }
    }

    /// After a change of the log each hold is taken to begin at the number at which it began in the other.
    pub(crate) fn plant_holds_across_logs(&mut self, g: usize, p: usize) -> Check {
        let (epoch, session) = (self.parts[p].nodes[g].node.epoch(), self.parts[p].nodes[g].session);
        let (true, Some(session)) = (self.is(Mutant::HoldSurvivesEpoch), session) else { return Ok(()) };
        for channel in self.parts[p].nodes[g].told.clone() {
            let Some(hold) = self.parts[p].planted.holds.get_mut(&(g, channel.clone())) else { continue };
            if hold.1 == epoch {
                continue;
            }
            hold.1 = epoch;
            let (begin, want) = (hold.0, WantId(self.name()));
            let (partition, n, now_ms) = (self.parts[p].id, session.n, self.now_ms);
            let (outcome, upto) = (Outcome::Fresh, Offset(begin));
            let frame = ToNode::HistoryEnd { partition, term: session.term, n, want, outcome, upto };
            let node = &mut self.parts[p].nodes[g].node;
            let mut out = Vec::new();
            node.subscribe(want, channel.clone(), WantFrom::Now, now_ms, &mut out);
            node.on_frame(session.stream, frame, now_ms, &mut out);
            node.release(&channel, now_ms);
            self.carry(g, p, out)?;
        }
        Ok(())
    }
}
