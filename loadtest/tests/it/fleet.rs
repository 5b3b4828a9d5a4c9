//! A fleet of a few connections on each transport, in two processes, on a real `tidegate dev`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tidegate_loadtest::clock::now_us;
use tidegate_loadtest::fleet::{Channels, Drop, Fleet, Follow, Group, Measure};
use tidegate_loadtest::history::Receiving;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::dev::{Dev, beside_others, eventually};

const EACH: u64 = 6;
const EVENTS: u64 = 20;

fn group(transport: Receiving, public: SocketAddr, keeps_cursor: bool) -> Group {
    Group {
        transport,
        connections: EACH,
        gateways: vec![public],
        follow: Follow {
            channel: Some("fleet:{c}".to_owned()),
            channels: Channels::Some { each: 2, of: 3 },
            user: Some("fleet-{n}".to_owned()),
        },
        first: 0,
        poll_interval_ms: 20,
        keeps_cursor,
        targets: Some(3),
    }
}

/// Publishes the events of these numbers, one after the other, each to the channel that its number says.
async fn publish(api: SocketAddr, numbers: std::ops::Range<u64>) {
    let mut stream = TcpStream::connect(api).await.expect("the API listens");
    for seq in numbers {
        let data = format!("~{:016}{seq:08}", now_us());
        let body = format!("{{\"channel\":\"fleet:{}\",\"data\":\"{data}\"}}", seq % 3);
        let length = body.len();
        let request = format!(
            "POST /v1/publish HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = vec![0; 4_096];
        let count = stream.read(&mut answer).await.expect("answered");
        let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

async fn received(fleet: &Fleet, wanted: u64) {
    let counted = || fleet.counts().expect("it works").received >= wanted;
    eventually(&format!("{wanted} received"), Duration::from_secs(30), counted).await;
}

#[tokio::test]
async fn everything_comes_once_on_every_transport_and_after_a_storm() {
    let _counts = beside_others().await;
    let dev = Dev::start();
    let groups: Vec<_> = Receiving::ALL.map(|transport| group(transport, dev.public, true)).into();
    let mut fleet = Fleet::start(Path::new(env!("CARGO_BIN_EXE_loadtest")), groups, 2).expect("it starts");
    assert_eq!(fleet.pids().len(), 2);
    let all = EACH * Receiving::ALL.len() as u64;
    fleet.open(1_000.0, |_| ()).await.expect("all open");
    assert_eq!(fleet.counts().expect("it works").open, all);
    let measure = Measure { begin_us: now_us(), slot_us: 1_000_000, window_us: (0, u64::MAX) };
    fleet.measure(measure).expect("it works");
    publish(dev.api, 0..EVENTS * 3).await;
    received(&fleet, all * 2 * EVENTS).await; // Each follows two of three channels.

    let ws = 0;
    fleet.drop_group(Drop { group: ws, away_us: 300_000, rate: 0.0 }).expect("it works");
    publish(dev.api, EVENTS * 3..EVENTS * 6).await; // Some of it while they are away.
    received(&fleet, all * 4 * EVENTS).await;
    for (tally, transport) in fleet.collect().await.expect("it works").iter().zip(Receiving::ALL) {
        assert_eq!(tally.received, EACH * 4 * EVENTS, "{transport:?} {tally:?}");
        assert_eq!((tally.disordered, tally.told, tally.closed), (0, 0, 0), "{transport:?} {tally:?}");
        let may_repeat = transport == Receiving::ALL[ws]; // What came last before they were dropped.
        assert!(tally.twice == 0 || may_repeat, "{transport:?} {tally:?}");
        assert_eq!(tally.latencies.count(), tally.received);
        assert_eq!(tally.slots.iter().map(|slot| slot.count()).sum::<u64>(), tally.received);
        assert!(tally.window_bytes > tally.received * 25, "{transport:?} {tally:?}");
        let opened_again = if transport == Receiving::ALL[ws] { EACH } else { 0 };
        assert_eq!(tally.openings.count(), opened_again, "{transport:?} {tally:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let nobody: SocketAddr = ([127, 0, 0, 1], 1).into();
    let groups = vec![group(Receiving::Ws, nobody, false)];
    let mut fleet = Fleet::start(Path::new(env!("CARGO_BIN_EXE_loadtest")), groups, 1).expect("it starts");
    fleet.patience = Duration::from_secs(2);
    let opening = tokio::time::timeout(
        Duration::from_secs(120),
        fleet.open(1_000.0, |counts| {
            if let Some(problem) = &counts.last_problem {
                assert!(problem.contains("refused"), "{problem}");
            }
        }),
    );
    let error = opening.await.expect("it gives up").expect_err("nobody listens").to_string();
    assert!(error.contains("0 of 6 connections are open") && error.contains("refused"), "{error}");
}
