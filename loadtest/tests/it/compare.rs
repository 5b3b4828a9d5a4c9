//! `loadtest compare` from end to end with a few sockets: the floor as a process of its own, the receivers, the report.

use std::path::PathBuf;

use tidegate_loadtest::compare::{CompareOptions, Report, Scenario, System, compare, html};

use crate::dev::beside_others;

const SOCKETS: usize = 20;

/// Without a cluster and without nchan: what needs nothing that is not in this repository.
async fn floor_alone(scenario: Scenario, pairs: usize, planted_drop: Option<u64>) -> Report {
    let _counts = beside_others().await;
    let options = CompareOptions {
        scenario,
        sockets: SOCKETS,
        rate: 2_000.0, // Enough that the kernel counts processor time.
        seconds: 1,
        warm_seconds: 1,
        pairs,
        loadtest: PathBuf::from(env!("CARGO_BIN_EXE_loadtest")),
        planted_drop,
        ..CompareOptions::default()
    };
    compare(&options, None, false, |_| ()).await.expect("the floor sends and receivers count")
}

#[tokio::test]
async fn everything_the_floor_sends_is_counted_once() {
    let report = floor_alone(Scenario::Broadcast, 2, None).await;
    for measurement in report.pairs.iter().flat_map(|pair| &pair.measurements) {
        assert_eq!(measurement.system, System::Floor);
        assert_eq!(measurement.events, 4_000);
        assert_eq!((measurement.lost, measurement.duplicated, measurement.closed), (0, 0, 0));
        assert_eq!(measurement.slices.iter().sum::<u64>(), measurement.events * SOCKETS as u64);
        assert!(measurement.deliveries > 0 && measurement.latency.max_ms > 0.0, "{measurement}");
    }
    assert!(report.gate.is_none() && report.left_out.is_some(), "{report}");
    let page = html(&report);
    assert_eq!(page.matches("<svg").count(), 2, "{page}");
}

#[tokio::test]
async fn as_many_as_fit_are_counted_too() {
    let report = floor_alone(Scenario::Saturated, 1, None).await;
    assert!(report.systems.iter().all(|one| one.lost + one.duplicated == 0), "{report}");
    assert!(report.pairs[0].measurements[0].events > 0, "{report}");
}

#[tokio::test]
async fn a_frame_that_is_left_out_is_noticed_as_lost() {
    let report = floor_alone(Scenario::Broadcast, 1, Some(777)).await;
    assert_eq!(report.pairs[0].measurements[0].lost, 1, "{report}");
}
