//! The topic of events is deleted and made anew: another log, with other events at the same offsets.

use futures::future::join_all;
use serde_json::json;
use tidegate_e2e::{Cluster, Follow, Follower, Heard, Shape, Transport, eventually};

use crate::{admin, in_time};

/// Events in the old log, and more in the new one: their offsets pass where every cursor stands.
const COUNT_BEFORE: usize = 10;
const COUNT_AFTER: usize = 200;

async fn publish(cluster: &Cluster, tag: &str, n: usize) -> String {
    let key = format!("{tag}-{n}");
    let body = json!({"channel": "a", "data": {"n": n}, "idempotency_key": key});
    eventually("the event is acked", async || {
        let answer = cluster.routers[n % 2].try_publish(&[], &body).await;
        (answer.status() == 200).then(|| answer.json()["pos"].as_str().expect("a position").to_owned())
    })
    .await
}

/// What a client that stays connected hears up to the last event: positions, those before it is told that the old log is
/// gone apart from those behind.
async fn hear_all(client: &mut Follower) -> [Vec<String>; 2] {
    let transport = client.transport;
    let (mut is_told, mut seen, mut last) = (false, [Vec::new(), Vec::new()], 0);
    while last + 1 < COUNT_AFTER as u64 {
        let object = client.object().await;
        match object.kind.as_str() {
            "gap" if object.value["channel"] == "a" => {
                assert_eq!(object.value["reason"], "epoch", "{transport:?}: {}", object.raw);
                is_told = true;
            }
            "gap" => {} // `everyone`, on the same topic.
            "state" => {
                let lost = object.value["lost"].as_array().expect("a list");
                is_told |= lost.contains(&json!({"channel": "a", "reason": "epoch"}));
            }
            "event" => {
                last = object.value["data"]["n"].as_u64().expect("a number");
                let pos = object.value["pos"].as_str().expect("a position").to_owned();
                seen[usize::from(is_told)].push(pos);
            }
            _ => panic!("{transport:?}: {}", object.raw),
        }
    }
    assert!(is_told, "{transport:?}: skipped in silence: {seen:?}");
    seen
}

/// What a cursor into the old log brings.
async fn is_lost(cluster: &Cluster, transport: Transport, cursor: &str) {
    let follow = Follow::channels(["a"]).resume(cursor);
    let mut client = Follower::reopen(cluster.gateways[0].public(), transport, &follow).await;
    let state = client.state().await;
    let lost = state["lost"].as_array().expect("a list");
    assert!(lost.contains(&json!({"channel": "a", "reason": "epoch"})), "{transport:?}: {state}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_is_told_to_all() {
    let cluster = Cluster::start(Shape::new("anew")).await;
    let mut clients = Vec::new();
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Ndjson, Transport::LongPoll] {
        for gateway in &cluster.gateways {
            let mut client = Follower::open(gateway.public(), transport, &Follow::channels(["a"])).await;
            client.state().await;
            if transport.is_poll() {
                assert!(matches!(client.hear().await, Heard::Object(object) if object.kind == "ping"));
            }
            clients.push(client);
        }
    }
    let mut before = Vec::new();
    for n in 0..COUNT_BEFORE {
        before.push(publish(&cluster, "before", n).await);
    }
    let mut cursors = Vec::new();
    for client in &mut clients {
        let events = in_time(client.events(COUNT_BEFORE)).await;
        assert_eq!(events.iter().filter_map(|event| event.pos.clone()).collect::<Vec<_>>(), before);
        cursors.push(client.cursor().to_owned());
    }
    assert!(cursors.iter().all(|cursor| !cursor.is_empty()), "{cursors:?}");

    let topic = cluster.topic("events");
    admin::delete_topic(&cluster, &topic).await;
    // The deletion goes on after its answer: until then there is nothing to make.
    eventually("the topic is made anew", async || cluster.try_apply_topics().contains("made").then_some(()))
        .await;
    let publishing = async {
        let mut after = Vec::new();
        for n in 0..COUNT_AFTER {
            after.push(publish(&cluster, "after", n).await);
        }
        after
    };
    let hearing = join_all(clients.iter_mut().map(async |client| in_time(hear_all(client)).await));
    let (after, heard) = tokio::join!(publishing, hearing);
    // Up to a second passes until the routers know: what they ack and send by then still claims to be of the old log.
    let split = |pos: &str| pos.split_once('.').map(|(epoch, place)| (epoch.to_owned(), place.to_owned()));
    let places: Vec<_> = after.iter().filter_map(|pos| Some(split(pos)?.1)).collect();
    let (old, new) = (split(&before[0]), split(&after[COUNT_AFTER - 1]));
    let [old, new] = [old, new].map(|pos| pos.expect("a position").0);
    assert_ne!(old, new);
    for [early, told] in heard {
        assert!(early.iter().all(|pos| pos.starts_with(&old)), "new ones only when told: {early:?}");
        assert!(told.iter().all(|pos| pos.starts_with(&new)), "{told:?}");
        let told: Vec<_> = told.iter().filter_map(|pos| Some(split(pos)?.1)).collect();
        assert!(places.ends_with(&told), "without a hole up to the end: {told:?} of {places:?}");
    }
    for transport in Transport::ALL {
        in_time(is_lost(&cluster, transport, &cursors[0])).await;
    }
    // A cursor that follows the new log is as good as ever.
    let cursor = clients.remove(0).cut().cursor;
    let last = publish(&cluster, "last", 0).await;
    let follow = Follow::channels(["a"]).resume(cursor);
    let mut client = Follower::open(cluster.gateways[1].public(), Transport::Sse, &follow).await;
    client.state().await;
    assert_eq!(in_time(client.event()).await.pos, Some(last));
    for node in cluster.routers.iter().chain(&cluster.gateways) {
        assert!(!node.stderr().contains("panicked"), "no task of any process panicked");
    }
}
