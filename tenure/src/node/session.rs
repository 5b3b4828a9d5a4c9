//! One session with an owner: from the Resume that opens it, what it was told and what it is acknowledged.

use tidegate_vocab::Offset;

use super::{Node, NodeOut};
use crate::frame::ToRouter;

impl Node {
    /// Sends the Resume that opens a session, unless one is open: established channels only (rule 8), from the least
    /// position of an established subscription (rule 5).
    pub(super) fn open_session(&mut self, out: &mut Vec<NodeOut>) {
        let Some(owner) = self.owner.filter(|_| !self.in_session) else { return };
        self.n += 1;
        self.in_session = true;
        (self.number, self.told_count, self.told_xor, self.acked) = (0, 0, 0, None);
        let mut from: Option<Offset> = None;
        let mut channels = Vec::new();
        for (channel, hold) in &mut self.holds {
            hold.set_told(hold.established_at().is_some());
            if let Some(at) = hold.established_at() {
                let position = at.max(self.next);
                from = Some(from.map_or(position, |least| least.min(position)));
                self.told_count += 1;
                self.told_xor ^= channel.hash64();
                channels.push(channel.clone());
            }
        }
        let from = from.filter(|offset| *offset > Offset(0));
        out.push(NodeOut::Send(
            owner.stream,
            ToRouter::Resume { partition: self.partition, term: owner.term, n: self.n, from, channels },
        ));
    }

    pub(super) fn ack(&mut self, out: &mut Vec<NodeOut>) {
        let Some(owner) = self.owner.filter(|_| self.in_session) else { return };
        if self.acked == Some((self.next, self.number)) {
            return;
        }
        self.acked = Some((self.next, self.number));
        out.push(NodeOut::Send(
            owner.stream,
            ToRouter::Ack {
                partition: self.partition,
                term: owner.term,
                n: self.n,
                next: self.next,
                number: self.number,
                held: self.told_count,
                held_xor: self.told_xor,
            },
        ));
    }
}
