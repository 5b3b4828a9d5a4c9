//! Small histories by hand, each with one fault or none.

use super::*;
use crate::history::{
    Action, ClientLine, ClientPlan, Cluster, Delivery, FaultLine, PublishLine, Receiving, Run, Sample,
};

const EPOCH: &str = "00000000000000aa";

fn pos(offset: u64) -> String {
    format!("{EPOCH}.0.{offset}")
}

fn publish(n: u64, t_us: u64) -> [PublishLine; 2] {
    let (key, channel) = (format!("k{n}"), "a".to_owned());
    [
        PublishLine::Publish {
            t_us,
            key: key.clone(),
            channel: channel.clone(),
            seq: n,
            attempt: 1,
            router: "r1".into(),
        },
        PublishLine::Ack { t_us: t_us + 500, key, channel, seq: n, pos: pos(n * 10) },
    ]
}

fn connect(t_us: u64, client: u32, connection: u32) -> [ClientLine; 2] {
    let (transport, gateway) = (Receiving::Ws, "g1".to_owned());
    let (recovered, fresh) =
        if connection == 1 { (vec![], vec!["a".into()]) } else { (vec!["a".into()], vec![]) };
    let (lost, pending, cursor) = (vec![], vec![], "c".to_owned());
    [
        ClientLine::Connect { t_us, client, connection, transport, gateway, cursor: None },
        ClientLine::State { t_us: t_us + 10, client, connection, cursor, recovered, fresh, lost, pending },
    ]
}

fn event(n: u64, t_us: u64, client: u32, connection: u32) -> ClientLine {
    let (channel, key, pos, cursor) = ("a".to_owned(), format!("k{n}"), pos(n * 10), None);
    ClientLine::Event(Delivery { t_us, client, connection, channel, key, pos, cursor })
}

fn cut(t_us: u64, client: u32, connection: u32) -> ClientLine {
    ClientLine::Cut { t_us, client, connection, reason: "cut".into() }
}

/// Ten events, 10 ms apart; two clients, of which the second loses its connection behind event 5.
fn good() -> History {
    let clients =
        [1, 2].map(|client| ClientPlan { client, transport: Receiving::Ws, channels: vec!["a".into()] });
    let run = Run {
        run: "test".into(),
        seconds: 1,
        rate: 100,
        partitions: 1,
        channels: vec!["a".into()],
        clients: clients.to_vec(),
        cluster: Cluster { gateways: vec!["g1".into()], routers: vec!["r1".into()] },
    };
    let mut lines = [connect(0, 1, 1), connect(0, 2, 1)].concat();
    for n in 1..=10 {
        lines.push(event(n, n * 10_000 + 600, 1, 1));
        if n == 6 {
            lines.push(cut(55_000, 2, 1));
            lines.extend(connect(56_000, 2, 2));
        }
        lines.push(event(n, n * 10_000 + 700, 2, if n < 6 { 1 } else { 2 }));
    }
    let sample =
        |t_us, count| Sample { t_us, node: "r1".into(), pushes: count, wanted: count, ..Sample::default() };
    History {
        run,
        publishes: (1..=10).flat_map(|n| publish(n, n * 10_000)).collect(),
        clients: lines,
        faults: Vec::new(),
        samples: vec![sample(0, 5), sample(1, 15)],
    }
}

fn verdict(history: &History) -> Verdict {
    let mut verdict = judge(history, &hot());
    verdict.decide(prove(history));
    verdict
}

/// The one finding of a history: kind, client and position.
fn only(history: &History) -> (Kind, Option<u32>, String) {
    let verdict = verdict(history);
    assert!(!verdict.good, "{verdict}");
    let [finding] = verdict.findings.as_slice() else { panic!("{verdict}") };
    (finding.kind, finding.client, finding.pos.expect("a position").to_string())
}

fn place_of(history: &History, n: u64, client: u32) -> usize {
    let is_it = |line: &ClientLine| matches!(line, ClientLine::Event(e) if e.key == format!("k{n}") && e.client == client);
    history.clients.iter().position(is_it).expect("received")
}

#[test]
fn a_good_history_is_good_and_proved() {
    let verdict = verdict(&good());
    assert!(verdict.good, "{verdict}");
    assert_eq!((verdict.acked, verdict.expected, verdict.received, verdict.connections), (10, 20, 20, 3));
    assert_eq!(verdict.proved.as_ref().map(Vec::len), Some(3), "{verdict}");
    assert_eq!(verdict.amplification, Some(1.0));
}

#[test]
fn what_is_missing_is_named() {
    let mut history = good();
    history.clients.remove(place_of(&history, 4, 2));
    assert_eq!(only(&history), (Kind::Missing, Some(2), pos(40)));
}

#[test]
fn the_last_event_can_be_missing_too() {
    let mut history = good();
    history.clients.remove(place_of(&history, 10, 1));
    assert_eq!(only(&history), (Kind::Missing, Some(1), pos(100)));
}

#[test]
fn what_came_twice_on_one_connection_is_named_also_long_after() {
    let mut history = good();
    history.clients.push(event(3, 200_000, 1, 1));
    assert_eq!(only(&history), (Kind::Twice, Some(1), pos(30)));
}

