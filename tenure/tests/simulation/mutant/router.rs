//! What a router makes of takeovers.

use tidegate_tenure::{Nonce, Record};
use tidegate_vocab::{Offset, Term};

use super::{Mutant, Planted};
use crate::log::Rec;

impl Planted {
    /// A router sends a takeover to the log.
    pub(crate) fn takes_over(&mut self, r: usize, nonce: Nonce) {
        self.nonces.insert(r, nonce);
        self.landed.remove(&r);
    }

    pub(crate) fn landed(&mut self, r: usize, nonce: Nonce, offset: u64) {
        if self.nonces.get(&r) == Some(&nonce) {
            self.landed.entry(r).or_insert(offset);
        }
    }

    /// What a router makes of a record.
    pub(crate) fn consumed(&mut self, r: usize, rec: &Rec, record: Record, offset: u64) -> Record {
        let Some(nonce) = self.nonces.get(&r).copied() else { return record };
        let foreign = matches!(rec, Rec::Takeover { nonce: other, .. } if *other != nonce);
        match (self.mutant, rec) {
            (Some(Mutant::TakeoverByName), Rec::Takeover { router, .. }) if *router == r => {
                Record::Takeover(nonce)
            }
            (Some(Mutant::ForeignTakeoverIgnored), _) if foreign => Record::Nothing,
            (Some(Mutant::ServesBeforeConsumed), _) => self.serves_early(r, nonce, rec, record, offset),
            _ => record,
        }
    }

    /// The record at H stands in for the takeover that is in the log but not consumed yet.
    fn serves_early(&mut self, r: usize, nonce: Nonce, rec: &Rec, record: Record, offset: u64) -> Record {
        let Some(landed) = self.landed.get(&r).copied() else { return record };
        let real = Term::of_takeover_at(Offset(landed));
        let early = self.real_terms.values().any(|term| *term == real);
        match rec {
            Rec::Noise if offset < landed && !early => {
                self.real_terms.insert((r, Term::of_takeover_at(Offset(offset))), real);
                Record::Takeover(nonce)
            }
            Rec::Takeover { .. } if early && offset <= landed => Record::Nothing,
            _ => record,
        }
    }

    /// Offsets of the log before count no more.
    pub(crate) fn log_made_anew(&mut self) {
        self.landed.clear();
    }
}
