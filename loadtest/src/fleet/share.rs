//! Which connections of a group are a worker's.
//!
//! A worker's are those of as few gateways as can be: pings that a gateway sends together are answered together, which on one machine
//! is one wake of either side and not one for each ping.

use std::ops::Range;

/// The numbers of the `part`th of `parts` equal shares, ascending; connection `i` goes to gateway `i % gateways`.
pub(super) fn share(connections: u64, gateways: u64, part: u64, parts: u64) -> Vec<u64> {
    let places = places(connections, part, parts);
    let mut numbers: Vec<u64> = places.map(|place| number_at(connections, gateways.max(1), place)).collect();
    numbers.sort_unstable();
    numbers
}

/// Where the share stands when the first gateway's connections come first, then the second's.
pub(super) fn places(connections: u64, part: u64, parts: u64) -> Range<u64> {
    let at = |part: u64| (u128::from(connections) * u128::from(part) / u128::from(parts.max(1))) as u64;
    at(part)..at(part + 1)
}

/// The number in this place.
fn number_at(connections: u64, gateways: u64, place: u64) -> u64 {
    // The first `more` gateways have one connection more than the others.
    let (each, more) = (connections / gateways, connections % gateways);
    let of_those = more * (each + 1);
    let (gateway, row) = if place < of_those {
        (place / (each + 1), place % (each + 1))
    } else {
        (more + (place - of_those) / each, (place - of_those) % each)
    };
    row * gateways + gateway
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn shares_are_equal_and_together_all() {
        for (connections, gateways, parts) in [(1_000, 53, 51), (7, 53, 3), (5, 1, 8), (100, 6, 6), (0, 2, 2)]
        {
            let shares: Vec<_> = (0..parts).map(|part| share(connections, gateways, part, parts)).collect();
            let all: BTreeSet<u64> = shares.iter().flatten().copied().collect();
            assert_eq!(all, (0..connections).collect(), "{connections} over {gateways} in {parts}");
            let sizes = || shares.iter().map(Vec::len);
            assert_eq!(sizes().sum::<usize>() as u64, connections, "none twice");
            assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1, "{shares:?}");
        }
    }

    #[test]
    fn a_share_is_of_few_gateways() {
        for part in 0..51 {
            let share = share(1_000_000, 53, part, 51);
            assert!(share.is_sorted());
            let gateways: BTreeSet<u64> = share.iter().map(|number| number % 53).collect();
            assert!(gateways.len() <= 3, "{gateways:?}");
        }
        assert_eq!(share(12, 3, 0, 2), [0, 1, 3, 4, 6, 9], "the first gateway's and half of the second's");
    }
}
