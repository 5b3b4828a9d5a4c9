//! Members served over the network, and the tasks that speak to them.

mod harness;
mod refusals;

use tidegate_registry::client::{AnnounceTask, LocateTask};
use tidegate_registry::{Count, Current, Found, Transports};
use tidegate_vocab::Incarnation;

use crate::harness::{KEY, Members, count, eventually, user};

const NODE: Incarnation = Incarnation(77);

fn nodes(found: &Found) -> Vec<Incarnation> {
    found.location.places.iter().map(|place| place.node).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_found_by_either_replica_and_gone_after_a_goodbye() {
    let mut members = Members::start(2).await;
    let list = members.list();
    let (node, _) =
        AnnounceTask::spawn(NODE, "10.0.0.1:1".to_owned(), list.clone(), Some(KEY())).expect("a ring");
    let (router, _) = LocateTask::spawn(list, Some(KEY())).expect("a ring");
    node.count(user("alice"), Count { transports: Transports::SSE, ..count(2) }).await;
    let current = node.current();
    eventually("both members are current", || current.borrow().len() == 2).await;
    let word = current.borrow().clone();
    router.node_says(NODE, word).await;

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
    let (node, _) = AnnounceTask::spawn(NODE, String::new(), list.clone(), Some(KEY())).expect("a ring");
    let (router, _) = LocateTask::spawn(list.clone(), Some(KEY())).expect("a ring");
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
