//! What members refuse, by name; watching nodes; presence.

use futures::StreamExt as _;
use tidegate_proto::registry::v1 as wire;
use tidegate_proto::registry::v1::announce_request::Frame as Asked;
use tidegate_proto::registry::v1::announce_response::Frame as Said;
use tidegate_proto::registry::v1::watch_nodes_response::Event;
use tidegate_registry::Key;
use tidegate_registry::client::{RegistryClientWithKey, connect};
use tidegate_vocab::limits;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::harness::{KEY, Members, within};

fn client(members: &Members) -> RegistryClientWithKey {
    connect(&members.address(0), Some(KEY())).expect("an address")
}

fn kind(status: &Status) -> &str {
    status.metadata().get("tidegate-error-kind").expect("a kind").to_str().expect("ASCII")
}

fn hello(node: u8, session: u64) -> wire::NodeHello {
    let incarnation = vec![node; 16].into();
    wire::NodeHello { incarnation, min_version: 1, max_version: 1, session, ..wire::NodeHello::default() }
}

fn present(subject: &str) -> wire::Update {
    let state = wire::Holding { connections: 1, transports: 2, since_s: 5 };
    wire::Update { subject: subject.to_owned(), state: Some(state) }
}

fn batch(seq: u64, subjects: &[&str], ends_snapshot: bool) -> wire::Batch {
    wire::Batch { seq, updates: subjects.iter().map(|subject| present(subject)).collect(), ends_snapshot }
}

type Sender = mpsc::Sender<wire::AnnounceRequest>;

async fn announce(
    client: &mut RegistryClientWithKey,
    frames: Vec<Asked>,
) -> Result<(Sender, Streaming<wire::AnnounceResponse>), Status> {
    let (sender, requests) = mpsc::channel(8);
    for frame in frames {
        sender.send(wire::AnnounceRequest { frame: Some(frame) }).await.expect("room");
    }
    let responses = within("an answer", client.announce(ReceiverStream::new(requests))).await?;
    Ok((sender, responses.into_inner()))
}