#[test]
fn what_is_out_of_order_is_named() {
    let mut history = good();
    let (three, four) = (place_of(&history, 3, 1), place_of(&history, 4, 1));
    history.clients.swap(three, four);
    assert_eq!(only(&history), (Kind::Order, Some(1), pos(30)));
}

#[test]
fn what_is_filled_in_after_a_resume_is_out_of_order() {
    let mut history = good();
    let five = history.clients.remove(place_of(&history, 5, 2));
    let ClientLine::Event(five) = five else { panic!("an event") };
    history.clients.push(ClientLine::Event(Delivery { connection: 2, t_us: 150_000, ..five }));
    assert_eq!(only(&history), (Kind::Order, Some(2), pos(50)));
}

#[test]
fn a_repeat_after_a_resume_counts_at_clients_of_one_channel_only() {
    let mut history = good();
    let six = place_of(&history, 6, 2);
    history.clients.insert(six, event(5, 58_000, 2, 2));
    assert_eq!(only(&history), (Kind::Repeat, Some(2), pos(50)));
    history.run.clients[1].channels.push("b".into());
    history.run.channels.push("b".into());
    let ClientLine::State { fresh, .. } = &mut history.clients[3] else { panic!("a state") };
    fresh.push("b".into());
    let verdict = verdict(&history);
    assert!(verdict.good, "{verdict}");
    assert_eq!(verdict.repeats_allowed, 1);
}

#[test]
fn a_loss_that_was_told_is_no_silence_and_still_not_good() {
    let mut history = good();
    let four = place_of(&history, 4, 2);
    history.clients[four] = ClientLine::Gap {
        t_us: 60_000,
        client: 2,
        connection: 1,
        channel: "a".into(),
        reason: "slow".into(),
    };
    let verdict = verdict(&history);
    assert_eq!((verdict.count(Kind::Missing), verdict.told, verdict.told_missing), (0, 1, 1));
    assert!(!verdict.good);
}

#[test]
fn one_event_under_two_positions_is_named() {
    let mut history = good();
    let mut again = event(4, 200_000, 1, 1);
    let ClientLine::Event(delivery) = &mut again else { panic!("an event") };
    delivery.pos = pos(999);
    history.clients.push(again);
    assert_eq!(only(&history), (Kind::Position, Some(1), pos(999)));
}

#[test]
fn what_nobody_published_or_followed_is_named() {
    let mut history = good();
    history.clients.push(event(77, 200_000, 1, 1));
    assert_eq!(only(&history), (Kind::Foreign, Some(1), pos(770)));
}

#[test]
fn a_log_against_the_order_of_acks_is_named() {
    let mut history = good();
    // Event 8 was published after event 9 had been acked, and stands before it.
    let at = |line: &PublishLine| matches!(line, PublishLine::Publish { seq: 8, .. });
    let place = history.publishes.iter().position(at).expect("published");
    let PublishLine::Publish { t_us, .. } = &mut history.publishes[place] else { panic!("a publish") };
    *t_us = 95_000;
    let found = judge(&history, &Limits::default()).findings;
    assert!(found.iter().any(|f| f.kind == Kind::AckOrder && f.key == "k8"), "{found:?}");
}

#[test]
fn nothing_is_not_good() {
    let whole = good();
    let no_acks = History { publishes: Vec::new(), clients: Vec::new(), ..whole.clone() };
    let deaf = History {
        clients: whole.clients.iter().filter(|l| !is_of(l, 2)).cloned().collect(),
        ..whole.clone()
    };
    let uncounted = History { samples: Vec::new(), ..whole.clone() };
    let mut unanswered = whole;
    unanswered.publishes.pop();
    let expected = [
        (no_acks, "no event was acked"),
        (deaf, "1 clients never followed"),
        (uncounted, "counted no push"),
        (unanswered, "1 publishes were never answered"),
    ];
    for (history, problem) in expected {
        let verdict = verdict(&history);
        assert!(
            !verdict.good && verdict.problems.iter().any(|p| p.contains(problem)),
            "{problem}: {verdict}"
        );
    }
}

fn is_of(line: &ClientLine, number: u32) -> bool {
    match line {
        ClientLine::Connect { client, .. }
        | ClientLine::State { client, .. }
        | ClientLine::Cut { client, .. } => *client == number,
        ClientLine::Event(delivery) => delivery.client == number,
        _ => false,
    }
}

#[test]
fn counters_of_a_process_that_began_again_are_added() {
    let sample =
        |node: &str, pushes, wanted| Sample { node: node.into(), pushes, wanted, ..Sample::default() };
    let samples = [
        sample("r1", 100, 100),
        sample("r2", 0, 0),
        sample("r1", 160, 150),
        sample("r2", 30, 30),
        sample("r1", 10, 10),
    ];
    assert_eq!(amplification::of(&samples), Some(100.0 / 90.0));
    assert_eq!(amplification::of(&samples[..2]), None);
}

fn fault(t_us: u64, action: Action, node: &str, serving: Option<u64>) -> FaultLine {
    FaultLine::Fault { t_us, done_us: t_us + 1_000, action, node: node.into(), serving }
}

