//! All routers are killed at once: what was acked is in Kafka, and everything else is made from it again.

use tidegate_e2e::{Acked, Cluster, Follow, Follower, Node, Publisher, Shape, Transport};

use crate::in_time;
use crate::tours::Tours;

const CHANNELS: [&str; 3] = ["k:0", "k:1", "k:2"];

/// What a cursor of before brings: `recovered`, and all of the channel from there on, in order.
async fn resumes(cluster: &Cluster, cursor: &str, acked: &[Acked]) {
    let missed: Vec<&str> =
        acked.iter().filter(|one| one.channel == "k:0").map(|one| one.pos.as_str()).collect();
    for (transport, gateway) in Transport::ALL.into_iter().zip(cluster.gateways.iter().cycle()) {
        let follow = Follow::channels(["k:0"]).resume(cursor);
        let mut client = Follower::reopen(gateway.public(), transport, &follow).await;
        let state = client.state().await;
        let lists = (&state["lost"], &state["recovered"]);
        let recovered = state["recovered"].as_array().expect("a list");
        assert!(recovered.iter().any(|name| name == "k:0"), "{transport:?}: {lists:?}");
        assert_eq!(state["lost"], serde_json::json!([]), "{transport:?}");
        let events = in_time(client.events(missed.len())).await;
        let got: Vec<&str> = events.iter().filter_map(|event| event.pos.as_deref()).collect();
        assert_eq!(got, missed, "{transport:?}: all that was missed, once and in order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_routers_lose_nothing() {
    let shape = Shape::new("killed").router_set("history.rows", 50_000);
    let mut cluster = Cluster::start(shape).await;
    let mut early =
        Follower::open(cluster.gateways[0].public(), Transport::WebSocket, &Follow::channels(["k:0"])).await;
    early.state().await;
    cluster.routers[0].publish(serde_json::json!({"channel": "k:0", "data": {"n": 1_000_000}})).await;
    in_time(early.event()).await;
    let cursor = early.cut().cursor;
    let mut all = Vec::new();
    for is_history_deleted in [false, true] {
        let tours = Tours::start(&cluster, &CHANNELS).await;
        let tag = format!("killed-{is_history_deleted}");
        let publisher = Publisher::start(cluster.routers[0].api(), &tag, &CHANNELS);
        publisher.acked(150).await;
        cluster.kill_routers().await;
        if is_history_deleted {
            cluster.routers.iter().for_each(Node::delete_data);
        }
        cluster.spawn_routers_again();
        publisher.acked(publisher.count() + 150).await;
        let acked = publisher.stop().await;
        tours.finish(&acked).await;
        all.extend(acked);
        resumes(&cluster, &cursor, &all).await;
        cluster.wait_until_ready().await;
    }
    for node in cluster.routers.iter().chain(&cluster.gateways) {
        assert!(!node.stderr().contains("panicked"), "no task of any process panicked");
    }
}
