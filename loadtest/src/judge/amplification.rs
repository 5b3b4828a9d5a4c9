//! Pushes per event over nodes that wanted it, from counters that were read every second.

use std::collections::BTreeMap;

use crate::history::Sample;

/// The ratio over all routers; none if nothing was counted. A counter that fell began again at nothing, because its process
/// did: what it had counted up to the last sample stays counted.
pub(super) fn of(samples: &[Sample]) -> Option<f64> {
    let mut last: BTreeMap<&str, &Sample> = BTreeMap::new();
    let (mut pushes, mut wanted) = (0, 0);
    for sample in samples {
        if let Some(before) = last.insert(&sample.node, sample) {
            let is_new_process = sample.pushes < before.pushes || sample.wanted < before.wanted;
            let (pushes_before, wanted_before) =
                if is_new_process { (0, 0) } else { (before.pushes, before.wanted) };
            pushes += sample.pushes - pushes_before;
            wanted += sample.wanted - wanted_before;
        }
    }
    (wanted > 0).then(|| pushes as f64 / wanted as f64)
}
