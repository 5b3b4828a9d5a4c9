//! Shares of keys, counted over keys like those there are.

use std::collections::BTreeMap;

use tidegate_registry::{MemberId, REPLICAS, Ring};

/// Keys that stand for all: a share is right to about 0.2 %.
const KEYS: u32 = 100_000;

/// How many keys each member answers for.
pub(super) struct Shares {
    primary: BTreeMap<MemberId, u32>,
    replica: BTreeMap<MemberId, u32>,
}

impl Shares {
    pub(super) fn of(ring: &Ring) -> Self {
        let mut shares = Self { primary: BTreeMap::new(), replica: BTreeMap::new() };
        for key in keys() {
            let mut members = ring.replicas(&key, REPLICAS);
            for (counts, member) in
                [(&mut shares.primary, members.next()), (&mut shares.replica, members.next())]
            {
                if let Some(member) = member {
                    *counts.entry(member).or_default() += 1;
                }
            }
        }
        shares
    }

    /// Percent of all keys.
    pub(super) fn primary(&self, member: MemberId) -> f64 {
        percent(self.primary.get(&member).copied().unwrap_or(0))
    }

    /// Percent of all keys.
    pub(super) fn replica(&self, member: MemberId) -> f64 {
        percent(self.replica.get(&member).copied().unwrap_or(0))
    }
}

/// What a change of ring moves, in percent of all keys.
pub(super) struct Moved {
    /// Keys with another primary.
    pub(super) primary: f64,
    /// Keys that another member answers for than before, as primary or replica.
    pub(super) any: f64,
}

impl Moved {
    pub(super) fn between(old: &Ring, new: &Ring) -> Self {
        let (mut primary, mut any) = (0, 0);
        for key in keys() {
            let before: Vec<MemberId> = old.replicas(&key, REPLICAS).collect();
            let after: Vec<MemberId> = new.replicas(&key, REPLICAS).collect();
            let is_moved = before.first() != after.first();
            primary += u32::from(is_moved);
            any += u32::from(is_moved || after.iter().any(|member| !before.contains(member)));
        }
        Self { primary: percent(primary), any: percent(any) }
    }
}

fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(|number| format!("user:{number}"))
}

fn percent(keys: u32) -> f64 {
    f64::from(keys) * 100.0 / f64::from(KEYS)
}
