//! One trace from the publish to the sockets.

use serde_json::json;
use tidegate_e2e::{Cluster, Follow, Follower, Node, Shape, Transport, eventually};
use tidegate_proto::publish::v1::publisher_client::PublisherClient;
use tidegate_proto::publish::v1::{PublishRequest, publish_request};

use crate::collector::{Collector, Seen};
use crate::in_time;

const CALLER: u64 = 0xb7ad_6b71_6920_3331;

fn traceparent(trace_id: u128, flags: u8) -> String {
    format!("00-{trace_id:032x}-{CALLER:016x}-{flags:02x}")
}

async fn publish(router: &Node, trace_id: u128, flags: u8) {
    let header = traceparent(trace_id, flags);
    let body = json!({"channel": "t", "data": {"n": 1}, "idempotency_key": format!("{trace_id}")});
    let answer = router.try_publish(&[("traceparent", &header)], &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

async fn publish_over_grpc(router: &Node, trace_id: u128) {
    let mut client = PublisherClient::connect(format!("http://{}", router.api())).await.expect("connects");
    let mut request = tonic::Request::new(PublishRequest {
        channels: vec!["t".into()],
        payload: Some(publish_request::Payload::Json("{\"n\":1}".into())),
        idempotency_key: format!("{trace_id}"),
        ..PublishRequest::default()
    });
    request.metadata_mut().insert("traceparent", traceparent(trace_id, 1).parse().expect("ASCII"));
    client.publish(request).await.expect("published");
}

/// Waits until a trace is whole: one append, one consume, and one fan-out on each of two nodes.
async fn whole(collector: &Collector, trace_id: u128) -> Vec<Seen> {
    eventually(&format!("trace {trace_id} is whole"), async || {
        let spans = collector.of(trace_id);
        (spans.len() >= 4).then_some(spans)
    })
    .await
}

fn check(spans: &[Seen]) {
    let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (append, consume, fan_out) = (of("append"), of("consume"), of("fan_out"));
    assert_eq!((append.len(), consume.len(), fan_out.len(), spans.len()), (1, 1, 2, 4), "{spans:?}");
    assert_eq!(append[0].parent, CALLER.to_be_bytes(), "the caller's span");
    assert_eq!(append[0].service, "tidegate-router");
    assert_eq!((&consume[0].service, &consume[0].parent), (&append[0].service, &append[0].span_id));
    for span in fan_out {
        assert_eq!((span.service.as_str(), &span.parent), ("tidegate-gateway", &append[0].span_id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_is_found_in_append_consume_and_fan_out() {
    let (collector, endpoint) = Collector::start().await;
    let cluster = Cluster::start(Shape::new("traced").set("telemetry.otlp_endpoint", endpoint)).await;
    let mut clients = Vec::new();
    for number in 0..52 {
        let gateway = &cluster.gateways[usize::from(number >= 50)];
        let transport = [Transport::WebSocket, Transport::Sse, Transport::Ndjson][number % 3];
        let mut client = Follower::open(gateway.public(), transport, &Follow::channels(["t"])).await;
        client.state().await;
        clients.push(client);
    }
    publish(&cluster.routers[0], 1, 0).await;
    for (trace_id, router) in [(2, &cluster.routers[0]), (3, &cluster.routers[1])] {
        publish(router, trace_id, 1).await;
        check(&whole(&collector, trace_id).await);
    }
    publish_over_grpc(&cluster.routers[1], 4).await;
    check(&whole(&collector, 4).await);
    // Each process exports in order, so that nothing more of the others is to come.
    for trace_id in [2, 3] {
        check(&collector.of(trace_id));
    }
    assert!(collector.of(1).is_empty(), "nobody records it: {:?}", collector.of(1));
    for client in &mut clients {
        let events = in_time(client.events(4)).await;
        assert_eq!(events.len(), 4);
    }
}
