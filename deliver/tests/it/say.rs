//! What clients say: order, answers, and what a cut leaves unanswered.

use futures::future::join_all;
use tidegate_link::RouterLink as _;
use tidegate_vocab::{ErrorKind, Offset};

use crate::harness::{Served, eventually, message, within};

fn said(served: &Served) -> Vec<u64> {
    served.router.said.lock().expect("no panic").iter().map(|message| message.seq).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_keep_the_order_of_the_calls() {
    let served = Served::start(None).await;
    let link = served.dial();
    for round in 0..20 {
        let calls: Vec<_> = (1..=500).map(|seq| link.upstream(message("a", round * 500 + seq))).collect();
        for (index, answer) in within("answers", join_all(calls)).await.into_iter().enumerate() {
            assert_eq!(answer.expect("accepted").offset, Offset(round * 500 + index as u64 + 1));
        }
    }
    assert_eq!(said(&served), (1..=10_000).collect::<Vec<u64>>());
    assert_eq!(served.metric("tidegate_deliver_streams", &[("call", "say"), ("side", "router")]), 1.0);
    let whole = served.router.said.lock().expect("no panic")[0].clone();
    assert_eq!(format!("{whole:?}"), format!("{:?}", message("a", 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_comes_as_the_router_said_it() {
    let served = Served::start(None).await;
    let refused = served.dial().upstream(message("refused", 1)).await.expect_err("refused");
    assert_eq!(
        (refused.kind, refused.detail.as_str(), refused.retry_ms),
        (ErrorKind::StorageFull, "full", Some(7))
    );
}

/// What is unanswered when the stream breaks is told so, all of it, and the next message opens a new stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_tells_the_unanswered_tail() {
    let served = Served::start(None).await;
    let link = served.dial();
    let answered: Vec<_> = (1..=3).map(|seq| link.upstream(message("a", seq))).collect();
    assert!(within("answers", join_all(answered)).await.iter().all(Result::is_ok));
    served.router.answers.send_replace(false);
    let tail: Vec<_> = (4..=200).map(|seq| link.upstream(message("a", seq))).collect();
    eventually("the router has the tail", || said(&served).len() == 200).await;
    served.wire.cut();
    for answer in within("answers", join_all(tail)).await {
        assert_eq!(answer.expect_err("cut").kind, ErrorKind::Draining);
    }
    served.router.answers.send_replace(true);
    // The connection may not have noticed yet: then nothing is sent, and the next try has a new one.
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    while within("an answer", link.upstream(message("a", 201))).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "no new stream");
    }
    assert_eq!(said(&served)[..200], (1..=200).collect::<Vec<u64>>());
    assert_eq!(said(&served).last(), Some(&201));
}

/// A router that leaves messages unanswered is not waited for without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overdue_answer_breaks_the_stream() {
    let served = Served::start(None).await;
    let link = served.dial();
    served.router.answers.send_replace(false);
    let tail: Vec<_> = (1..=3).map(|seq| link.upstream(message("a", seq))).collect();
    for answer in within("answers", join_all(tail)).await {
        assert_eq!(answer.expect_err("overdue").kind, ErrorKind::Draining);
    }
}

/// Answers that are due still come when the link is let go of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_link_leaves_what_was_said() {
    let served = Served::start(None).await;
    let link = served.dial();
    served.router.answers.send_replace(false);
    let first = link.upstream(message("a", 1));
    eventually("the router has it", || said(&served).len() == 1).await;
    drop(link);
    served.router.answers.send_replace(true);
    assert!(within("the answer", first).await.is_ok());
    eventually("the stream ends", || served.metric("tidegate_deliver_streams", &[("call", "say")]) == 0.0)
        .await;
}
