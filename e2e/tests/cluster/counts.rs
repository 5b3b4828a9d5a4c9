//! A topic is given more partitions than configured: channels would be looked for where they are not.

use serde_json::json;
use tidegate_e2e::{Cluster, Follow, Follower, Shape, Transport, eventually};

use crate::admin;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_partition_count_is_refused() {
    let cluster = Cluster::start(Shape::new("counts").gateways(1)).await;
    let mut client =
        Follower::open(cluster.gateways[0].public(), Transport::WebSocket, &Follow::channels(["c"])).await;
    client.state().await;
    cluster.routers[0].publish(json!({"channel": "c", "data": {"n": 0}})).await;
    client.event().await;
    admin::set_partitions(&cluster, &cluster.topic("events"), 9).await;
    let reason = "counts.events has 9 partitions and 8 are configured";
    for router in &cluster.routers {
        eventually("the router is not ready", async || {
            let answer = router.readiness().await.expect("it runs and answers");
            (answer.status() == 503 && answer.text().contains(reason)).then_some(())
        })
        .await;
        let answer = router.try_publish(&[], &json!({"channel": "c", "data": {"n": 1}})).await;
        assert_eq!(answer.problem(), "log_unavailable", "{}", answer.text());
        assert!(
            answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("nothing was accepted"))
        );
        assert!(answer.header("retry-after").is_some(), "{:?}", answer.head);
        let said = router.stderr();
        assert!(said.contains(reason), "{said}");
        assert!(said.contains("set the count to 9 on every process, or make the topic anew"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    let other = json!({"user": "u", "data": {"n": 2}, "idempotency_key": "other"});
    eventually("the users' own channels are on another topic, which goes on", async || {
        (cluster.routers[0].try_publish(&[], &other).await.status() == 200).then_some(())
    })
    .await;
}
