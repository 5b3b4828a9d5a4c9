//! `run` from end to end on a real `tidegate dev`: a small scenario with every transport, and a storm.

use std::path::PathBuf;

use tidegate_loadtest::history::Receiving;
use tidegate_loadtest::run::{RunOptions, RunReport, Servers, html, run};
use tidegate_loadtest::scenario::Scenario;
use tidegate_loadtest::transports::{self, TransportsOptions};

use crate::dev::{Dev, alone};

const SCENARIO: &str = r#"
about = "a little of everything"
seconds = 3
warm_up_seconds = 1

[channels]
shape = "some"
follow = 2
of = 4

[[clients]]
transport = "ws"
connections = 8

[[clients]]
transport = "sse"
connections = 8

[[clients]]
transport = "ndjson"
connections = 8

[[clients]]
transport = "long_poll"
connections = 8

[[clients]]
transport = "short_poll"
connections = 8
poll_interval_ms = 100

[publish]
rate = 20
bytes = 80
"#;

/// What every run of 4 s at 20/s publishes, and what eight connections with two of four channels are owed of it.
const EVENTS: u64 = 80;
const OWED: u64 = EVENTS / 4 * 2 * 8;

async fn outcome(text: &str, planted_drop: Option<u64>) -> RunReport {
    let _alone = alone().await;
    let dev = Dev::start();
    let options = RunOptions {
        name: "test".to_owned(),
        scenario: Scenario::parse(text).expect("valid"),
        servers: Servers::alone(dev.public, dev.api, Some(dev.pid())),
        loadtest: PathBuf::from(env!("CARGO_BIN_EXE_loadtest")),
        least_workers: 2,
        settles: false,
        planted_drop,
    };
    run(&options, |_| ()).await.expect("it runs")
}

#[tokio::test]
async fn everything_arrives_and_is_counted_by_transport() {
    let report = outcome(SCENARIO, None).await;
    assert!(report.good, "{report}");
    assert_eq!((report.events, report.failed, report.groups.len()), (EVENTS, 0, 5), "{report}");
    for group in &report.groups {
        assert_eq!((group.expected, group.received), (OWED, OWED), "{report}");
        assert_eq!((group.lost, group.twice, group.disordered, group.closed), (0, 0, 0, 0), "{report}");
        let deliveries: f64 = group.seconds.iter().map(|second| second.deliveries_per_second).sum();
        assert_eq!(deliveries as u64, OWED, "the time line has every delivery: {report}");
    }
    assert_eq!(report.servers.len(), 1, "{report}");
    let page = html(&report);
    assert_eq!(page.matches("<svg").count(), 3, "{page}");
    for banned in ["<script", "http://", "https://", "NaN", "inf"] {
        assert!(!page.contains(banned), "{banned}");
    }
}

#[tokio::test]
async fn an_event_that_is_not_sent_is_noticed_as_lost_by_all_that_follow_its_channel() {
    let report = outcome(SCENARIO, Some(33)).await;
    assert!(!report.good, "{report}");
    assert_eq!(report.events, EVENTS);
    for group in &report.groups {
        // Each channel is followed by half of them.
        assert_eq!((group.lost, group.twice, group.disordered), (4, 0, 0), "{report}");
    }
}

#[tokio::test]
async fn who_is_dropped_comes_back_and_has_missed_nothing() {
    let storm = "\n[storm]\nclients = \"sse\"\nat_second = 1\naway_ms = 200\n";
    let report = outcome(&format!("{SCENARIO}{storm}"), None).await;
    assert!(report.groups.iter().all(|group| group.lost == 0 && group.told == 0), "{report}");
    let returned: Vec<_> = report.groups.iter().filter(|group| group.returned.is_some()).collect();
    assert_eq!((returned.len(), returned[0].name.as_str()), (1, "sse"), "{report}");
    let beside: Vec<_> = report.groups.iter().filter_map(|group| group.beside_storm).collect();
    assert!(beside.len() == 4 && beside.iter().all(|(before, _)| before.max_ms > 0.0), "{report}");
    assert!(returned[0].returned.is_some_and(|returned| returned.max_ms > 0.0), "{report}");
}

#[tokio::test]
async fn transports_are_measured_one_after_the_other() {
    let _alone = alone().await;
    let dev = Dev::start();
    let options = TransportsOptions {
        connections: 5,
        rate: 20.0,
        bytes: 100,
        seconds: 2,
        poll_interval_ms: 100,
        settles: false,
        loadtest: PathBuf::from(env!("CARGO_BIN_EXE_loadtest")),
    };
    let servers = Servers::alone(dev.public, dev.api, Some(dev.pid()));
    let report = transports::transports(&options, &servers, |_| ()).await.expect("it runs");
    assert!(report.is_good() && report.rows.len() == 5, "{report}");
    for row in &report.rows {
        assert!(row.overhead_bytes > 20.0, "an event is more than its data: {report}");
        let polls = matches!(row.transport, Receiving::LongPoll | Receiving::ShortPoll);
        assert_eq!(row.request_bytes > 50.0, polls, "{report}");
    }
    let table = report.to_string();
    assert_eq!(table.lines().filter(|line| line.starts_with("| ")).count(), 6, "{table}");
    let page = transports::html(&report);
    assert!(page.matches("<svg").count() == 2 && !page.contains("<script"), "{page}");
}

#[tokio::test]
async fn users_are_reached_directly() {
    let text = "about = \"users\"\nseconds = 2\nwarm_up_seconds = 1\n[channels]\nshape = \"user\"\n[[clients]]\n\
                transport = \"ws\"\nconnections = 10\n[publish]\nrate = 20\nbytes = 40\nas = \"direct\"\n";
    let report = outcome(text, None).await;
    assert!(report.good && report.groups[0].received == 60, "{report}");
}
