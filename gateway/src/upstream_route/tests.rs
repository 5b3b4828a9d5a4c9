use std::sync::Mutex;

use bytes::Bytes;
use futures::future::join_all;
use tidegate_link::{ControlAnswer, ControlAsk, DeliverStream, NodeHello, ReachStream, Routed, Settled};
use tidegate_vocab::{Channel, ConnectionId, Event, Incarnation, LogEpoch, Offset, PartitionId, Payload};
use tokio::sync::watch;

use super::*;

/// What a fake router does with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Answers,
    Hesitates,
    BreaksOff,
    IsFull,
}

struct FakeRouter {
    is_local: bool,
    mood: watch::Sender<Mood>,
    said: Mutex<Vec<u64>>,
}

impl FakeRouter {
    fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self { is_local: false, mood: watch::Sender::new(mood), said: Mutex::default() })
    }

    fn said(&self) -> Vec<u64> {
        self.said.lock().expect("no panic").clone()
    }
}

impl RouterLink for FakeRouter {
    fn is_local(&self) -> bool {
        self.is_local
    }

    fn attach(&self, _: Incarnation) -> BoxFuture<'_, Result<DeliverStream, Problem>> {
        Box::pin(std::future::pending())
    }

    fn upstream(&self, message: UpstreamMessage) -> BoxFuture<'static, Answer> {
        self.said.lock().expect("no panic").push(message.seq);
        let mut mood = self.mood.subscribe();
        Box::pin(async move {
            let mood = *mood.wait_for(|mood| *mood != Mood::Hesitates).await.expect("the router lives");
            match mood {
                Mood::Answers | Mood::Hesitates => {
                    Ok(Position { epoch: LogEpoch(1), partition: 0, offset: Offset(message.seq) })
                }
                Mood::BreaksOff => Err(Problem::new(ErrorKind::Draining, "cut")),
                Mood::IsFull => Err(Problem::new(ErrorKind::StorageFull, "full")),
            }
        })
    }

    fn resolve(&self, _: PartitionId, _: Offset) -> BoxFuture<'static, Result<Settled, Problem>> {
        Box::pin(std::future::pending())
    }

    fn control(&self, _: ControlAsk) -> BoxFuture<'static, Result<ControlAnswer, Problem>> {
        Box::pin(std::future::pending())
    }

    fn reach(&self, _: NodeHello) -> BoxFuture<'_, Result<ReachStream, Problem>> {
        Box::pin(std::future::pending())
    }

    fn ephemeral(&self, _: Arc<Event>) -> BoxFuture<'static, Result<Routed, Problem>> {
        Box::pin(std::future::pending())
    }
}

type Named = watch::Sender<BTreeMap<String, Arc<dyn RouterLink>>>;

fn named(routers: &[(&str, &Arc<FakeRouter>)]) -> BTreeMap<String, Arc<dyn RouterLink>> {
    let link = |router: &Arc<FakeRouter>| Arc::clone(router) as Arc<dyn RouterLink>;
    routers.iter().map(|(address, router)| ((*address).to_owned(), link(router))).collect()
}

fn route(routers: &[(&str, &Arc<FakeRouter>)], partitions: u32) -> (UpstreamRoute, Named, IntCounter) {
    let (sender, watching) = watch::channel(named(routers));
    let moves = IntCounter::new("moves", "moves").expect("valid");
    (UpstreamRoute::start(watching, partitions, moves.clone()), sender, moves)
}

fn message(seq: u64) -> UpstreamMessage {
    UpstreamMessage {
        connection: ConnectionId(1, 2),
        user: None,
        channel: Channel::parse("a").expect("valid"),
        payload: Payload::Json(Bytes::from_static(b"1")),
        seq,
        trace_parent: None,
    }
}

fn of_user(user: u64) -> UpstreamMessage {
    let user = tidegate_vocab::UserId::parse(&format!("user-{user}")).expect("valid");
    UpstreamMessage { user: Some(user), ..message(1) }
}

async fn send_all(route: &UpstreamRoute, seqs: std::ops::RangeInclusive<u64>) -> Vec<Answer> {
    join_all(seqs.map(|seq| route.send(message(seq)))).await
}

/// Lets the route's task do all that it can do without time passing.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// The address that ranks first for the only partition, and the other.
fn ranked() -> (&'static str, &'static str) {
    if rank("a", 0) > rank("b", 0) { ("a", "b") } else { ("b", "a") }
}

#[tokio::test(start_paused = true)]
async fn partitions_are_spread_and_keep_their_router() {
    let (one, other) = (FakeRouter::new(Mood::Answers), FakeRouter::new(Mood::Answers));
    let (route, named_routers, _) = route(&[("a", &one), ("b", &other)], 64);
    let answers = join_all((0..400).map(|user| route.send(of_user(user)))).await;
    assert!(answers.iter().all(Result::is_ok));
    let (at_one, at_other) = (one.said().len(), other.said().len());
    assert_eq!(at_one + at_other, 400);
    assert!(at_one > 100 && at_other > 100, "{at_one} and {at_other}");
    // A third takes over some partitions; whoever stays with the first two has the router it had.
    let third = FakeRouter::new(Mood::Answers);
    named_routers.send_replace(named(&[("a", &one), ("b", &other), ("c", &third)]));
    settle().await;
    join_all((0..400).map(|user| route.send(of_user(user)))).await;
    let moved = third.said().len();
    assert!(moved > 60, "{moved}");
    assert!(one.said().len() <= 2 * at_one && other.said().len() <= 2 * at_other);
}

