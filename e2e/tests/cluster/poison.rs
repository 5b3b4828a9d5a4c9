//! Records in our topics that are none of ours.

use futures::future::join_all;
use serde_json::json;
use tidegate_e2e::{Cluster, Event, Follow, Follower, Heard, Node, Shape, Transport, eventually};

use crate::{admin, in_time};

/// A record with an event, for whoever reads it.
const EVENT: &[u8] = b"\x08\x01\x12\x06\x12\x011\x22\x01k";

/// The partition in a position.
fn partition_of(event: &Event) -> i32 {
    let pos = event.pos.as_deref().expect("a position");
    pos.split('.').nth(1).and_then(|text| text.parse().ok()).expect("a partition")
}

/// What comes of a channel up to an event: the events' numbers, and whether a gap was told before the first of them.
async fn heard_until(client: &mut Follower, channel: &str, last: u64) -> (bool, Vec<u64>) {
    let (mut is_told, mut numbers) = (false, Vec::new());
    while numbers.last() != Some(&last) {
        let object = client.object().await;
        let is_gap = match object.kind.as_str() {
            "event" => {
                numbers.push(object.value["data"]["n"].as_u64().expect("a number"));
                false
            }
            "gap" => object.value["channel"] == channel,
            "state" => {
                let lost = object.value["lost"].as_array().expect("a list");
                lost.iter().any(|lost| lost["channel"] == channel)
            }
            _ => panic!("{}", object.raw),
        };
        assert!(!is_gap || numbers.is_empty(), "told where it is, before what is behind it: {}", object.raw);
        is_told |= is_gap;
    }
    (is_told, numbers)
}

/// Each hears all events, and of the gap who shall. A poll that is told goes on from then, so that it may have missed
/// what came between two polls.
async fn all_hear(
    clients: &mut [(Transport, String, Follower)],
    expected: [u64; 3],
    is_concerned: impl Fn(&str) -> bool,
) {
    let hearing = clients.iter_mut().map(async |(transport, channel, client)| {
        let (is_told, numbers) = in_time(heard_until(client, channel, expected[2])).await;
        assert_eq!(is_told, is_concerned(channel), "{transport:?} {channel}");
        let is_right =
            numbers == expected || (transport.is_poll() && is_told && expected.ends_with(&numbers));
        assert!(is_right, "{transport:?} {channel}: {numbers:?}");
    });
    join_all(hearing).await;
}

async fn dead_letters(cluster: &Cluster, reason: &str) -> f64 {
    let mut count = 0.0;
    for router in &cluster.routers {
        let label = format!("reason=\"{reason}\"");
        count += router.metric("tidegate_router_dead_letters_total", &[&label]).await;
    }
    count
}

async fn wait_for_dead_letters(cluster: &Cluster, reason: &str, count: f64) {
    let what = format!("{count} dead letters are counted as {reason}");
    eventually(&what, async || (dead_letters(cluster, reason).await == count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_records_are_told_and_passed() {
    let cluster = Cluster::start(Shape::new("poison").gateways(1)).await;
    let public = cluster.gateways[0].public();
    let router = &cluster.routers[0];
    // Two channels on one partition, and one on another.
    let mut scout = Follower::open(
        public,
        Transport::WebSocket,
        &Follow::channels((0..30).map(|number| format!("p:{number}"))),
    )
    .await;
    scout.state().await;
    let mut places = Vec::new();
    for number in 0..30 {
        router.publish(json!({"channel": format!("p:{number}"), "data": {"n": 0}})).await;
        places.push(scout.event().await);
    }
    let sick = places[0].clone();
    let here = partition_of(&sick);
    let neighbour =
        places[1..].iter().find(|event| partition_of(event) == here).expect("a neighbour").clone();
    let far = places.iter().find(|event| partition_of(event) != here).expect("another").clone();
    drop(scout);

    let channels = [&sick, &neighbour, &far].map(|event| event.channel.clone());
    let mut clients = Vec::new();
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Ndjson, Transport::LongPoll] {
        for channel in &channels {
            let mut client = Follower::open(public, transport, &Follow::channels([channel])).await;
            client.state().await;
            if transport.is_poll() {
                // From its second poll on it waits: nothing of the past comes any more.
                assert!(matches!(client.hear().await, Heard::Object(object) if object.kind == "ping"));
            }
            clients.push((transport, channel.clone(), client));
        }
    }
    let topic = cluster.topic("events");
    let produce = async |key: &str, value: &[u8]| admin::produce(&cluster, &topic, here, key, value).await;
    let broken = async {
        produce(&sick.channel, b"\xff\xff not a record").await;
        produce(&sick.channel, b"").await;
        wait_for_dead_letters(&cluster, "malformed", 2.0).await;
        publish(router, &channels, 1..=3).await;
    };
    let ((), ()) = tokio::join!(broken, all_hear(&mut clients, [1, 2, 3], |channel| channel == sick.channel));
    // Of these nobody knows whose they were: the whole partition is told, and no other.
    let misplaced = async {
        produce("no channel \u{1}", EVENT).await;
        produce(&far.channel, EVENT).await;
        wait_for_dead_letters(&cluster, "bad_key", 1.0).await;
        wait_for_dead_letters(&cluster, "wrong_partition", 1.0).await;
        publish(router, &channels, 4..=6).await;
    };
    let ((), ()) =
        tokio::join!(misplaced, all_hear(&mut clients, [4, 5, 6], |channel| channel != far.channel));
    assert_eq!(dead_letters(&cluster, "malformed").await, 2.0, "each once");
    let kept = admin::read(&cluster, &cluster.topic("dead"), 4).await;
    let values: Vec<&[u8]> = kept.iter().map(|(_, value)| &value[..]).collect();
    assert_eq!(values, [b"\xff\xff not a record", &b""[..], EVENT, EVENT], "as they were");
    for (position, _) in &kept {
        assert!(position.starts_with("events.") && position.contains(&format!(".{here}.")), "{position}");
    }
    for router in &cluster.routers {
        assert!(!router.stderr().contains("panicked"));
        eventually("the partitions go on", async || router.is_ready().await.then_some(())).await;
    }
}

async fn publish(router: &Node, channels: &[String; 3], numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        for channel in channels {
            router.publish(json!({"channel": channel, "data": {"n": n}})).await;
        }
    }
}
