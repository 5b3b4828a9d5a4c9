//! `saturation`, `storm` and `stalled` on one `tidegate dev`, tiny: what they count is right, and what is wrong they notice.

use std::time::Duration;

use tidegate_loadtest::saturation::{self, SaturationOptions, saturation};
use tidegate_loadtest::stalled::{StalledOptions, stalled};
use tidegate_loadtest::storm::{self, Planted, StormOptions, storm};

use crate::dev::{Dev, alone, beside_others};

fn at_most(rate_limit: f64) -> SaturationOptions {
    SaturationOptions {
        step_seconds: 1.0,
        start_rate: 20.0,
        rate_limit,
        receivers: 3,
        bytes: 64,
        planted: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saturation_climbs_to_its_limit_and_reports_every_step() {
    let _alone = alone().await;
    let dev = Dev::start();
    let report = saturation(&at_most(44.0), &dev.cluster(), |_| ()).await.expect("a search");
    println!("{report}");
    let full: Vec<_> = report.steps.iter().filter(|step| step.is_full).map(|step| step.rate as u64).collect();
    assert!(full.contains(&40), "{report}");
    assert!(report.steps.iter().all(|step| step.wrong == 0 && !step.lags.is_empty()), "{report}");
    let page = saturation::html(&report);
    assert!(page.contains("<td>40<td>") && page.contains("<svg"), "{page}");
}

/// Three subscribers that need 20 ms for each delivery can take 16 events a second: from 43 on they are so slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saturation_sees_that_subscribers_fall_behind() {
    let _alone = alone().await;
    let dev = Dev::start();
    let planted = Some((43.0, Duration::from_millis(20)));
    let options = SaturationOptions { planted, step_seconds: 2.0, ..at_most(1_000.0) };
    let report = saturation(&options, &dev.cluster(), |_| ()).await.expect("a search");
    println!("{report}");
    assert!(report.rate.is_none_or(|rate| rate < 43.0), "{report}");
    let too_much: Vec<_> = report.steps.iter().filter(|step| step.rate > 43.0).collect();
    assert!(too_much.iter().any(|step| !step.is_flat && !step.good()), "{report}");
}

async fn small_storm(planted: Option<Planted>, patience: Duration) -> storm::Report {
    let _counts = beside_others().await;
    let dev = Dev::start();
    let options = StormOptions {
        clients: 60,
        channels: 7,
        missed: 4,
        receivers: 3,
        rate: 50.0,
        quiet_seconds: 0.5,
        pairs: 2,
        patience,
        planted,
    };
    let report = storm(&options, &dev.cluster(), |_| ()).await.expect("a storm");
    println!("{report}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_storm_every_client_gets_what_it_missed_once() {
    let report = small_storm(None, Duration::from_secs(30)).await;
    // One at first, and in each pair four that are missed and one that comes live behind them.
    assert_eq!(report.tally.came, 60 * (1 + 2 * 5), "{report}");
    assert_eq!((report.tally.lost, report.tally.twice, report.tally.told_lost), (0, 0, 0), "{report}");
    for pair in &report.pairs {
        assert!(pair.quiet.p99_ms > 0.0 && pair.storm_seconds > 0.0 && pair.late == 0, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_shows_an_old_cursor_is_noticed() {
    let report = small_storm(Some(Planted::OldCursor), Duration::from_secs(30)).await;
    // Its first cursor is of before the first event; in the second pair it gets the first one's five again too.
    assert!(report.tally.twice > 6, "{report}");
    assert!(!report.passed && report.tally.lost == 0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_shows_no_cursor_is_noticed() {
    let report = small_storm(Some(Planted::NoCursor), Duration::from_secs(3)).await;
    assert_eq!(report.tally.lost, 2 * 5, "four that it missed and one while it was late, twice: {report}");
    assert!(!report.passed && report.pairs.iter().all(|pair| pair.late == 1), "{report}");
}

fn few_readers(outbox_bytes: u64) -> StalledOptions {
    StalledOptions {
        readers: 20,
        namespace: "stalled".to_owned(),
        own: true,
        busy_rate: 50.0,
        busy_bytes: 60_000,
        outbox_bytes,
        receivers: 3,
        rate: 50.0,
        seconds: 4.0,
        pairs: 1,
        gateway: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_stall_are_closed_and_replaced_and_nobody_else_loses_anything() {
    let _alone = alone().await;
    let dev = Dev::start();
    let report = stalled(&few_readers(1 << 20), &dev.cluster(), |_| ()).await.expect("a run");
    println!("{report}");
    assert!(report.is_stalled, "{report}");
    assert!(report.pairs[0].closed >= 20, "each was closed once: {report}");
    assert!(report.pairs[0].outbox_bytes <= 20 * ((1 << 20) + 65_536), "{report}");
    // What memory grows by is not judged here: `dev` keeps the log of these large events in the same process.
}

/// With outboxes of a thousandth, what waits for these readers is far too much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_beyond_its_bound_is_noticed() {
    let _alone = alone().await;
    let dev = Dev::start();
    let report = stalled(&few_readers(1 << 10), &dev.cluster(), |_| ()).await.expect("a run");
    println!("{report}");
    assert!(report.is_stalled && !report.passed && report.grown_bytes > report.grown_limit, "{report}");
}
