//! Deliver streams: order, backpressure, and how they end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_deliver::{PING_INTERVAL, PING_TIMEOUT};
use tidegate_link::{DeliverStream, RouterLink as _};
use tidegate_tenure::{ToNode, ToRouter};
use tidegate_vocab::{ErrorKind, Incarnation, limits};

use crate::harness::{Node, QUEUE_BYTES, Served, ack, eventually, live, within};

const COUNT: u64 = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_keep_their_order_both_ways_under_load() {
    let mut served = Served::start(None).await;
    let link = served.dial();
    let (stream, node) = served.attach(&*link).await;
    let DeliverStream { to_router, mut from_router } = stream;
    let Node { sender, mut frames, .. } = node;
    let begun = Instant::now();
    let payload = Bytes::from_static(&[b'x'; 100]);
    let pushing = tokio::spawn(async move {
        for offset in 0..COUNT {
            if sender.room() == 0 {
                sender.room_again().await;
            }
            sender.push([live(offset, &payload)]);
        }
        sender
    });
    let acking = tokio::spawn(async move {
        for next in 0..COUNT {
            to_router.send(ack(next)).await.expect("the stream is open");
        }
        to_router
    });
    let hearing = tokio::spawn(async move {
        for next in 0..COUNT {
            assert_eq!(frames.recv().await, Some(ack(next)));
        }
        frames
    });
    let (mut expected, mut batches) = (0, 0);
    while expected < COUNT {
        for frame in within("frames", from_router.next(256)).await.expect("the stream is open") {
            let ToNode::Event { event, .. } = frame else { panic!("{frame:?}") };
            assert_eq!(event.offset.map(|offset| offset.0), Some(expected));
            expected += 1;
        }
        batches += 1;
    }
    let _ends = within("the other way", async { tokio::join!(pushing, acking, hearing) }).await;
    let rate = COUNT as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} frames/s each way at once, {batches} reads");
    for (side, direction) in
        [("node", "sent"), ("node", "received"), ("router", "sent"), ("router", "received")]
    {
        let labels = [("side", side), ("direction", direction)];
        assert_eq!(served.metric("tidegate_deliver_frames_total", &labels), COUNT as f64);
        assert!(served.metric("tidegate_deliver_bytes_total", &labels) > COUNT as f64 * 8.0);
    }
}

/// A node that reads nothing costs the router its queue and what is on the way, and loses nothing when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_reading_fills_the_routers_queue_and_nothing_else() {
    let mut served = Served::start(None).await;
    let link = served.dial();
    let (mut stream, node) = served.attach(&*link).await;
    let payload = Bytes::from(vec![b'x'; 10_000]);
    let cost = live(0, &payload).cost();
    let mut pushed = 0;
    let mut since = Instant::now();
    let deadline = Instant::now() + Duration::from_secs(20);
    while since.elapsed() < Duration::from_millis(500) {
        if node.sender.room() > 0 {
            node.sender.push([live(pushed, &payload)]);
            pushed += 1;
            since = Instant::now();
        }
        assert!(Instant::now() < deadline, "the stream takes frames without end: {pushed}");
        tokio::task::yield_now().await;
    }
    // On the way: the window, what waits for it in the server, and the node's queue.
    let taken = pushed as usize * cost - QUEUE_BYTES;
    let window = 1024 * 1024;
    let batches = 6 * limits::DELIVER_BATCH_BYTES;
    assert!(taken < window + limits::DELIVER_NODE_BYTES_LIMIT + batches, "{taken} bytes are on the way");
    assert!(taken > window, "{taken}: the window is used");
    let sent = served.metric("tidegate_deliver_frames_total", &[("side", "router"), ("direction", "sent")]);
    assert!(sent as usize * cost <= taken + 2 * cost, "what was taken has been sent: {sent}");
    // The connection is alive: other calls answer.
    assert!(link.resolve(crate::harness::PARTITION, tidegate_vocab::Offset(0)).await.is_ok());
    let mut heard = 0;
    while heard < pushed {
        for frame in within("frames", stream.from_router.next(64)).await.expect("open") {
            assert_eq!(frame, live(heard, &payload));
            heard += 1;
        }
    }
    assert_eq!(node.sender.room(), QUEUE_BYTES);
}

