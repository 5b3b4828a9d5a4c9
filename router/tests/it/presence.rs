//! Who is online, from a node's word to the topic, and back to members and backends.

mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use prost::Message as _;
use tidegate_eventlog::{AppendError, Assignment, EventLog as _};
use tidegate_proto::log::v1 as proto;
use tidegate_proto::log::v1::presence::Subject;
use tidegate_proto::log::v1::record::Body;
use tidegate_proto::presence::v1 as wire;
use tidegate_proto::presence::v1::presence_client::PresenceClient;
use tidegate_proto::presence::v1::watch_response::Item;
use tidegate_vocab::{Incarnation, Offset, PartitionId, Topic};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::faulty_log::AppendFault;
use crate::harness::{PATIENCE, TestRouter, eventually};
use crate::http::request;
use members::TestMembers;

const PRESENCE: PartitionId = PartitionId { topic: Topic::Presence, number: 0 };

/// A record of the topic: subject, whether it is there, and who said so under which number.
type Said = (String, bool, Incarnation, u64);

async fn said(router: &TestRouter) -> Vec<Said> {
    let mut said = Vec::new();
    let mut next = Offset(0);
    loop {
        let rows = router.log.read(PRESENCE, next, 1000, 1 << 20).await.expect("readable");
        let Some(last) = rows.last() else { return said };
        next = last.offset.next();
        for row in rows {
            let Some(Body::Presence(body)) = proto::Record::decode(row.value).expect("a record").body else {
                panic!("no presence");
            };
            let subject = match body.subject.clone().expect("a subject") {
                Subject::User(id) => format!("user:{id}"),
                Subject::Channel(name) => name,
            };
            assert_eq!(row.key, subject.as_bytes(), "the topic is compacted by it");
            let emitter = Incarnation(u128::from_be_bytes(body.emitter[..].try_into().expect("16 bytes")));
            said.push((subject, body.state() == proto::PresenceState::Online, emitter, body.number));
        }
    }
}

/// Repeats left out, they have the same number; then the last that was said of each.
fn states(said: &[Said]) -> BTreeMap<String, bool> {
    said.iter().map(|(subject, is_online, ..)| (subject.clone(), *is_online)).collect()
}

fn without_repeats(said: &[Said]) -> Vec<(String, bool)> {
    let mut seen = BTreeSet::new();
    let first = |said: &&Said| seen.insert((said.2.0, said.3));
    said.iter().filter(first).map(|(subject, is_online, ..)| (subject.clone(), *is_online)).collect()
}

