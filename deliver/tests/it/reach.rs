//! Reach streams: questions and answers, and how either side ends them.

use std::time::Duration;

use tidegate_link::{
    NodeAnswer, NodeAsk, NodeHello, NodeSays, NodeStatus, ReachStream, RouterLink as _, RouterSays,
};
use tidegate_proto::deliver::v1 as wire;
use tidegate_proto::deliver::v1::deliver_client::DeliverClient;
use tidegate_vocab::{Channel, Incarnation};

use crate::harness::{Reaching, Served, within};

fn hello() -> NodeHello {
    NodeHello { incarnation: Incarnation(7), name: "gateway-1".into(), version: "1".into() }
}

fn router_side(served: &Served) -> Reaching {
    served.router.reached.lock().expect("sound").pop().expect("the router was reached")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_and_answers_cross_in_order_and_each_side_ends_the_stream() {
    let served = Served::start(None).await;
    let link = served.dial();
    let opened = within("the stream", link.reach(hello())).await.expect("let in");
    let ReachStream { to_router, mut from_router } = opened;
    let (node, sender, mut says) = router_side(&served);
    assert_eq!(node, hello());
    let holding = NodeAsk::Holding(Channel::parse("room:1").expect("valid"));
    let asked = [RouterSays::Ring(9), RouterSays::Ask { number: 1, ask: holding }];
    asked.iter().for_each(|asked| sender.put(asked.clone()).expect("room"));
    let mut heard = Vec::new();
    while heard.len() < 2 {
        heard.extend(within("a question", from_router.next(16)).await);
    }
    assert_eq!(heard, asked);
    let status = NodeSays::Status(NodeStatus { connections: 1, connections_limit: 2, is_draining: false });
    let answer = NodeSays::Answer { number: 1, answer: Ok(NodeAnswer::Holding(None)) };
    for said in [NodeSays::Word(vec![(Incarnation(3), 9)]), status, answer] {
        to_router.send(said.clone()).await.expect("open");
        assert_eq!(within("an answer", says.recv()).await, Some(said));
    }
    drop((sender, says));
    assert_eq!(within("the end", from_router.next(16)).await, [], "the router ended it");

    // And the other way: whichever half the node drops.
    for drops_receiver in [false, true] {
        let stream = within("the stream", link.reach(hello())).await.expect("let in");
        let (_, sender, mut says) = router_side(&served);
        let ReachStream { to_router, from_router } = stream;
        let (mut to_router, mut from_router) = (Some(to_router), Some(from_router));
        if drops_receiver {
            from_router.take().map(drop)
        } else {
            to_router.take().map(drop)
        };
        assert_eq!(within("the end", says.recv()).await, None, "{drops_receiver}");
        drop(sender); // As the router does that sees its node go.
        if let Some(mut from_router) = from_router {
            assert_eq!(within("the end", from_router.next(16)).await, []);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_a_hello_and_one_that_breaks_the_protocol_are_ended() {
    let served = Served::start(None).await;
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", served.wire.address)).expect("a uri");
    let mut client = DeliverClient::new(channel.connect().await.expect("connects"));
    let empty = wire::ReachRequest::default();
    let refused = client.reach(futures::stream::iter([empty.clone()])).await.expect_err("no hello");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let said = wire::NodeHello { incarnation: vec![1; 16].into(), name: "n".into(), version: String::new() };
    let said = wire::NodeSays { says: Some(wire::node_says::Says::Hello(said)) };
    let twice = wire::ReachRequest { says: vec![said.clone(), said] };
    let waiting = futures::StreamExt::chain(futures::stream::iter([twice]), futures::stream::pending());
    let mut answers = client.reach(waiting).await.expect("opened").into_inner();
    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        while let Ok(Some(_)) = answers.message().await {}
    });
    let (_, sender, mut says) = router_side(&served);
    assert_eq!(within("the end", says.recv()).await, None, "the second hello ended it");
    drop(sender);
    ended.await.expect("and the call with it");
}