/// Adds to the time at which one client, or both, received an event.
fn delay(history: &mut History, n: u64, clients: &[u32], by_us: u64) {
    for line in &mut history.clients {
        if let ClientLine::Event(delivery) = line
            && delivery.key == format!("k{n}")
            && clients.contains(&delivery.client)
        {
            delivery.t_us += by_us;
        }
    }
}

/// All of these histories are shorter than a warm-up.
fn hot() -> Limits {
    Limits { warm_up_ms: 0, ..Limits::default() }
}

/// The longest pause and its limit, by the start of the cause's name.
fn pause(history: &History, cause: &str) -> Option<(u64, Option<u64>)> {
    let pauses = judge(history, &hot()).pauses;
    pauses.iter().find(|p| p.cause.starts_with(cause)).map(|p| (p.max_ms as u64, p.limit_ms))
}

#[test]
fn a_pause_that_no_fault_explains_is_elsewhere_and_not_good() {
    let mut history = good();
    delay(&mut history, 8, &[1], 400_000);
    assert_eq!(pause(&history, "elsewhere"), Some((400, Some(250))));
    let verdict = verdict(&history);
    assert!(verdict.problems.iter().any(|problem| problem.starts_with("elsewhere: 401 ms")), "{verdict}");
}

#[test]
fn what_is_slow_at_first_is_told_apart_and_has_a_limit_too() {
    let mut history = good();
    delay(&mut history, 8, &[1], 400_000);
    let verdict = judge(&history, &Limits::default());
    let first = verdict.pauses.iter().find(|pause| pause.cause == "first 2000 ms of load").expect("told");
    assert_eq!((first.max_ms as u64, first.limit_ms), (400, Some(1_000)));
    assert!(!verdict.problems.iter().any(|problem| problem.contains("ms")), "{verdict}");
    delay(&mut history, 8, &[1], 1_100_000);
    let verdict = judge(&history, &Limits::default());
    assert!(verdict.problems.iter().any(|problem| problem.starts_with("first 2000 ms of load")), "{verdict}");
}

#[test]
fn the_clients_of_a_killed_gateway_wait_for_it() {
    let mut history = good();
    history.faults = vec![fault(54_000, Action::Kill, "g1", None), fault(90_000, Action::Start, "g1", None)];
    for line in &mut history.clients {
        if let ClientLine::State { t_us, connection: 2, .. } = line {
            *t_us = 2_000_000;
        }
    }
    delay(&mut history, 6, &[2], 2_000_000);
    assert_eq!(pause(&history, "kill g1: its clients"), Some((2_000, Some(6_000))));
    // The other client kept its connection: what it waits for has another reason.
    delay(&mut history, 6, &[1], 400_000);
    assert_eq!(pause(&history, "elsewhere"), Some((400, Some(250))));
}

#[test]
fn the_partitions_of_a_killed_router_stand_still_for_everyone() {
    let mut history = good();
    history.faults = vec![fault(79_000, Action::Kill, "r1", Some(1))];
    delay(&mut history, 8, &[1, 2], 3_000_000);
    assert_eq!(pause(&history, "kill r1: 1 of 1 partitions"), Some((3_000, Some(8_000))));
    // What is slow again long after it had gone on has another reason.
    let mut again = history.clone();
    for line in &mut again.publishes {
        match line {
            PublishLine::Publish { t_us, seq: 10, .. } | PublishLine::Ack { t_us, seq: 10, .. } => {
                *t_us += 8_000_000
            }
            _ => {}
        }
    }
    delay(&mut again, 10, &[1, 2], 8_400_000);
    assert_eq!(pause(&again, "elsewhere"), Some((400, Some(250))));
    // It served nothing: then it explains nothing.
    history.faults = vec![fault(79_000, Action::Kill, "r1", Some(0))];
    assert_eq!(pause(&history, "elsewhere"), Some((3_000, Some(250))));
    // One client alone is slow: that is no partition that stands still.
    let mut history = good();
    history.faults = vec![fault(79_000, Action::Kill, "r1", Some(1))];
    delay(&mut history, 8, &[1], 3_000_000);
    assert_eq!(pause(&history, "elsewhere"), Some((3_000, Some(250))));
}

#[test]
fn a_publish_that_a_killed_router_left_unanswered_explains_its_delay() {
    let mut history = good();
    history.faults = vec![fault(79_000, Action::Kill, "r2", Some(0))];
    delay(&mut history, 8, &[1, 2], 500_000);
    assert_eq!(pause(&history, "elsewhere"), Some((500, Some(250))));
    let (key, channel) = ("k8".to_owned(), "a".to_owned());
    let first = PublishLine::Publish { t_us: 80_000, key, channel, seq: 8, attempt: 1, router: "r2".into() };
    let at = |line: &PublishLine| matches!(line, PublishLine::Publish { seq: 8, .. });
    let place = history.publishes.iter().position(at).expect("published");
    history.publishes.insert(place, first);
    assert_eq!(pause(&history, "kill r2"), Some((500, Some(8_000))));
}
