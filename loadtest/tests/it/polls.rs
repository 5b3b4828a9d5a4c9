//! `loadtest polls` on a real `tidegate dev`, with a few connections.

use tidegate_loadtest::polls::{PollsOptions, Report, polls};

use crate::dev::{Dev, beside_others};

const CONNECTIONS: usize = 8;

async fn a_second_of_polls(channels: usize, planted_repeat: bool) -> Report {
    let _counts = beside_others().await;
    let dev = Dev::start();
    let options = PollsOptions {
        public: dev.public,
        apis: vec![dev.api],
        pid: dev.pid(),
        connections: CONNECTIONS,
        channels,
        seconds: 2,
        warm_seconds: 0,
        event_interval_ms: 100,
        planted_repeat,
    };
    polls(&options, |_| ()).await.expect("every answer is 200 or 304")
}

#[tokio::test]
async fn polls_are_answered_304_and_still_find_every_event_once() {
    for channels in [1, 5] {
        let report = a_second_of_polls(channels, false).await;
        assert!(report.unchanged > 100, "{report}");
        assert!(report.events >= 10 && report.changed >= report.events, "{report}");
        assert_eq!((report.lost, report.repeated), (0, 0), "{report}");
    }
}

#[tokio::test]
async fn events_that_come_again_are_noticed() {
    let report = a_second_of_polls(1, true).await;
    assert!(report.repeated > 0 && !report.passed, "{report}");
}
