use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The reference: a sorted map of points, each the hash of the one before it; replicas walk on from the key's hash,
/// which is hashed again for each further one.
struct Reference(BTreeMap<u64, MemberId>);

impl Reference {
    fn build(members: &[(MemberId, u32)]) -> Self {
        let mut points = BTreeMap::new();
        for (member, weight) in members {
            let mut point = xxh3_64(&member.0.to_le_bytes());
            for _ in 0..*weight as usize * VIRTUAL_NODES {
                points.insert(point, *member);
                point = xxh3_64(&point.to_le_bytes());
            }
        }
        Self(points)
    }

    fn replicas(&self, key: &str, count: usize, members: usize) -> Vec<MemberId> {
        let mut hash = xxh3_64(&xxh3_64(key.as_bytes()).to_le_bytes());
        let mut found: Vec<MemberId> = Vec::new();
        while found.len() < count.min(members) {
            let on = self.0.range(hash..).chain(self.0.range(..hash)).map(|(_, member)| *member);
            let next =
                on.into_iter().find(|member| !found.contains(member)).expect("more members than found");
            found.push(next);
            hash = xxh3_64(&hash.to_le_bytes());
        }
        found
    }
}

fn members(count: u32) -> Vec<(MemberId, u32)> {
    (0..count).map(|member| (MemberId(member), 1)).collect()
}

fn primary(ring: &Ring, key: u32) -> MemberId {
    ring.replicas(&format!("user-{key}"), 1).next().expect("a member")
}

#[test]
fn bad_member_lists() {
    let check = |members: &[(MemberId, u32)], error| assert_eq!(Ring::build(members).err(), Some(error));
    check(&[], RingError::Empty);
    check(&[(MemberId(1), 1), (MemberId(1), 2)], RingError::Twice(MemberId(1)));
    check(&[(MemberId(1), 0)], RingError::Weight(MemberId(1)));
    check(&[(MemberId(1), 17)], RingError::Weight(MemberId(1)));
    check(&members(257), RingError::TooManyMembers);
}

/// The crate's default hash puts 78 % of `user-i` and `user-i+1` on one of ten members; a fair one puts 10 % there.
#[test]
fn adjacent_ids_do_not_cling_together() {
    let ring = Ring::build(&members(10)).expect("valid");
    let together = (0..10_000).filter(|key| primary(&ring, *key) == primary(&ring, key + 1)).count();
    assert!((700..1_400).contains(&together), "{together} of 10000");
}

#[test]
fn keys_spread_and_little_moves() {
    let (before, after) =
        (Ring::build(&members(10)).expect("valid"), Ring::build(&members(11)).expect("valid"));
    let mut counts = BTreeMap::new();
    let mut moved = 0;
    for key in 0..20_000 {
        let (old, new) = (primary(&before, key), primary(&after, key));
        *counts.entry(old).or_insert(0) += 1;
        moved += usize::from(old != new);
        assert!(old == new || new == MemberId(10), "a key only moves to the new member");
    }
    assert!(counts.values().all(|count| (1_400..2_700).contains(count)), "{counts:?}");
    assert!(moved as f64 <= 20_000.0 / 11.0 * 1.25, "{moved} moved");
}

/// Both directions of a change: no more than 1.25 of the fair share of primaries moves, and only to or from that member.
#[test]
fn a_member_more_or_less_moves_its_share() {
    for count in [3, 4, 6, 10] {
        let (small, large) =
            (Ring::build(&members(count)).expect("valid"), Ring::build(&members(count + 1)).expect("valid"));
        let keys = 40_000;
        let moved = (0..keys).filter(|key| primary(&small, *key) != primary(&large, *key));
        let moved: Vec<u32> = moved.collect();
        assert!(
            moved.iter().all(|key| primary(&large, *key) == MemberId(count)),
            "only to the member that came"
        );
        let most = f64::from(keys) / f64::from(count + 1) * 1.25;
        assert!(moved.len() as f64 <= most, "{} of {keys} moved, {most} at most", moved.len());
    }
}

proptest! {
    #[test]
    fn replicas_are_distinct_members(count in 2_u32..9, keys in proptest::collection::vec("[a-z]{1,12}", 1..40)) {
        let ring = Ring::build(&members(count)).expect("valid");
        for key in keys {
            let found: Vec<_> = ring.replicas(&key, REPLICAS).collect();
            prop_assert!(found.len() == REPLICAS && found[0] != found[1], "{:?}", found);
            prop_assert!(found.iter().all(|member| member.0 < count));
        }
    }

    #[test]
    fn the_ring_agrees_with_the_reference(
        list in proptest::collection::btree_map(0_u32..1000, 1_u32..4, 1..12), keys in proptest::collection::vec("[a-z]{1,12}", 1..40), count in 1_usize..4,
    ) {
        let list: Vec<_> = list.into_iter().map(|(member, weight)| (MemberId(member), weight)).collect();
        let ring = Ring::build(&list).expect("valid");
        let reference = Reference::build(&list);
        for key in keys {
            let found: Vec<_> = ring.replicas(&key, count).collect();
            prop_assert_eq!(found, reference.replicas(&key, count, list.len()));
        }
    }

    #[test]
    fn equal_lists_have_equal_digests(mut list in proptest::collection::vec((0_u32..50, 1_u32..4), 1..8)) {
        list.sort_unstable();
        list.dedup_by_key(|(member, _)| *member);
        let list: Vec<_> = list.into_iter().map(|(member, weight)| (MemberId(member), weight)).collect();
        let reversed: Vec<_> = list.iter().rev().copied().collect();
        let digest = |list: &[(MemberId, u32)]| Ring::build(list).expect("valid").digest();
        prop_assert_eq!(digest(&list), digest(&reversed));
        let mut other = list.clone();
        other[0].1 += 1;
        prop_assert_ne!(digest(&list), digest(&other));
    }
}
