//! Partitions that stood still: from which nobody who was connected received anything in time.

use std::collections::{BTreeMap, HashMap};

use super::{Way, absences};
use crate::judge::Limits;
use crate::judge::index::Index;

/// A partition may have stopped a little before the fault was written down.
const BEFORE_US: u64 = 1_000_000;
/// A partition that stands still later than this after a router's fault has another reason.
const AFTER_US: u64 = 15_000_000;
/// A partition that was quick for this long no longer stands still.
const BREAK_US: u64 = 500_000;

/// A partition from which nobody received anything for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoodStill {
    pub(super) fault: usize,
    pub(super) from_us: u64,
    pub(super) to_us: u64,
}

/// Which partitions stood still because of what was done to a router.
pub(super) fn stood_still(
    index: &Index<'_>,
    ways: &[Way<'_>],
    limits: &Limits,
) -> HashMap<u32, Vec<StoodStill>> {
    // Each event's quickest way to a client that was connected.
    let mut quickest: HashMap<&str, &Way<'_>> = HashMap::new();
    for way in ways.iter().filter(|way| way.cause.is_none()) {
        let best = quickest.entry(way.key).or_insert(way);
        if way.to_us < best.to_us {
            *best = way;
        }
    }
    let slow: Vec<&Way<'_>> = quickest
        .into_values()
        .filter(|way| way.to_us.saturating_sub(way.from_us) > limits.elsewhere_ms_limit * 1_000)
        .collect();
    let mut all: HashMap<u32, Vec<StoodStill>> = HashMap::new();
    let routers = &index.run.cluster.routers;
    for (fault, _, _, at_us, _, serving) in
        absences(index).filter(|(_, node, ..)| routers.iter().any(|r| r == node))
    {
        let near = slow.iter().filter(|way| {
            way.from_us + BEFORE_US >= at_us && way.from_us <= at_us + AFTER_US && way.to_us >= at_us
        });
        let mut by_partition: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        for way in near {
            by_partition.entry(way.partition).or_default().push((way.from_us, way.to_us));
        }
        let longest = by_partition.into_iter().filter_map(|(partition, times)| {
            let (from_us, to_us) = longest_stretch(times)?;
            Some((partition, StoodStill { fault, from_us, to_us }))
        });
        let mut longest: Vec<(u32, StoodStill)> = longest.collect();
        longest.sort_by_key(|(_, still)| std::cmp::Reverse(still.to_us - still.from_us));
        let served = serving.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        for (partition, still) in longest.into_iter().take(served) {
            all.entry(partition).or_default().push(still);
        }
    }
    all
}

/// The longest time in which slow events followed each other closely: what is slow now and then has other reasons.
fn longest_stretch(mut times: Vec<(u64, u64)>) -> Option<(u64, u64)> {
    times.sort_unstable();
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for (from_us, to_us) in times {
        match stretches.last_mut() {
            Some((_, end_us)) if from_us <= *end_us + BREAK_US => *end_us = to_us.max(*end_us),
            _ => stretches.push((from_us, to_us)),
        }
    }
    stretches.into_iter().max_by_key(|(from_us, to_us)| to_us - from_us)
}
