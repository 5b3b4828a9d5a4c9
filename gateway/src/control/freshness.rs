//! Until when a node may deliver, from what routers said and when they were asked (TENURES, rule 18).

use std::collections::BTreeMap;

use tidegate_link::ControlStanding;
use tidegate_vocab::limits::CONTROL_FRESH_MS;

/// See the module. Times are milliseconds of the gateway's monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    /// The best that any router that reads the log has vouched for.
    until_ms: u64,
    /// Routers that have read the topic and reach no broker: until when that word counts.
    blind: BTreeMap<String, u64>,
}

impl Freshness {
    /// A router answered what it was asked at `asked_ms`.
    pub(super) fn heard(&mut self, router: &str, asked_ms: u64, standing: ControlStanding) {
        match standing {
            ControlStanding::Blind => _ = self.blind.insert(router.to_owned(), asked_ms + CONTROL_FRESH_MS),
            ControlStanding::Fresh { age_ms } => {
                self.blind.remove(router);
                let until_ms = (asked_ms + CONTROL_FRESH_MS).saturating_sub(age_ms);
                self.until_ms = self.until_ms.max(until_ms);
            }
            ControlStanding::Loading | ControlStanding::More => _ = self.blind.remove(router),
        }
    }

    /// Until when, as things stand. Blind routers count only while all that discovery lists are: one that reaches a
    /// broker could take a revocation that the others do not hear of.
    pub(super) fn until_ms<'a>(&mut self, mut listed: impl Iterator<Item = &'a String> + Clone) -> u64 {
        self.blind.retain(|router, _| listed.clone().any(|name| name == router));
        let is_none = listed.clone().next().is_none();
        let is_all = !is_none && listed.all(|router| self.blind.contains_key(router));
        let blind = if is_all { self.blind.values().copied().min().unwrap_or(0) } else { 0 };
        self.until_ms.max(blind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: ControlStanding = ControlStanding::Fresh { age_ms: 300 };

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_word_counts_from_when_it_was_asked_for_less_its_own_age() {
        let mut freshness = Freshness::default();
        assert_eq!(freshness.until_ms(names(&["a"]).iter()), 0);
        freshness.heard("a", 10_000, FRESH);
        assert_eq!(freshness.until_ms(names(&["a"]).iter()), 13_700);
    }

    #[test]
    fn the_freshest_router_decides_and_a_worse_word_takes_nothing_back() {
        let mut freshness = Freshness::default();
        freshness.heard("a", 10_000, FRESH);
        freshness.heard("b", 10_500, ControlStanding::Fresh { age_ms: 9_000 });
        freshness.heard("a", 11_000, ControlStanding::Loading);
        assert_eq!(freshness.until_ms(names(&["a", "b"]).iter()), 13_700);
        freshness.heard("b", 12_000, FRESH);
        assert_eq!(freshness.until_ms(names(&["a", "b"]).iter()), 15_700);
    }

    #[test]
    fn what_is_older_than_it_may_be_vouches_for_nothing() {
        let mut freshness = Freshness::default();
        freshness.heard("a", 1_000, ControlStanding::Fresh { age_ms: u64::MAX });
        assert_eq!(freshness.until_ms(names(&["a"]).iter()), 0);
    }

    #[test]
    fn blind_routers_vouch_only_all_together() {
        let mut freshness = Freshness::default();
        let (both, one) = (names(&["a", "b"]), names(&["a"]));
        freshness.heard("a", 10_000, ControlStanding::Blind);
        assert_eq!(freshness.until_ms(both.iter()), 0, "b may reach a broker");
        freshness.heard("b", 11_000, ControlStanding::Blind);
        assert_eq!(freshness.until_ms(both.iter()), 14_000, "the older word decides");
        freshness.heard("b", 12_000, FRESH);
        assert_eq!(freshness.until_ms(both.iter()), 15_700, "it sees again");
        assert_eq!(freshness.until_ms(one.iter()), 15_700);
        assert_eq!(freshness.until_ms([].iter()), 15_700, "discovery lists none: nothing new is vouched for");
    }

    #[test]
    fn a_blind_router_that_is_no_longer_listed_does_not_count() {
        let mut freshness = Freshness::default();
        freshness.heard("a", 10_000, ControlStanding::Blind);
        freshness.heard("b", 11_000, ControlStanding::Blind);
        assert_eq!(freshness.until_ms(names(&["b"]).iter()), 15_000);
        assert_eq!(freshness.until_ms(names(&["a", "b"]).iter()), 0, "it has to say so anew");
    }
}
