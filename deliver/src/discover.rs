//! Which routers there are: names, looked up every second.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_link::{RouterLink, Routers};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::client::Dialer;

/// Pause between two lookups of the same name.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);
/// Time in which a lookup is answered, or counts as failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

type Links = BTreeMap<String, Arc<dyn RouterLink>>;

/// Looks these names (`host:port`) up every second until nobody watches any more. Every address found is one router;
/// where a name has addresses of both families only those of IPv4 count, since a router has one of each. A name that
/// does not resolve keeps its last known addresses. Must be called within a tokio runtime.
#[must_use]
pub fn discover(names: Vec<String>, dialer: Dialer) -> Routers {
    let (routers, watching) = watch::channel(BTreeMap::new());
    let names = names.into_iter().map(|name| (name, Found::default())).collect();
    tokio::spawn(Discovery { names, dialer, routers }.run());
    watching
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Found {
    addresses: BTreeSet<SocketAddr>,
    is_failing: bool,
}

struct Discovery {
    names: BTreeMap<String, Found>,
    dialer: Dialer,
    routers: watch::Sender<Links>,
}

impl Discovery {
    async fn run(mut self) {
        let closed = self.routers.clone();
        let mut ticks = tokio::time::interval(LOOKUP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = closed.closed() => return,
                _ = ticks.tick() => self.look().await,
            }
        }
    }

    async fn look(&mut self) {
        for (name, found) in &mut self.names {
            let looked_up =
                tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(name.as_str())).await;
            let addresses: BTreeSet<SocketAddr> = match looked_up {
                Ok(Ok(addresses)) => one_family(addresses.collect()),
                Ok(Err(_)) | Err(_) => BTreeSet::new(),
            };
            if addresses.is_empty() {
                self.dialer.metrics.lookup_failures.inc();
                if !found.is_failing {
                    tracing::warn!(%name, known = found.addresses.len(), "router name does not resolve; what was known stays");
                }
                found.is_failing = true;
                continue;
            }
            if found.is_failing {
                tracing::info!(%name, "router name resolves again");
            }
            *found = Found { addresses, is_failing: false };
        }
        self.publish();
    }

    /// One link per address, kept for as long as the address is named.
    fn publish(&mut self) {
        let named: BTreeMap<String, SocketAddr> = self
            .names
            .values()
            .flat_map(|found| &found.addresses)
            .map(|address| (address.to_string(), *address))
            .collect();
        let dialer = &self.dialer;
        self.routers.send_if_modified(|links| {
            let before = links.len();
            links.retain(|address, _| named.contains_key(address));
            let gone = before - links.len();
            let kept = links.len();
            for (text, address) in &named {
                links.entry(text.clone()).or_insert_with(|| dialer.remote(*address));
            }
            let new = links.len() - kept;
            if gone + new > 0 {
                tracing::info!(new, gone, routers = links.len(), "routers changed");
            }
            gone + new > 0
        });
        self.dialer.metrics.routers.set(named.len() as i64);
    }
}

fn one_family(addresses: Vec<SocketAddr>) -> BTreeSet<SocketAddr> {
    let has_v4 = addresses.iter().any(SocketAddr::is_ipv4);
    addresses.into_iter().filter(|address| address.is_ipv4() == has_v4).collect()
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_router_of_both_families_counts_once() {
        let check = |addresses: &[&str], expected: &[&str]| {
            let parse = |list: &[&str]| -> Vec<SocketAddr> {
                list.iter().map(|text| text.parse().expect("an address")).collect()
            };
            assert_eq!(one_family(parse(addresses)), parse(expected).into_iter().collect());
        };
        check(&["[::1]:1", "127.0.0.1:1"], &["127.0.0.1:1"]);
        check(&["[::1]:1", "[::2]:1"], &["[::1]:1", "[::2]:1"]);
        check(&["10.0.0.1:1", "10.0.0.2:1"], &["10.0.0.1:1", "10.0.0.2:1"]);
        check(&[], &[]);
    }

    #[tokio::test]
    async fn names_that_do_not_resolve_keep_what_was_known() {
        let metrics = Metrics::register(&Registry::new()).expect("registers");
        let (routers, watching) = watch::channel(BTreeMap::new());
        let names = ["127.0.0.1:7", "127.0.0.2:7"].map(|name| (name.to_owned(), Found::default()));
        let dialer = Dialer { key: None, metrics: metrics.clone() };
        let mut discovery = Discovery { names: names.into_iter().collect(), dialer, routers };
        discovery.look().await;
        let known: Vec<String> = watching.borrow().keys().cloned().collect();
        assert_eq!(known, ["127.0.0.1:7", "127.0.0.2:7"]);
        let kept = watching.borrow().get("127.0.0.1:7").map(Arc::as_ptr).expect("is there");
        // A name without a port is one that cannot be looked up.
        let found = discovery.names.remove("127.0.0.1:7").expect("is there");
        discovery.names.insert("nowhere".to_owned(), found);
        discovery.look().await;
        discovery.look().await;
        assert_eq!(metrics.lookup_failures.get(), 2);
        assert_eq!(watching.borrow().len(), 2);
        assert!(std::ptr::addr_eq(
            kept,
            watching.borrow().get("127.0.0.1:7").map(Arc::as_ptr).expect("stays")
        ));
        discovery.names.remove("127.0.0.2:7");
        discovery.look().await;
        assert_eq!(watching.borrow().len(), 1);
        assert_eq!(metrics.routers.get(), 1);
    }
}
