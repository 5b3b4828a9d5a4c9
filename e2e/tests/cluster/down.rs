//! Kafka dies and comes back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tidegate_e2e::{Cluster, Event, Follow, Follower, Heard, Publisher, Shape, Transport, eventually};
use tokio::sync::watch;

use crate::in_time;
use crate::tours::Tours;

/// How long Kafka is asked for what it cannot do: longer than a record waits to be sent.
const PROBED_FOR: Duration = Duration::from_secs(7);

/// Listens on one connection, which nothing may end, until so many events as are wanted have come.
async fn listen(mut client: Follower, wanted: watch::Receiver<Option<usize>>) -> Vec<Event> {
    let mut events = Vec::new();
    while wanted.borrow().is_none_or(|count| events.len() < count) {
        match client.hear_within(Duration::from_millis(100)).await {
            Some(Heard::Object(object)) if object.kind == "ping" || object.kind == "state" => {}
            Some(Heard::Object(object)) => events.push(object.event().expect("nothing but events")),
            Some(Heard::Ping | Heard::Retry(_)) | None => {}
            Some(other) => panic!("{:?}: {other:?}", client.transport),
        }
    }
    events
}

/// What became of publishes without a log: none was accepted, each says what to do. By their keys, the bodies to retry.
async fn refused_publishes(cluster: &Cluster) -> BTreeMap<String, serde_json::Value> {
    let (mut sent, begun) = (BTreeMap::new(), Instant::now());
    while begun.elapsed() < PROBED_FOR {
        let asked = cluster.routers.iter().zip(sent.len()..).map(async |(router, number)| {
            let key = format!("probe-{number}");
            let body = json!({"channel": "probe", "data": {"n": number}, "idempotency_key": key});
            let answer = router.try_publish(&[], &body).await;
            let kind = answer.problem();
            match kind.as_str() {
                "log_unavailable" | "overloaded" => assert_eq!(answer.status(), 503),
                "indeterminate" => {
                    assert_eq!(answer.status(), 504);
                    assert!(answer.text().contains(&key), "{}", answer.text());
                }
                _ => panic!("{kind}: {}", answer.text()),
            }
            assert!(answer.header("retry-after").is_some(), "{:?}", answer.head);
            (key, body)
        });
        let asked = join_all(asked).await;
        sent.extend(asked);
    }
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_down_and_up_again() {
    let mut cluster = Cluster::start(Shape::new("down").router_set("history.rows", 50_000)).await;
    let (want, wanted) = watch::channel(None);
    let mut steady = Vec::new();
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Ndjson, Transport::LongPoll] {
        for gateway in &cluster.gateways {
            let follow = Follow::channels(["probe"]);
            let mut client = Follower::open(gateway.public(), transport, &follow).await;
            client.state().await;
            steady.push(tokio::spawn(listen(client, wanted.clone())));
        }
    }
    let channels = ["d:0", "d:1", "d:2"];
    let tours = Tours::start(&cluster, &channels).await;
    let publisher = Publisher::start(cluster.routers[1].api(), "down", &channels);
    publisher.acked(100).await;

    cluster.kafka.kill9();
    let began = Instant::now();
    let mut late = cluster.spawn_router(2);
    let refused = refused_publishes(&cluster).await;
    eprintln!("{} publishes refused in {:?}", refused.len(), began.elapsed());
    assert_ne!(late.exit_code().await, Some(0), "a router needs Kafka to begin with");
    let said = late.stderr();
    let bootstrap = cluster.kafka.bootstrap();
    for part in [bootstrap, "do not answer", "start them, or name others with --bootstrap"] {
        assert!(said.contains(part), "{part:?} in {said:?}");
    }
    for router in &cluster.routers {
        let answer = router.readiness().await.expect("it runs and answers");
        assert!(answer.status() == 503 && answer.text().contains(bootstrap), "{}", answer.text());
    }
    let acked_before = publisher.count();

    cluster.kafka.start_again();
    let began = Instant::now();
    publisher.acked(acked_before + 100).await;
    eprintln!("100 more are acked {:?} after Kafka is back", began.elapsed());
    cluster.wait_until_ready().await;
    let acked = publisher.stop().await;
    for record in tours.finish(&acked).await {
        assert_eq!(record.connections.len(), 1, "no client was thrown out");
    }

    // What was refused is retried with its keys, and comes once, whether the log had it or not.
    for body in refused.values() {
        eventually("a retry is acked", async || {
            (cluster.routers[0].try_publish(&[], body).await.status() == 200).then_some(())
        })
        .await;
    }
    want.send_replace(Some(refused.len()));
    let each = in_time(join_all(steady)).await;
    let each: Vec<Vec<Event>> = each.into_iter().map(|heard| heard.expect("no panic")).collect();
    for events in &each {
        let order: Vec<_> = events.iter().map(|event| event.pos.clone()).collect();
        assert_eq!(order, each[0].iter().map(|event| event.pos.clone()).collect::<Vec<_>>(), "one order");
        let mut numbers: Vec<_> = events.iter().filter_map(|event| event.json()["n"].as_u64()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..refused.len() as u64).collect::<Vec<_>>(), "each once");
    }
}