/// What the member says to these frames in the end.
async fn refusal(client: &mut RegistryClientWithKey, frames: Vec<Asked>) -> Status {
    match announce(client, frames).await {
        Err(status) => status,
        Ok((_sender, mut responses)) => loop {
            match within("the end", responses.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended well"),
                Err(status) => return status,
            }
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_the_rules_is_refused_by_name() {
    let members = Members::start(1).await;
    let mut client = client(&members);
    let greeting = || Asked::Hello(hello(1, 1));
    let long = "x".repeat(limits::REGISTRY_ADDRESS_BYTES_LIMIT + 1);
    let many = vec!["u"; limits::REGISTRY_BATCH_LIMIT + 1];
    let short = wire::NodeHello { incarnation: vec![1; 15].into(), ..hello(1, 1) };
    let table = [
        ("no hello", vec![Asked::Batch(batch(1, &[], true))], "bad_request", "no hello"),
        ("a short incarnation", vec![Asked::Hello(short)], "bad_request", "16 bytes, not 15"),
        (
            "versions",
            vec![Asked::Hello(wire::NodeHello { min_version: 2, max_version: 3, ..hello(1, 1) })],
            "bad_request",
            "speaks 2 to 3",
        ),
        (
            "a long address",
            vec![Asked::Hello(wire::NodeHello { address: long, ..hello(1, 1) })],
            "too_large",
            "257 bytes",
        ),
        (
            "a second hello",
            vec![Asked::Hello(hello(2, 1)), Asked::Hello(hello(2, 2))],
            "bad_request",
            "second hello",
        ),
        (
            "a bad subject",
            vec![Asked::Hello(hello(3, 1)), Asked::Batch(batch(1, &["a b"], true))],
            "bad_request",
            "grammar",
        ),
        (
            "many updates",
            vec![Asked::Hello(hello(4, 1)), Asked::Batch(batch(1, &many, true))],
            "too_many",
            "1000 updates",
        ),
        (
            "a gap",
            vec![greeting(), Asked::Batch(batch(1, &["a"], true)), Asked::Batch(batch(3, &["a"], false))],
            "bad_request",
            "batch 3 cannot follow 1",
        ),
        ("a stale hello", vec![greeting()], "conflict", "newer hello"),
        (
            "a stream behind",
            vec![Asked::Hello(hello(1, 2)), Asked::Batch(batch(1, &["a"], true))],
            "bad_request",
            "batch 1 cannot follow 1",
        ),
    ];
    for (name, frames, expected, text) in table {
        let status = refusal(&mut client, frames).await;
        assert_eq!(kind(&status), expected, "{name}: {status}");
        assert!(status.message().contains(text), "{name}: {}", status.message());
    }
    let subjects = vec!["u".to_owned(); limits::LOOKUP_KEYS_LIMIT + 1];
    let status = client.locate(wire::LocateRequest { subjects }).await.expect_err("too many");
    assert_eq!(kind(&status), "too_many");
    for key in [None, Some(Key::parse("fedcba9876543210").expect("a key"))] {
        let mut stranger = connect(&members.address(0), key).expect("an address");
        let status = stranger.locate(wire::LocateRequest::default()).await.expect_err("no key");
        assert_eq!(kind(&status), "unauthorized");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_hello_ends_the_older_stream() {
    let members = Members::start(1).await;
    let mut client = client(&members);
    let frames = vec![Asked::Hello(hello(1, 1)), Asked::Batch(batch(1, &["a"], true))];
    let (older, mut older_said) = announce(&mut client, frames).await.expect("opens");
    let greeting = within("a hello", older_said.message()).await.expect("fine").expect("one");
    assert!(matches!(greeting.frame, Some(Said::Hello(_))));
    let ack = within("an ack", older_said.message()).await.expect("fine").expect("one");
    assert_eq!(ack.frame, Some(Said::Acked(1)));
    let frames = vec![Asked::Hello(hello(1, 2)), Asked::Batch(batch(2, &["b"], true))];
    let (_newer, mut newer_said) = announce(&mut client, frames).await.expect("opens");
    for _ in 0..2 {
        within("hello and ack", newer_said.message()).await.expect("fine").expect("one");
    }
    older
        .send(wire::AnnounceRequest { frame: Some(Asked::Batch(batch(3, &["c"], false))) })
        .await
        .expect("room");
    let status = within("the end", older_said.message()).await.expect_err("ended");
    assert_eq!(kind(&status), "conflict");
    let subjects = ["a", "b", "c"].map(str::to_owned).to_vec();
    let located = client.locate(wire::LocateRequest { subjects }).await.expect("answers").into_inner();
    let counts: Vec<usize> = located.locations.iter().map(|location| location.places.len()).collect();
    assert_eq!(counts, [0, 1, 0], "the snapshot's end removed a, and c came too late");
    assert_eq!(located.incarnation[..], 1_u128.to_be_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_watched_and_a_lost_one_is_one_event() {
    let members = Members::start(1).await;
    let mut client = client(&members);
    let mut events = client.watch_nodes(wire::WatchNodesRequest {}).await.expect("watches").into_inner();
    let mut next = async || within("an event", events.next()).await.expect("one").expect("fine").event;
    assert!(matches!(next().await, Some(Event::List(list)) if list.nodes.is_empty()));
    let frames = vec![Asked::Hello(hello(9, 1)), Asked::Batch(batch(1, &["a", "b"], true))];
    let (node, _said) = announce(&mut client, frames).await.expect("opens");
    assert!(matches!(next().await, Some(Event::Joined(node)) if node[..] == [9; 16]));
    drop(node);
    // Not a goodbye: the lease runs out.
    match next().await {
        Some(Event::Lost(lost)) => assert_eq!((&lost.incarnation[..], lost.subjects), (&[9; 16][..], 2)),
        other => panic!("{other:?}"),
    }
    let list = client.list_nodes(wire::ListNodesRequest {}).await.expect("lists").into_inner();
    assert!(list.nodes.is_empty());
}

/// Keeps a node's lease.
async fn renew(node: Sender) {
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(500));
    for seq in 2.. {
        ticks.tick().await;
        let frame = Some(Asked::Batch(batch(seq, &[], false)));
        if node.send(wire::AnnounceRequest { frame }).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transitions_are_emitted_until_they_are_read_back() {
    let members = Members::start(1).await;
    let mut client = client(&members);
    let seeded = |subject: &str| wire::Transition {
        subject: subject.to_owned(),
        state: wire::PresenceState::Online.into(),
        since_s: 1,
        emitter: vec![1; 16].into(),
        number: 1,
    };
    let (first, requests) = mpsc::channel(8);
    let mut said = client.presence(ReceiverStream::new(requests)).await.expect("opens").into_inner();
    let reading = within("the reading", said.message()).await.expect("fine").expect("one").reading;
    let frames = vec![Asked::Hello(hello(9, 1)), Asked::Batch(batch(1, &["stays", "comes"], true))];
    let (node, _said) = announce(&mut client, frames).await.expect("opens");
    tokio::spawn(renew(node));
    let records = vec![seeded("stays"), seeded("went")];
    first.send(wire::PresenceRequest { reading, records, caught_up: true }).await.expect("room");
    let mut transitions = Vec::new();
    while transitions.len() < 2 {
        let response = within("a transition", said.message()).await.expect("fine").expect("one");
        transitions.extend(response.transitions);
    }
    // The difference to the topic, and nothing about who stayed.
    let said_of =
        |subject: &str| transitions.iter().find(|it| it.subject == subject).map(wire::Transition::state);
    assert_eq!(said_of("comes"), Some(wire::PresenceState::Online));
    assert_eq!(said_of("went"), Some(wire::PresenceState::Offline));
    assert_eq!(said_of("stays"), None);
    // Nothing was read back: another stream gets it all again, with the same numbers, and ends this one.
    let (_second, requests) = mpsc::channel::<wire::PresenceRequest>(8);
    let mut again = client.presence(ReceiverStream::new(requests)).await.expect("opens").into_inner();
    let repeated = within("the same", again.message()).await.expect("fine").expect("one").transitions;
    assert_eq!(repeated[0], transitions[0]);
    while within("the end", said.message()).await.expect("fine").is_some() {}
}
