//! What a node must say first, with a client that says other things.

use tidegate_proto::deliver::v1::deliver_client::DeliverClient;
use tidegate_proto::deliver::v1::{self as wire, to_node, to_router};
use tidegate_proto::frames::to_router_to_wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{Served, ack, within};

async fn client(served: &Served) -> DeliverClient<Channel> {
    DeliverClient::connect(format!("http://{}", served.wire.address)).await.expect("connects")
}

fn hello(incarnation: &'static [u8], min_version: u32, max_version: u32) -> wire::ToRouter {
    let hello = wire::Hello { incarnation: incarnation.into(), min_version, max_version };
    wire::ToRouter { frame: Some(to_router::Frame::Hello(hello)), ..wire::ToRouter::default() }
}

/// Sends these frames in one message and hears the first answer.
async fn first_answer(served: &Served, frames: Vec<wire::ToRouter>) -> Result<wire::AttachResponse, Status> {
    let (requests, to_send) = mpsc::channel(4);
    requests.send(wire::AttachRequest { frames }).await.expect("room");
    let mut responses = client(served).await.attach(ReceiverStream::new(to_send)).await?.into_inner();
    Ok(within("an answer", responses.message()).await?.expect("an answer"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_hello_is_refused_and_counted() {
    let served = Served::start(None).await;
    let id: &[u8; 16] = b"0123456789abcdef";
    let table = [
        ("no frame", vec![], "missing", "no hello"),
        ("another frame", vec![to_router_to_wire(ack(1))], "missing", "no hello"),
        ("an empty frame", vec![wire::ToRouter::default()], "missing", "no hello"),
        ("a short incarnation", vec![hello(&id[..15], 1, 1)], "incarnation", "16 bytes, not 15"),
        ("too new", vec![hello(id, 3, 4)], "versions", "the peer speaks 3 to 4, this side 1 to 2"),
        ("too old", vec![hello(id, 0, 0)], "versions", "the peer speaks 0 to 0, this side 1 to 2"),
    ];
    for (name, frames, reason, text) in table {
        let labels = [("side", "router"), ("reason", reason)];
        let before = served.metric("tidegate_deliver_refused_hellos_total", &labels);
        let status = first_answer(&served, frames).await.expect_err(name);
        assert_eq!(status.code(), Code::FailedPrecondition, "{name}: {status}");
        assert!(status.message().contains(text), "{name}: {}", status.message());
        let counted = served.metric("tidegate_deliver_refused_hellos_total", &labels) - before;
        assert_eq!(counted, 1.0, "{name}");
    }
    let answer = first_answer(&served, vec![hello(id, 1, 9)]).await.expect("agrees");
    match answer.frames[0].frame.as_ref() {
        Some(to_node::Frame::Hello(hello)) => {
            assert_eq!(hello.incarnation[..], 77_u128.to_be_bytes());
            assert_eq!((hello.min_version, hello.max_version), (1, 2));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_frame_ends_the_stream_and_is_counted() {
    let mut served = Served::start(None).await;
    let second_hello = hello(b"0123456789abcdef", 1, 1);
    let table = [
        wire::ToRouter::default(),
        second_hello,
        wire::ToRouter { frame: None, ..to_router_to_wire(ack(1)) },
    ];
    for (number, bad) in table.into_iter().enumerate() {
        let (requests, to_send) = mpsc::channel(4);
        let frames = vec![hello(b"0123456789abcdef", 1, 1), to_router_to_wire(ack(4))];
        requests.send(wire::AttachRequest { frames }).await.expect("room");
        let attached = client(&served).await.attach(ReceiverStream::new(to_send)).await;
        let mut responses = attached.expect("attaches").into_inner();
        assert!(within("hello", responses.message()).await.expect("hello").is_some());
        let mut node = within("the router's side", served.nodes.recv()).await.expect("attached");
        assert_eq!(node.incarnation.0, u128::from_be_bytes(*b"0123456789abcdef"));
        assert_eq!(within("what came with the hello", node.frames.recv()).await, Some(ack(4)));
        let frames = vec![to_router_to_wire(ack(5)), bad, to_router_to_wire(ack(6))];
        requests.send(wire::AttachRequest { frames }).await.expect("room");
        let status = within("the end", responses.message()).await.expect_err("closed");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert_eq!(within("what came before", node.frames.recv()).await, Some(ack(5)));
        assert_eq!(within("nothing behind it", node.frames.recv()).await, None);
        within("the queue's end", node.sender.closed()).await;
        let counted = served.metric("tidegate_deliver_bad_frames_total", &[("side", "router")]);
        assert_eq!(counted, number as f64 + 1.0);
    }
}