/// Waits until the topic says this of these subjects.
async fn until(router: &TestRouter, wanted: &[(&str, bool)]) -> Vec<Said> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = said(router).await;
        let states = states(&said);
        if wanted.iter().all(|(subject, is_online)| states.get(*subject) == Some(is_online)) {
            return said;
        }
        assert!(Instant::now() < deadline, "not in time: {wanted:?} in {said:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn metric_becomes(router: &TestRouter, name: &str, wanted: impl Fn(f64) -> bool) {
    eventually(name, || wanted(router.metric(name)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_s_death_is_offline_for_all_whom_it_had_and_each_is_said_once() {
    let directory = tempfile::tempdir().expect("directory");
    let members = TestMembers::start(2).await;
    let (_lists, list) = members.lists();
    let router = TestRouter::open_with(directory.path(), |config| config.registry = Some(list)).await;
    metric_becomes(&router, "tidegate_presence_streams", |streams| streams == 2.0).await;
    let (first, second) = (members.node(1), members.node(2));
    for subject in ["user:alice", "user:bob", "room:1"] {
        first.has(subject, 1).await;
    }
    second.has("user:bob", 2).await;
    until(&router, &[("user:alice", true), ("user:bob", true), ("room:1", true)]).await;
    second.has("user:carol", 1).await;
    until(&router, &[("user:carol", true)]).await;
    second.has("user:carol", 0).await;
    until(&router, &[("user:carol", false)]).await;
    first.die().await;
    let said = until(&router, &[("user:alice", false), ("room:1", false), ("user:bob", true)]).await;
    assert_eq!(said.len(), 7, "{said:?}");
    assert_eq!(without_repeats(&said).len(), 7, "{said:?}");
    metric_becomes(&router, "tidegate_presence_appended_total", |appended| appended == 7.0).await;
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_restarts_says_only_what_is_new() {
    let directory = tempfile::tempdir().expect("directory");
    let mut members = TestMembers::start(2).await;
    let (_lists, list) = members.lists();
    let router = TestRouter::open_with(directory.path(), |config| config.registry = Some(list)).await;
    let node = members.node(1);
    let users: Vec<String> = (0..20).map(|number| format!("user:{number}")).collect();
    for user in &users {
        node.has(user, 1).await;
    }
    let wanted: Vec<_> = users.iter().map(|user| (user.as_str(), true)).collect();
    let before = until(&router, &wanted).await;
    assert!(users.iter().any(|user| members.primary(user) == 0), "one of them is its own");
    let restarted = members.restart(0).await;
    // It speaks once it says this; whatever else it had to say it has said by then.
    let late = (0..).map(|number| format!("user:late-{number}")).find(|user| members.primary(user) == 0);
    let late = late.expect("one of them");
    node.has(&late, 1).await;
    let said = until(&router, &[(&late, true)]).await;
    let by_it: Vec<_> = said.iter().filter(|said| said.2 == restarted).collect();
    assert!(matches!(by_it[..], [(subject, true, ..)] if *subject == late), "{by_it:?}");
    assert_eq!(said.len(), before.len() + 1);
    // And it knows who is online: they go offline by its word.
    node.die().await;
    let wanted: Vec<_> = users.iter().map(|user| (user.as_str(), false)).collect();
    until(&router, &wanted).await;
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_while_no_router_holds_the_streams_is_said_later() {
    let directory = tempfile::tempdir().expect("directory");
    let members = TestMembers::start(2).await;
    let (_lists, list) = members.lists();
    let open = || TestRouter::open_with(directory.path(), |config| config.registry = Some(list.clone()));
    let router = open().await;
    let node = members.node(1);
    for number in 0..10 {
        node.has(&format!("user:stays-{number}"), 1).await;
        node.has(&format!("user:leaves-{number}"), 1).await;
    }
    let all = (0..10).flat_map(|number| [format!("user:stays-{number}"), format!("user:leaves-{number}")]);
    let all: Vec<_> = all.collect();
    until(&router, &all.iter().map(|user| (user.as_str(), true)).collect::<Vec<_>>()).await;
    router.close().await;
    for number in 0..10 {
        node.has(&format!("user:leaves-{number}"), 0).await;
        node.has(&format!("user:comes-{number}"), 1).await;
    }
    let router = open().await;
    let mut wanted = Vec::new();
    for number in 0..10 {
        wanted.push((format!("user:stays-{number}"), true));
        wanted.push((format!("user:leaves-{number}"), false));
        wanted.push((format!("user:comes-{number}"), true));
    }
    let wanted: Vec<_> = wanted.iter().map(|(user, is_online)| (user.as_str(), *is_online)).collect();
    let said = until(&router, &wanted).await;
    assert_eq!(without_repeats(&said).len(), 40, "{said:?}");
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_append_is_repeated_and_another_owner_takes_the_streams() {
    let directory = tempfile::tempdir().expect("directory");
    let members = TestMembers::start(2).await;
    let (lists, list) = members.lists();
    let (router, faults) =
        TestRouter::open_faulty_with(directory.path(), |config| config.registry = Some(list)).await;
    let node = members.node(1);
    node.has("user:first", 1).await;
    until(&router, &[("user:first", true)]).await;
    let reason = || "told to fail".to_owned();
    for error in
        [AppendError::Indeterminate { reason: reason() }, AppendError::Unavailable { reason: reason() }]
    {
        let failures = router.metric("tidegate_presence_append_failures_total");
        *faults.append.lock().expect("lock") = Some(AppendFault::Fails(error));
        let subject = format!("user:after-{failures}");
        node.has(&subject, 1).await;
        metric_becomes(&router, "tidegate_presence_append_failures_total", |now| now > failures).await;
        *faults.append.lock().expect("lock") = None;
        until(&router, &[(&subject, true)]).await;
    }
    // A topic that is made anew is read anew.
    faults.epoch.store(1, std::sync::atomic::Ordering::SeqCst);
    node.has("user:second", 1).await;
    until(&router, &[("user:second", true)]).await;
    // Whoever does not own the partition that decides has no streams.
    let decides = PartitionId { topic: Topic::Events, number: 0 };
    let assign = faults.assign.lock().expect("lock").clone().expect("assignments are taken");
    metric_becomes(&router, "tidegate_presence_streams", |streams| streams == 2.0).await;
    assign.send(Assignment::Revoked(decides)).await.expect("the router listens");
    metric_becomes(&router, "tidegate_presence_streams", |streams| streams == 0.0).await;
    assign.send(Assignment::Assigned(decides)).await.expect("the router listens");
    metric_becomes(&router, "tidegate_presence_streams", |streams| streams == 2.0).await;
    // Nor does anybody to a member that the list has no more.
    let mut elsewhere = lists.borrow().clone();
    elsewhere.members[0].address = "127.0.0.1:1".into();
    lists.send_replace(elsewhere);
    metric_becomes(&router, "tidegate_presence_streams", |streams| streams == 1.0).await;
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_append_in_turns() {
    let directory = tempfile::tempdir().expect("directory");
    let members = TestMembers::start(3).await;
    let (_lists, list) = members.lists();
    let (router, faults) =
        TestRouter::open_faulty_with(directory.path(), |config| config.registry = Some(list)).await;
    *faults.append.lock().expect("lock") = Some(AppendFault::Slow);
    let node = members.node(1);
    let users: Vec<String> = (0..90).map(|number| format!("user:{number}")).collect();
    for user in &users {
        node.has(user, 1).await;
    }
    let wanted: Vec<_> = users.iter().map(|user| (user.as_str(), true)).collect();
    until(&router, &wanted).await;
    {
        let on_their_way = faults.on_their_way.lock().expect("lock");
        assert_eq!(
            (on_their_way.ever.len(), on_their_way.most),
            (3, 1),
            "members, and of them at the same time"
        );
    }
    router.close().await;
}

/// What comes up to the mark, and then the next item.
async fn watched(
    client: &mut PresenceClient<tonic::transport::Channel>,
    request: wire::WatchRequest,
) -> (Vec<wire::Change>, tonic::Streaming<wire::WatchResponse>) {
    let mut stream = client.watch(request).await.expect("watches").into_inner();
    let mut changes = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time");
        match next.expect("no error").expect("no end").item.expect("an item") {
            Item::Change(change) => changes.push(change),
            Item::CaughtUp(_) => return (changes, stream),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_watch_from_the_start_or_from_now_on() {
    let directory = tempfile::tempdir().expect("directory");
    let members = TestMembers::start(1).await;
    let (_lists, list) = members.lists();
    let router = TestRouter::open_with(directory.path(), |config| config.registry = Some(list)).await;
    let address = router.serve().await;
    let mut client = PresenceClient::connect(format!("http://{address}")).await.expect("connects");
    let everything = wire::WatchRequest { from_start: true, ..wire::WatchRequest::default() };
    let (nothing, mut first) = watched(&mut client, everything).await;
    assert!(nothing.is_empty());
    let node = members.node(1);
    node.has("user:alice", 1).await;
    node.has("room:1", 1).await;
    until(&router, &[("user:alice", true), ("room:1", true)]).await;
    let change = first.message().await.expect("no error").expect("no end").item;
    assert!(matches!(change, Some(Item::Change(change)) if change.state() == wire::State::Online));

    let (all, _) = watched(&mut client, everything).await;
    assert_eq!(all.len(), 2);
    let users = wire::WatchRequest { subjects: wire::Subjects::Users.into(), ..everything };
    let (users, _) = watched(&mut client, users).await;
    let alice = wire::change::Subject::User("alice".into());
    assert!(
        matches!(&users[..], [change] if change.subject.as_ref() == Some(&alice) && change.since_s > 1_700_000_000)
    );
    let channels = wire::WatchRequest { subjects: wire::Subjects::Channels.into(), ..everything };
    let (channels, _) = watched(&mut client, channels).await;
    assert!(
        matches!(&channels[..], [change] if change.subject == Some(wire::change::Subject::Channel("room:1".into())))
    );

    let (old, mut news) = watched(&mut client, wire::WatchRequest::default()).await;
    assert!(old.is_empty(), "{old:?}");
    let stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let (reading, mut writing) = stream.into_split();
    let asked = b"GET /v1/presence/watch?from=start&of=channels HTTP/1.1\r\nhost: x\r\n\r\n";
    writing.write_all(asked).await.expect("sent");
    let mut lines = BufReader::new(reading).lines();
    node.has("room:1", 0).await;
    let change = tokio::time::timeout(PATIENCE, news.message()).await.expect("in time");
    let Some(Item::Change(change)) = change.expect("no error").expect("no end").item else {
        panic!("a change")
    };
    assert_eq!(change.state(), wire::State::Offline);
    let mut told = Vec::new();
    while told.len() < 3 {
        let line =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("readable");
        told.extend(line.filter(|line| line.starts_with('{')));
    }
    assert!(told[0].starts_with(r#"{"channel":"room:1","state":"occupied","since":1"#), "{told:?}");
    assert_eq!(told[1], r#"{"caught_up":true}"#);
    assert!(told[2].starts_with(r#"{"channel":"room:1","state":"vacated","since":1"#), "{told:?}");
    let refused = request(address, "GET /v1/presence/watch?form=start", &[], b"").await;
    assert!(refused.status == 400 && refused.body.contains("of=channels"), "{}", refused.body);
    router.router.shutdown().await;
    let ended = news.message().await.expect_err("the router shuts down");
    assert_eq!(ended.code(), tonic::Code::Unavailable);
}
