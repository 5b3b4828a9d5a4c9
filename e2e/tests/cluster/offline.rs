//! Who comes and who goes is said once and truly, also after a kill.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidegate_e2e::{Cluster, Follow, Follower, Node, Shape, Transport};
use tidegate_proto::presence::v1::change::Subject;
use tidegate_proto::presence::v1::presence_client::PresenceClient;
use tidegate_proto::presence::v1::watch_response::Item;
use tidegate_proto::presence::v1::{Change, State, WatchRequest, WatchResponse};
use tonic::Streaming;

use crate::in_time;

/// A node is believed for so long after its last word.
const LEASE: Duration = Duration::from_secs(3);
const DEBOUNCE: Duration = Duration::from_secs(1);
const USERS: usize = 12;

/// Every change in its order: subject and whether somebody is there.
type Said = Vec<(String, bool)>;

async fn watch(router: &Node) -> Streaming<WatchResponse> {
    let mut client = PresenceClient::connect(format!("http://{}", router.api())).await.expect("connects");
    let request = WatchRequest { from_start: true, subjects: 0 };
    client.watch(request).await.expect("let in").into_inner()
}

fn subject(change: &Change) -> String {
    match change.subject.as_ref().expect("a subject") {
        Subject::User(user) => format!("user:{user}"),
        Subject::Channel(channel) => channel.clone(),
    }
}

/// What the topic says from its start on, until each of these subjects is in the state that is named.
async fn until(watch: &mut Streaming<WatchResponse>, said: &mut Said, wanted: &[(String, bool)]) {
    let mut now: BTreeMap<String, bool> = said.iter().cloned().collect();
    while !wanted.iter().all(|(subject, state)| now.get(subject) == Some(state)) {
        let response = in_time(watch.message()).await.expect("the watch goes on").expect("and does not end");
        if let Some(Item::Change(change)) = response.item {
            let is_there = change.state() == State::Online;
            now.insert(subject(&change), is_there);
            said.push((subject(&change), is_there));
        }
    }
}

async fn open(gateway: &Node, user: usize, room: &str) -> Follower {
    let transport = [Transport::WebSocket, Transport::Sse, Transport::Ndjson][user % 3];
    let follow = Follow::channels([room]).user(&format!("u{user}"));
    let mut client = Follower::open(gateway.public(), transport, &follow).await;
    client.state().await;
    client
}

fn users(numbers: impl Iterator<Item = usize>, is_there: bool) -> Said {
    numbers.map(|number| (format!("user:u{number}"), is_there)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_is_said_of_exactly_the_users_of_a_gateway_that_was_killed() {
    let debounce = format!("{}ms", DEBOUNCE.as_millis());
    let shape = Shape::new("offline").gateways(3).members(3);
    let shape = shape.set("presence.channels", true).set("registry.debounce", debounce);
    let mut cluster = Cluster::start(shape).await;
    // Every third is on each gateway; those of gateway 0 follow a room of their own, and one of them is on gateway 1 too.
    let mut clients = Vec::new();
    for user in 0..USERS {
        let room = if user % 3 == 0 { "room:0" } else { "room:1" };
        clients.push(open(&cluster.gateways[user % 3], user, room).await);
    }
    clients.push(open(&cluster.gateways[1], 0, "room:1").await);
    let (mut watching, mut said) = (watch(&cluster.routers[0]).await, Said::new());
    let rooms = [("room:0".to_owned(), true), ("room:1".to_owned(), true)];
    let mut all = users(0..USERS, true);
    all.extend(rooms);
    until(&mut watching, &mut said, &all).await;
    said.sort();
    all.sort();
    assert_eq!(said, all, "each came once");
    said.clear();

    let killed = Instant::now();
    cluster.gateways[0].kill9();
    let mut gone = users((3..USERS).step_by(3), false);
    gone.push(("room:0".to_owned(), false));
    until(&mut watching, &mut said, &gone).await;
    let took = killed.elapsed();
    eprintln!("offline {took:?} after the kill; the lease has {LEASE:?}, the debounce {DEBOUNCE:?}");
    // A lease counts from the last word, which may have been a second old.
    assert!(took + Duration::from_millis(1_500) > LEASE + DEBOUNCE, "not before lease and debounce");
    assert!(took < LEASE + DEBOUNCE + Duration::from_secs(10), "right after them");

    // A member that dies and comes back says nothing anew, and misses nobody who leaves meanwhile.
    for member in &mut cluster.members.nodes {
        member.kill9();
        member.exit_code().await;
        member.spawn_again();
        member.wait_until_ready().await;
    }
    drop(clients.remove(1)); // u1, on gateway 1.
    let late = open(&cluster.gateways[2], 99, "room:1").await;
    gone.extend([("user:u1".to_owned(), false), ("user:u99".to_owned(), true)]);
    until(&mut watching, &mut said, &gone).await;
    said.sort();
    said.dedup(); // A repeat of what was in flight when a member died is allowed; another word is not.
    gone.sort();
    assert_eq!(said, gone, "of these and of nobody else");

    // Whoever reads from the start finds the same, at the other router.
    let (mut again, mut from_start) = (watch(&cluster.routers[1]).await, Said::new());
    until(&mut again, &mut from_start, &gone).await;
    let online: Vec<String> = from_start
        .into_iter()
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .filter(|(_, there)| *there)
        .map(|it| it.0)
        .collect();
    let mut expected: Vec<String> = users((0..USERS).filter(|user| user % 3 != 0 && *user != 1), true)
        .into_iter()
        .map(|it| it.0)
        .chain(["user:u0".to_owned(), "user:u99".to_owned(), "room:1".to_owned()])
        .collect();
    expected.sort();
    assert_eq!(online, expected);
    drop((clients, late));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_offline_who_comes_back_within_the_debounce() {
    let shape = Shape::new("debounced").gateways(2).members(3).set("registry.debounce", "3s");
    let cluster = Cluster::start(shape).await;
    let mut clients = Vec::new();
    for user in 0..USERS {
        clients.push(open(&cluster.gateways[0], user, "room:1").await);
    }
    let (mut watching, mut said) = (watch(&cluster.routers[0]).await, Said::new());
    until(&mut watching, &mut said, &users(0..USERS, true)).await;
    said.clear();
    cluster.gateways[0].kill9();
    drop(clients);
    let mut back = Vec::new();
    for user in 1..USERS {
        back.push(open(&cluster.gateways[1], user, "room:1").await);
    }
    // User 0 stays away, and somebody who leaves later is offline later than all who would have been by the kill.
    until(&mut watching, &mut said, &users(0..1, false)).await;
    let last = open(&cluster.gateways[1], 50, "room:1").await;
    until(&mut watching, &mut said, &users(50..51, true)).await;
    drop(last);
    until(&mut watching, &mut said, &users(50..51, false)).await;
    let mut expected = users(0..1, false);
    expected.extend([("user:u50".to_owned(), true), ("user:u50".to_owned(), false)]);
    assert_eq!(said, expected, "of nobody who came back");
    drop(back);
}
