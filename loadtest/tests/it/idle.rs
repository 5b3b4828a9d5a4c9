//! 5,000 idle connections on a real `tidegate dev`: what each costs in user memory; and polls beside WebSockets.

use std::path::Path;
use std::time::Duration;

use tidegate_loadtest::fleet::{Channels, Follow};
use tidegate_loadtest::idle::{IdleOptions, idle_minute};
use tidegate_loadtest::{Transport, open_all, publish_latency, settled_memory};

use crate::dev::{Dev, alone};

const CONNECTIONS: usize = 5_000;
/// The gate of this stage; the design's budget is 1 KiB.
const BYTES_EACH_LIMIT: u64 = 1_536;

async fn bytes_each(dev: &Dev, transport: Transport) -> u64 {
    let query = |_| "channel=load:idle".to_owned();
    let pid = dev.pid();
    drop(open_all(dev.public, transport, 1_000, query, |_| ()).await.expect("warm up"));
    let before = settled_memory(pid, Duration::from_secs(20)).await.expect("alive");
    let opened = open_all(dev.public, transport, CONNECTIONS, query, |_| ()).await.expect("all open");
    let after = settled_memory(pid, Duration::from_secs(20)).await.expect("alive");
    assert_eq!(opened.len(), CONNECTIONS);
    let each = after.0.saturating_sub(before.0) / CONNECTIONS as u64;
    println!(
        "memory: {each} bytes of user memory per idle {transport:?} connection ({CONNECTIONS} on one channel)"
    );
    each
}

async fn check(transport: Transport) {
    let _alone = alone().await;
    let dev = Dev::start();
    let each = bytes_each(&dev, transport).await;
    assert!(each <= BYTES_EACH_LIMIT, "{each} bytes each");
    assert!(each >= 300, "{each} bytes each cannot be: the measure is broken");
}

#[tokio::test]
async fn five_thousand_idle_websockets() {
    check(Transport::Ws).await;
}

#[tokio::test]
async fn five_thousand_idle_event_streams() {
    check(Transport::Sse).await;
}

#[tokio::test]
async fn five_thousand_idle_ndjson_streams() {
    check(Transport::Ndjson).await;
}

/// A few connections for some ping intervals: what is counted, not how much it is.
#[tokio::test]
async fn idle_connections_are_pinged_and_counted() {
    let _alone = alone().await;
    let dev = Dev::start_with(&["--set", "limits.ping_interval=1s"]);
    for transport in [Transport::Ws, Transport::Sse] {
        let follow = Follow {
            channel: Some("load:idle-{c}".to_owned()),
            channels: Channels::Own,
            user: Some("load-{n}".to_owned()),
        };
        let options = IdleOptions {
            public: dev.public,
            pid: dev.pid(),
            connections: 50,
            transport,
            follow,
            empty_seconds: 1,
            open_seconds: 1,
            seconds: 3,
        };
        let loadtest = Path::new(env!("CARGO_BIN_EXE_loadtest"));
        let report = idle_minute(&options, loadtest, |_| ()).await.expect("a minute");
        // A ping comes up to an eighth early, and the fleet says up to a second late what it has.
        assert!((50..=250).contains(&report.pings), "{report}");
        assert_eq!(report.closed, 0, "{report}");
        let all = report.cores * 1e6 / 50.0;
        assert!((report.cores_per_million - all).abs() < 0.001, "{report}");
    }
}

/// A waiting long poll is answered as soon as a WebSocket is written to: medians of one run, at most 1 ms apart.
#[tokio::test]
async fn long_polls_are_as_quick_as_websockets() {
    let _alone = alone().await;
    let dev = Dev::start();
    let (ws, poll) = publish_latency(dev.public, dev.api, 300).await.expect("all received");
    let (ws, poll) = (ws.quantile(0.5), poll.quantile(0.5));
    println!("latency: publish to WebSocket p50 {ws:?}, to long poll p50 {poll:?}");
    assert!(poll <= ws + Duration::from_millis(1), "long poll {poll:?}, websocket {ws:?}");
}
