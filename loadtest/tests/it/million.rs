//! `loadtest million` on a real `tidegate dev`, and much smaller: it stands for a cluster of one.

use std::path::PathBuf;
use std::time::Duration;

use tidegate_loadtest::million::{MillionOptions, Report, html, million};

use crate::dev::{Dev, beside_others};

const CONNECTIONS: u64 = 200;
const UNICASTS: u64 = 40;

fn options() -> MillionOptions {
    MillionOptions {
        connections: CONNECTIONS,
        rate: 500.0,
        unicasts: UNICASTS,
        unicast_rate: 200.0,
        idle_seconds: 1,
        least_memory_bytes: 0,
        patience: Duration::from_secs(30),
        loadtest: PathBuf::from(env!("CARGO_BIN_EXE_loadtest")),
        planted_drops: 0,
    }
}

async fn run(options: &MillionOptions) -> anyhow::Result<Report> {
    let _counts = beside_others().await;
    let dev = Dev::start();
    million(options, &dev.cluster(), |_| ()).await
}

#[tokio::test]
async fn all_hear_what_is_for_all_and_each_what_is_for_it_alone() {
    let report = run(&options()).await.expect("a run");
    assert!(report.passed, "{report}");
    assert_eq!((report.broadcast.received, report.unicasts.received), (CONNECTIONS, UNICASTS), "{report}");
    assert_eq!((report.closed, report.gateways, report.workers), (0, 1, 1), "{report}");
    assert!(report.open.machine.tcp_sockets >= 2 * CONNECTIONS, "{report}"); // Other tests' sockets come and go.
    assert!(report.open.gateways > 0 && report.open.clients > 0, "{report}");
    assert_eq!(report.points.last().map(|point| point.open), Some(CONNECTIONS));
    assert_eq!(html(&report).matches("<svg").count(), 2);
}

#[tokio::test]
async fn what_was_not_published_is_noticed_as_lost() {
    let options =
        MillionOptions { planted_drops: 3, patience: Duration::from_secs(3), idle_seconds: 0, ..options() };
    let report = run(&options).await.expect("a run");
    assert_eq!((report.broadcast.lost, report.unicasts.lost, report.passed), (0, 3, false), "{report}");
}

#[tokio::test]
async fn it_stops_before_memory_runs_out() {
    let error =
        run(&MillionOptions { least_memory_bytes: u64::MAX, ..options() }).await.expect_err("too little");
    assert!(error.to_string().contains("--least-memory-mib"), "{error}");
}