/// One History as large as the router makes them, and a Resume of very many channels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_frames_pass() {
    let mut served = Served::start(None).await;
    let link = served.dial();
    let (mut stream, mut node) = served.attach(&*link).await;
    let payload = Bytes::from(vec![b'x'; limits::EVENT_BYTES_LIMIT]);
    let rows: Vec<_> = (0..8).map(|offset| crate::harness::event(Some(offset), &payload)).collect();
    let history = ToNode::History {
        partition: crate::harness::PARTITION,
        term: tidegate_vocab::Term(5),
        n: 1,
        want: tidegate_tenure::WantId(9),
        outcome: tidegate_tenure::Outcome::Recovered,
        rows,
    };
    node.sender.push([live(0, &payload), live(1, &payload), live(2, &payload), history.clone()]);
    let mut heard = Vec::new();
    while heard.len() < 4 {
        heard.extend(within("frames", stream.from_router.next(64)).await.expect("open"));
    }
    assert_eq!(heard.last(), Some(&history));
    let name =
        |n: u64| tidegate_vocab::Channel::parse(&format!("user:{n}-{}", "x".repeat(60))).expect("valid");
    let resume = ToRouter::Resume {
        partition: crate::harness::PARTITION,
        term: tidegate_vocab::Term(5),
        n: 1,
        from: None,
        channels: (0..100_000).map(name).collect(),
    };
    stream.to_router.send(resume.clone()).await.expect("open");
    assert_eq!(within("the resume", node.frames.recv()).await, Some(resume));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_side_ends_the_stream() {
    let mut served = Served::start(None).await;
    let link = served.dial();
    // The router ends it: what it pushed before still comes.
    let (mut stream, mut node) = served.attach(&*link).await;
    node.sender.push([live(0, &Bytes::new())]);
    node.sender.close();
    assert_eq!(
        within("the last frame", stream.from_router.next(9)).await,
        Some(vec![live(0, &Bytes::new())])
    );
    assert_eq!(within("the end", stream.from_router.next(9)).await, None);
    assert_eq!(within("the router's reader", node.frames.recv()).await, None);
    // The node drops its reading side.
    let (stream, mut node) = served.attach(&*link).await;
    drop(stream.from_router);
    within("the router's end", node.sender.closed()).await;
    assert_eq!(within("the router's reader", node.frames.recv()).await, None);
    drop(stream.to_router);
    // The node drops its writing side; the router need not read for that to be heard at the node.
    let (stream, mut node) = served.attach(&*link).await;
    let DeliverStream { to_router, mut from_router } = stream;
    drop(to_router);
    assert_eq!(within("the end", from_router.next(9)).await, None);
    assert_eq!(within("the router's reader", node.frames.recv()).await, None);
    let open = |served: &Served| served.metric("tidegate_deliver_streams", &[("call", "attach")]);
    eventually("no stream is left", || open(&served) == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_comes_as_the_router_said_it() {
    let served = Served::start(None).await;
    let refused = served.dial().attach(Incarnation(0)).await.expect_err("refused");
    assert_eq!((refused.kind, refused.retry_ms), (ErrorKind::Draining, Some(1_000)));
    assert_eq!(refused.detail, "the router shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_ends_the_stream_and_the_next_attach_works() {
    let mut served = Served::start(None).await;
    let link = served.dial();
    let (mut stream, mut node) = served.attach(&*link).await;
    let begun = Instant::now();
    served.wire.cut();
    assert_eq!(within("the end", stream.from_router.next(9)).await, None);
    assert_eq!(within("the router's end", node.frames.recv()).await, None);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let (mut stream, node) = served.attach(&*link).await;
    node.sender.push([live(7, &Bytes::new())]);
    assert_eq!(within("a frame", stream.from_router.next(9)).await, Some(vec![live(7, &Bytes::new())]));
}

/// A peer that died without a word is noticed by both ends within a ping and its timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_given_up() {
    let mut served = Served::start(None).await;
    let link = served.dial();
    let (mut stream, mut node) = served.attach(&*link).await;
    let begun = Instant::now();
    served.wire.silence(true);
    assert_eq!(within("the end", stream.from_router.next(9)).await, None);
    assert_eq!(within("the router's end", node.frames.recv()).await, None);
    let bound = PING_INTERVAL + PING_TIMEOUT + Duration::from_secs(3);
    assert!(begun.elapsed() < bound, "{:?}", begun.elapsed());
    served.wire.silence(false);
    served.attach(&*link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_said_in_time() {
    let served = Served::start(None).await;
    let metrics = served.metrics.clone();
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound")
    };
    let link = tidegate_deliver::Dialer { key: None, metrics }.remote(nobody);
    let begun = Instant::now();
    let refused = link.attach(Incarnation::random()).await.expect_err("nobody");
    assert!(refused.kind.is_retryable() && refused.retry_ms.is_some(), "{refused}");
    assert!(!refused.detail.contains("127."), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// Streams that the router ends let the server end; what it never ends is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_when_the_router_has_ended_its_streams() {
    let mut served = Served::start(None).await;
    let link = served.dial();
    let (mut stream, node) = served.attach(&*link).await;
    let said = link.upstream(crate::harness::message("a", 1));
    assert!(within("an answer", said).await.is_ok());
    let begun = Instant::now();
    node.sender.push([live(0, &Bytes::new())]);
    node.sender.close();
    served.stop.take().expect("not stopped yet").send(()).expect("the server runs");
    assert!(within("the last frame", stream.from_router.next(9)).await.is_some());
    assert_eq!(within("the end", stream.from_router.next(9)).await, None);
    within("the server", &mut served.server).await.expect("ends well");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
