//! Members served over the network, and the tasks that speak to them.

mod harness;
mod refusals;

use tidegate_registry::{Count, Current, Found, Transports};
use tidegate_vocab::Incarnation;

use crate::harness::{Members, announcer, count, eventually, figure, locator, user};

const NODE: Incarnation = Incarnation(77);

fn nodes(found: &Found) -> Vec<Incarnation> {
    found.location.places.iter().map(|place| place.node).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_found_by_either_replica_and_gone_after_a_goodbye() {
    let mut members = Members::start(2).await;
    let list = members.list();
    let (node, figures) = announcer(NODE, "10.0.0.1:1", list.clone());
    let (router, _) = locator(list);
    node.count(user("alice"), Count { transports: Transports::SSE, ..count(2) }).await;
    let current = node.current();
    eventually("both members are current", || current.borrow().len() == 2).await;
    let word = current.borrow().clone();
    router.node_says(NODE, word).await;
    assert_eq!(figure(&figures, "tidegate_registry_announced_subjects"), 1.0);
    let has_shown = || figure(&figures, "tidegate_registry_members_current") == 2.0;
    eventually("the figures are shown", has_shown).await;

    let found = router.locate(vec![user("alice"), user("bob")]).await.expect("answers");
    assert_eq!(nodes(&found[0]), [NODE]);
    let state = found[0].location.places[0].state;
    assert_eq!((state.connections, state.transports), (2, Transports::SSE));
    assert!(state.since_s > 1_700_000_000, "{state:?}");
    assert!(found[0].also.is_empty() && found[1] == Found::default(), "{found:?}");

    // A crashed member changes no ring: the other answers.
    members.stop(0).await;
    let found = router.locate(vec![user("alice")]).await.expect("answers");
    assert_eq!(nodes(&found[0]), [NODE]);
    // With both gone, the node itself is to be asked.
    members.stop(1).await;
    let found = router.locate(vec![user("alice")]).await.expect("answers");
    assert_eq!((nodes(&found[0]), &found[0].also[..]), (vec![], &[NODE][..]));

    // A member that comes back is another one, until the node says that it is current.
    members.restart(0).await;
    let is_new = |current: &Current| current.member == Incarnation(3);
    eventually("the node lists the new one", || current.borrow().iter().any(is_new)).await;
    let found = router.locate(vec![user("alice")]).await.expect("answers");
    assert_eq!(found[0].also[..], [NODE]);
    assert!(figure(&figures, "tidegate_registry_announce_redials_total") >= 1.0);
    assert_eq!(figure(&figures, "tidegate_registry_ring_members"), 2.0);

    let table = members.handle(0).table().clone();
    assert_eq!(table.locate(&[user("alice")])[0].places.len(), 1);
    node.goodbye().await;
    eventually("a goodbye ends all at once", || table.locate(&[user("alice")])[0].places.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_change_is_announced_under_both() {
    let members = Members::start(3).await;
    let mut list = members.list();
    let third = list.members.pop().expect("three");
    let (node, _) = announcer(NODE, "", list.clone());
    let (router, _) = locator(list.clone());
    for number in 0..3_000 {
        node.count(user(&format!("user-{number}")), count(1)).await;
    }
    let current = node.current();
    let is_told = |members: usize, digest: u64| {
        let of = current.borrow().iter().filter(|current| current.digest == digest).count();
        of == members
    };
    let old = *router.digest().borrow();
    eventually("two members are current", || is_told(2, old)).await;
    node.routers_speak(vec![old]).await;

    list.version += 1;
    list.members.push(third);
    node.set_members(list.clone()).await.expect("a ring");
    let new = list.ring().expect("a ring").digest();
    eventually("three are current under the new", || is_told(3, new)).await;
    assert!(is_told(2, old), "while a router speaks the old one, so does the node");
    router.set_members(list).await.expect("a ring");
    let word = current.borrow().clone();
    router.node_says(NODE, word).await;
    let users: Vec<_> = (0..3_000).map(|number| user(&format!("user-{number}"))).collect();
    let found = router.locate(users.clone()).await.expect("answers");
    assert!(found.iter().all(|found| nodes(found) == [NODE] && found.also.is_empty()));

    node.routers_speak(vec![new]).await;
    eventually("the old one is dropped", || current.borrow().len() == 3).await;
    let stored = || (0..3).map(|member| members.handle(member).table().stored()).sum::<usize>();
    eventually("every user is at two members", || stored() == 6_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_that_share_calls_get_their_own_answers() {
    let members = Members::start(2).await;
    let list = members.list();
    let (node, _) = announcer(NODE, "", list.clone());
    let (router, figures) = locator(list);
    for number in 0..500 {
        node.count(user(&format!("user-{number}")), count(number + 1)).await;
    }
    let current = node.current();
    eventually("both members are current", || current.borrow().len() == 2).await;
    let word = current.borrow().clone();
    router.node_says(NODE, word).await;
    let lookups = (0..2_000_u32).map(|lookup| {
        let (router, number) = (router.clone(), lookup % 1_000);
        tokio::spawn(async move {
            let found = router.locate(vec![user(&format!("user-{number}")), user("nobody")]).await;
            (number, found.expect("answers"))
        })
    });
    for lookup in futures::future::join_all(lookups).await {
        let (number, found) = lookup.expect("no panic");
        // One that was late may have gone to all nodes; what a member said of it is true all the same.
        let places = &found[0].location.places;
        let counts: Vec<u32> = places.iter().map(|place| place.state.connections).collect();
        let is_exact = found[0].also.is_empty();
        assert!(
            counts == [number + 1] || (counts.is_empty() && (number >= 500 || !is_exact)),
            "{number}: {found:?}"
        );
        assert!(found[1].location.places.is_empty(), "{found:?}");
    }
    assert_eq!(figure(&figures, "tidegate_registry_lookups_total"), 2_000.0);
    let sum = |name: &str| members.figure(0, name) + members.figure(1, name);
    let (calls, keys) =
        (sum("tidegate_registry_lookup_calls_total"), sum("tidegate_registry_lookup_keys_total"));
    assert!(calls < 2_000.0 && keys >= 2_000.0, "{keys} keys in {calls} calls");
}