#[tokio::test(start_paused = true)]
async fn the_unacked_tail_goes_to_the_next_router_in_order() {
    let (first, next) = (FakeRouter::new(Mood::Answers), FakeRouter::new(Mood::Answers));
    let (first_address, next_address) = ranked();
    let (route, _named, moves) = route(&[(first_address, &first), (next_address, &next)], 1);
    assert!(send_all(&route, 1..=3).await.iter().all(Result::is_ok));
    first.mood.send_replace(Mood::Hesitates);
    let tail: Vec<_> = (4..=10).map(|seq| route.send(message(seq))).collect();
    settle().await;
    assert_eq!(first.said(), (1..=10).collect::<Vec<u64>>());
    assert!(next.said().is_empty());
    first.mood.send_replace(Mood::BreaksOff);
    let later = route.send(message(11));
    assert!(join_all(tail).await.iter().all(Result::is_ok));
    assert!(later.await.is_ok());
    assert_eq!(next.said(), (4..=11).collect::<Vec<u64>>());
    assert_eq!(moves.get(), 1);
    // The one that failed is avoided for a while, and is the first again after that.
    first.mood.send_replace(Mood::Answers);
    assert!(route.send(message(12)).await.is_ok());
    assert_eq!(next.said().last(), Some(&12));
    tokio::time::advance(AVOIDED_FOR).await;
    assert!(route.send(message(13)).await.is_ok());
    assert_eq!(first.said().last(), Some(&13));
}

#[tokio::test(start_paused = true)]
async fn what_a_router_answers_is_final() {
    let (one, other) = (FakeRouter::new(Mood::IsFull), FakeRouter::new(Mood::IsFull));
    let (route, _named, _) = route(&[("a", &one), ("b", &other)], 1);
    for answer in send_all(&route, 1..=3).await {
        assert_eq!(answer.expect_err("full").kind, ErrorKind::StorageFull);
    }
    assert_eq!(one.said().len() + other.said().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_router_that_is_no_longer_named_ends_what_it_has_first() {
    let (first, next) = (FakeRouter::new(Mood::Hesitates), FakeRouter::new(Mood::Answers));
    let (first_address, next_address) = ranked();
    let (route, named_routers, _) = route(&[(first_address, &first), (next_address, &next)], 1);
    let begun = route.send(message(1));
    settle().await;
    named_routers.send_replace(named(&[(next_address, &next)]));
    settle().await;
    let later = route.send(message(2));
    settle().await;
    assert_eq!((first.said(), next.said()), (vec![1], vec![]));
    first.mood.send_replace(Mood::Answers);
    assert!(begun.await.is_ok() && later.await.is_ok());
    assert_eq!((first.said(), next.said()), (vec![1], vec![2]));
}

#[tokio::test(start_paused = true)]
async fn without_a_router_the_client_is_told_when_to_try_again() {
    let (route, named_routers, _) = route(&[], 1);
    let begun = Instant::now();
    let problem = route.send(message(1)).await.expect_err("nobody");
    assert_eq!((problem.kind, problem.retry_ms), (ErrorKind::LogUnavailable, Some(1_000)));
    assert!(begun.elapsed() >= PATIENCE && begun.elapsed() < PATIENCE + 2 * TICK);
    // One that comes in time gets what waits, in order.
    let waiting: Vec<_> = (2..=5).map(|seq| route.send(message(seq))).collect();
    let router = FakeRouter::new(Mood::Answers);
    named_routers.send_replace(named(&[("a", &router)]));
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    assert_eq!(router.said(), [2, 3, 4, 5]);
    // The only one is tried again until patience ends.
    router.mood.send_replace(Mood::BreaksOff);
    let problem = route.send(message(6)).await.expect_err("breaks off");
    assert_eq!(problem.kind, ErrorKind::Indeterminate);
    let tries = router.said().len() - 4;
    assert!((10..=30).contains(&tries), "{tries}");
}

#[tokio::test(start_paused = true)]
async fn the_only_router_of_the_process_is_called_at_once() {
    let local = Arc::new(FakeRouter {
        is_local: true,
        mood: watch::Sender::new(Mood::Hesitates),
        said: Mutex::default(),
    });
    let (route, named_routers, _) = route(&[("local", &local)], 1);
    let direct = route.send(message(1));
    assert_eq!(local.said(), [1], "without the task");
    // Others join: what follows waits for the direct call.
    let joined = FakeRouter::new(Mood::Answers);
    named_routers.send_replace(named(&[("a", &joined)]));
    settle().await;
    let later = route.send(message(2));
    settle().await;
    assert!(joined.said().is_empty());
    local.mood.send_replace(Mood::Answers);
    assert!(direct.await.is_ok() && later.await.is_ok());
    assert_eq!(joined.said(), [2]);
}
