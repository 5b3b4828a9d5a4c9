//! What clients say and backends read.

use bytes::Bytes;
use tidegate_link::{RouterLink as _, UpstreamMessage};
use tidegate_proto::upstream::v1::upstream_client::UpstreamClient;
use tidegate_proto::upstream::v1::{ReadRequest, ReadResponse, read_request::From, read_response::Item};
use tidegate_vocab::{Channel, ConnectionId, Payload, UserId};
use tonic::{Code, Streaming};

use crate::harness::{PATIENCE, TestRouter};

async fn say(router: &TestRouter, user: &str, seq: u64) {
    let message = UpstreamMessage {
        connection: ConnectionId(1, 2),
        user: (!user.is_empty()).then(|| UserId::parse(user).expect("valid")),
        channel: Channel::parse("chat:1").expect("valid"),
        payload: Payload::Json(Bytes::from(format!("{seq}"))),
        seq,
        trace_parent: None,
    };
    router.router.upstream(message).await.expect("accepted");
}

async fn open(address: std::net::SocketAddr, from: From) -> Streaming<ReadResponse> {
    let mut client = UpstreamClient::connect(format!("http://{address}")).await.expect("connects");
    client.read(ReadRequest { from: Some(from) }).await.expect("opens").into_inner()
}

/// The next `count` messages as (user, seq), and the token after them.
async fn take(stream: &mut Streaming<ReadResponse>, count: usize) -> (Vec<(String, u64)>, String) {
    let (mut said, mut resume) = (Vec::new(), String::new());
    while said.len() < count || resume.is_empty() {
        let next = tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time");
        let response = next.expect("no error").expect("no end");
        resume = response.resume;
        match response.item {
            Some(Item::Message(message)) => said.push((message.user, message.seq)),
            Some(Item::Lost(lost)) => panic!("{lost:?}"),
            None => {}
        }
    }
    (said, resume)
}

fn of<'a>(said: &'a [(String, u64)], user: &'a str) -> Vec<u64> {
    said.iter().filter(|(by, _)| by == user).map(|(_, seq)| *seq).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_reads_in_order_per_user_and_resumes_where_it_was() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let address = router.serve().await;
    for seq in 1..=10 {
        say(&router, "alice", seq).await;
        say(&router, "bob", seq).await;
        say(&router, "", seq).await;
    }
    let (said, resume) = take(&mut open(address, From::Start(true)).await, 30).await;
    for user in ["alice", "bob", ""] {
        assert_eq!(of(&said, user), (1..=10).collect::<Vec<_>>(), "{user}");
    }
    let mut half = open(address, From::Start(true)).await;
    let (first, middle) = take(&mut half, 13).await;
    let (rest, _) = take(&mut open(address, From::Resume(middle)).await, 17).await;
    let both: Vec<_> = first.into_iter().chain(rest).collect();
    for user in ["alice", "bob", ""] {
        assert_eq!(of(&both, user), (1..=10).collect::<Vec<_>>(), "{user}");
    }
    let mut now = open(address, From::Now(true)).await;
    let (nothing, at) = take(&mut now, 0).await;
    assert!(nothing.is_empty() && at == resume);
    say(&router, "alice", 11).await;
    assert_eq!(take(&mut now, 1).await.0, [("alice".to_string(), 11)]);
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_survives_a_restart_and_a_bad_one_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let address = router.serve().await;
    say(&router, "alice", 1).await;
    let (_, resume) = take(&mut open(address, From::Start(true)).await, 1).await;
    say(&router, "alice", 2).await;
    router.close().await;
    let router = TestRouter::open(directory.path()).await;
    let address = router.serve().await;
    assert_eq!(take(&mut open(address, From::Resume(resume)).await, 1).await.0, [("alice".to_string(), 2)]);
    let mut client = UpstreamClient::connect(format!("http://{address}")).await.expect("connects");
    for from in [None, Some(From::Start(false)), Some(From::Resume("x".into()))] {
        let refused = client.read(ReadRequest { from }).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    router.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_ends_with_unavailable_when_the_router_shuts_down() {
    let directory = tempfile::tempdir().expect("directory");
    let router = TestRouter::open(directory.path()).await;
    let mut stream = open(router.serve().await, From::Now(true)).await;
    take(&mut stream, 0).await;
    router.router.shutdown().await;
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
    router.close().await;
}
