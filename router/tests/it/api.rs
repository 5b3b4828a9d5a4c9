//! The API port: gRPC, its JSON twin, and what both say when something is wrong.

use std::net::SocketAddr;

use tidegate_proto::publish::v1::publisher_client::PublisherClient;
use tidegate_proto::publish::v1::{
    PublishBatchRequest, PublishRequest, item_result, publish_request::Payload, target_result,
};
use tidegate_tenure::WantFrom;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::harness::{PATIENCE, TestNode, TestRouter};
use crate::http::{post, raw, request};

async fn client(address: SocketAddr) -> PublisherClient<Channel> {
    PublisherClient::connect(format!("http://{address}")).await.expect("connects")
}

fn grpc(channel: &str, json: &str) -> PublishRequest {
    PublishRequest {
        channels: vec![channel.into()],
        payload: Some(Payload::Json(json.into())),
        ..PublishRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_doors_publish() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let address = router.serve().await;
    let node = TestNode::attach(&router).await;
    node.follow("score:42", WantFrom::Now).await;
    node.follow("user:alice", WantFrom::Now).await;

    let plain =
        post(address, "/v1/publish", r#"{"channel":"score:42","event":"goal","data":{"home": 1}}"#).await;
    assert_eq!((plain.status, plain.header("content-type")), (200, Some("application/json")));
    assert!(plain.json()["pos"].is_string() && plain.json()["idempotency_key"].is_string(), "{}", plain.body);
    let curl = ["content-type: application/x-www-form-urlencoded", "Idempotency-Key: k1"];
    let body = br#"{"user":"alice","data_b64":"AAEC","ttl":"1h"}"#;
    let first = request(address, "POST /v1/publish", &curl, body).await.json();
    let again = request(address, "POST /v1/publish", &curl, body).await.json();
    assert_eq!((&first["pos"], &again["duplicate"]), (&again["pos"], &serde_json::Value::Bool(true)));
    assert_eq!(first["idempotency_key"], "k1");
    let several =
        post(address, "/v1/publish", r#"{"channels":["score:42","bad name"],"everyone":true,"data":null}"#)
            .await;
    assert_eq!(several.status, 207);
    let results = several.json()["results"].clone();
    assert_eq!(
        (&results[0]["channel"], &results[1]["error"]["title"]),
        (&"score:42".into(), &"bad_channel".into())
    );
    assert_eq!(results[2]["everyone"], true);
    // An ephemeral event may overtake a durable one that was acked but not yet consumed.
    node.hears("score:42", &[r#"{"home":1}"#, "null"]).await;
    let ephemeral = post(address, "/v1/publish", r#"{"channel":"score:42","data":5,"ephemeral":true}"#).await;
    assert_eq!(ephemeral.body, r#"{"routed":1}"#);

    let mut client = client(address).await;
    let answer = client.publish(grpc("score:42", "[1, 2]")).await.expect("accepted").into_inner();
    assert!(matches!(answer.results[0].outcome, Some(target_result::Outcome::Durable(_))), "{answer:?}");
    node.hears("score:42", &[r#"{"home":1}"#, "null", "5", "[1,2]"]).await;
    assert_eq!(node.events("score:42")[0].name.as_str(), "goal");
    node.hears("user:alice", &["\0\u{1}\u{2}"]).await;
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_through_both_doors() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let address = router.serve().await;
    let body = r#"[{"channel":"a","data":1},{"chanel":"a","data":2},{"channel":"a","data":3}]"#;
    let answer = post(address, "/v1/publish/batch", body).await;
    assert_eq!(answer.status, 207, "{}", answer.body);
    let results = answer.json()["results"].clone();
    assert!(results[0]["pos"].is_string() && results[2]["pos"].is_string());
    assert_eq!(results[1]["error"]["detail"], r#"unknown field "chanel"; did you mean "channel"?"#);
    let items = vec![grpc("a", "4"), grpc("a", "{"), grpc("a", "6")];
    let answer =
        client(address).await.publish_batch(PublishBatchRequest { items }).await.expect("taken").into_inner();
    assert_eq!((answer.failed, answer.results.len()), (1, 3));
    match &answer.results[1].outcome {
        Some(item_result::Outcome::Problem(problem)) => assert_eq!(problem.kind, "bad_json"),
        other => panic!("{other:?}"),
    }
    let node = TestNode::attach(&router).await;
    node.follow("a", WantFrom::Start).await;
    node.hears("a", &["1", "3", "4", "6"]).await;
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_json_twin_refuses() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let address = router.serve().await;
    let large = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(65_537));
    let deep = format!(r#"{{"channel":"a","data":{}{}}}"#, "[".repeat(65), "]".repeat(65));
    let table = [
        ("bad_json: empty", "", 400, "bad_json", ""),
        ("bad_json: cut", r#"{"channel":"a","data":"#, 400, "bad_json", ""),
        ("bad_json: deep", &deep, 400, "bad_json", "64 levels"),
        ("not an object", "[1]", 400, "bad_request", ""),
        ("payload_over_the_limit", &large, 413, "too_large", "65536"),
        ("bad_channel_names", r#"{"channel":"a b","data":1}"#, 400, "bad_channel", "a b"),
        ("no target", r#"{"data":1}"#, 400, "bad_request", "no target"),
        ("no data", r#"{"channel":"a"}"#, 400, "bad_request", "data"),
        ("both", r#"{"channel":"a","data":1,"data_b64":"AA"}"#, 400, "bad_request", "once"),
        ("unknown field", r#"{"channel":"a","dta":1}"#, 400, "bad_request", "did you mean \"data\"?"),
        ("field of another form", r#"{"channel":7,"data":1}"#, 400, "bad_request", "must be a string"),
        ("twice", r#"{"channel":"a","channel":"b","data":1}"#, 400, "bad_request", "twice"),
        ("ttl", r#"{"channel":"a","data":1,"ttl":"soon"}"#, 400, "bad_request", "ttl"),
        ("base64", r#"{"channel":"a","data_b64":"?"}"#, 400, "bad_request", "base64"),
        ("event", r#"{"channel":"a","data":1,"event":"a\nb"}"#, 400, "bad_event_name", ""),
    ];
    for (name, body, status, title, detail) in table {
        let answer = post(address, "/v1/publish", body).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{name}");
        assert_eq!(answer.json()["title"], title, "{name}");
        assert!(
            answer.json()["detail"].as_str().is_some_and(|text| text.contains(detail)),
            "{name}: {}",
            answer.body
        );
    }
    let keys = ["Idempotency-Key: one"];
    let body = br#"{"channel":"a","data":1,"idempotency_key":"two"}"#;
    assert_eq!(request(address, "POST /v1/publish", &keys, body).await.status, 400);
    let huge = vec![b' '; 4 * 1024 * 1024 + 1];
    let answer = request(address, "POST /v1/publish", &[], &huge).await;
    assert_eq!((answer.status, answer.json()["title"].as_str()), (413, Some("too_large")));
    let answer = request(address, "GET /v1/publish", &[], b"").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(answer.json()["title"], "method_not_allowed");
    let answer = post(address, "/v1/nothing", "").await;
    assert_eq!((answer.status, answer.json()["title"].as_str()), (404, Some("not_found")));
    router.publish("a", "1").await;
    let conflict = ["Idempotency-Key: c"];
    request(address, "POST /v1/publish", &conflict, br#"{"channel":"a","data":1}"#).await;
    let answer = request(address, "POST /v1/publish", &conflict, br#"{"channel":"a","data":2}"#).await;
    assert_eq!((answer.status, answer.json()["title"].as_str()), (409, Some("conflict")));
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_grpc_refuses() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let mut client = client(router.serve().await).await;
    let keyed = |json: &str| PublishRequest { idempotency_key: "k".into(), ..grpc("a", json) };
    client.publish(keyed("1")).await.expect("accepted");
    let table = [
        ("bad_json", Code::InvalidArgument, grpc("a", "{")),
        ("bad_channel", Code::InvalidArgument, grpc("a b", "1")),
        ("too_large", Code::InvalidArgument, grpc("a", &format!("\"{}\"", "x".repeat(65_536)))),
        ("bad_request", Code::InvalidArgument, PublishRequest { payload: None, ..grpc("a", "1") }),
        ("bad_request", Code::InvalidArgument, PublishRequest { channels: Vec::new(), ..grpc("a", "1") }),
        ("bad_event_name", Code::InvalidArgument, PublishRequest { event: "a\nb".into(), ..grpc("a", "1") }),
        (
            "too_many",
            Code::InvalidArgument,
            PublishRequest { users: vec!["u".into(); 1000], ..grpc("a", "1") },
        ),
        ("conflict", Code::AlreadyExists, keyed("2")),
    ];
    for (kind, code, request) in table {
        let status = client.publish(request).await.expect_err("refused");
        assert_eq!(status.code(), code, "{kind}: {status}");
        assert!(status.message().starts_with(kind), "{kind}: {status}");
        let details = String::from_utf8_lossy(status.details()).into_owned();
        assert!(details.contains("google.rpc.ErrorInfo") && details.contains(kind), "{kind}");
    }
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_keys_are_asked_for_on_both_doors() {
    let directory = tempfile::tempdir().expect("directory");
    let keys = vec!["first-key".to_string(), "second-key".to_string()];
    let router = TestRouter::open_with(directory.path(), |config| config.api_keys = keys).await;
    let address = router.serve().await;
    let body = br#"{"channel":"a","data":1}"#;
    for (header, status) in [
        ("x-none: 1", 401),
        ("authorization: Bearer wrong-key!", 401),
        ("authorization: Basic first-key", 401),
        ("authorization: Bearer first-key", 200),
        ("authorization: bearer second-key", 200),
    ] {
        let answer = request(address, "POST /v1/publish", &[header], body).await;
        assert_eq!(answer.status, status, "{header}: {}", answer.body);
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{header}");
    }
    assert_eq!(
        post(address, "/v1/nothing", "").await.status,
        401,
        "what there is, is not told without a key"
    );
    let mut client = client(address).await;
    let refused = client.publish(grpc("a", "1")).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut with_key = Request::new(grpc("a", "1"));
    with_key.metadata_mut().insert("authorization", "Bearer first-key".parse().expect("ascii"));
    client.publish(with_key).await.expect("accepted");
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_needs_no_key_and_reflection_does() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open_with(directory.path(), |config| config.api_keys = vec!["key".into()]).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", router.serve().await)).expect("an address");
    let channel = endpoint.connect().await.expect("connects");
    let mut health = HealthClient::new(channel.clone());
    let deadline = std::time::Instant::now() + PATIENCE;
    let request = || HealthCheckRequest { service: "tidegate.publish.v1.Publisher".into() };
    // The service is unknown until its status has been set for the first time.
    while health.check(request()).await.ok().map(|answer| answer.into_inner().status) != Some(1) {
        assert!(std::time::Instant::now() < deadline, "never serving");
    }
    let ask = || ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let refused = reflection.server_reflection_info(tokio_stream::once(ask())).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut with_key = Request::new(tokio_stream::once(ask()));
    with_key.metadata_mut().insert("authorization", "Bearer key".parse().expect("ascii"));
    let mut answers = reflection.server_reflection_info(with_key).await.expect("accepted").into_inner();
    let answer = format!("{:?}", answers.message().await.expect("no error").expect("an answer"));
    for service in ["tidegate.publish.v1.Publisher", "tidegate.upstream.v1.Upstream", "grpc.health.v1.Health"]
    {
        assert!(answer.contains(service), "{answer}");
    }
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_is_given_up() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open_with(directory.path(), |config| config.request_timeout_ms = 100).await;
    let address = router.serve().await;
    let head = "POST /v1/publish HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{";
    let answer = raw(address, head.as_bytes()).await;
    assert_eq!((answer.status, answer.json()["title"].as_str()), (408, Some("request_timeout")));
    router.close().await;
}
