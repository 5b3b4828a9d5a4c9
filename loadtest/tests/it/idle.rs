//! 5,000 idle connections on a real `tidegate dev`: what each costs in user memory; and polls beside WebSockets.

use std::path::Path;
use std::time::Duration;

use tidegate_loadtest::fleet::{Channels, Follow};
use tidegate_loadtest::idle::{IdleOptions, idle_minute};
use tidegate_loadtest::{Resident, Tls, Transport, open_all, open_all_http2, publish_latency};

use crate::dev::{Dev, alone};

const CONNECTIONS: usize = 5_000;
/// The design's budget (DESIGN, section 8), here of the whole `dev` process.
const BYTES_EACH_LIMIT: u64 = 1_024;
/// With its share of a socket and of TLS, 100 to a socket: 2,155 to 2,279 when this was written.
const BYTES_EACH_HTTP2_LIMIT: u64 = 2_816;

fn query(_: usize) -> String {
    "channel=load:idle".to_owned()
}

/// Holds what each connection adds to the server's memory to its limit; `open` opens so many.
async fn hold<T>(dev: &Dev, what: &str, limit: u64, open: impl AsyncFn(usize) -> anyhow::Result<T>) {
    let each = Resident::measure(dev.pid(), CONNECTIONS, open).await.expect("all open").bytes_each();
    println!("memory: {each} bytes of user memory per idle {what} ({CONNECTIONS} on one channel)");
    assert!(each <= limit, "{each} bytes each");
    assert!(each >= 300, "{each} bytes each cannot be: the measure is broken");
}

async fn check(transport: Transport) {
    let _alone = alone().await;
    let dev = Dev::start();
    let open = async |count| open_all(dev.public, transport, count, query, |_| ()).await;
    hold(&dev, &format!("{transport:?} connection"), BYTES_EACH_LIMIT, open).await;
}

/// Streams of HTTP/2, 100 to a socket: each with its share of that socket and of TLS.
#[tokio::test]
async fn five_thousand_idle_event_streams_over_http2() {
    let _alone = alone().await;
    let dev = Dev::start_with(&["--tls"]);
    let tls = Tls::new(None, true).expect("TLS");
    let open = async |count| {
        let (sockets, streams) = open_all_http2(dev.public, &tls, 100, Transport::Sse, count, query).await?;
        assert_eq!((sockets.len(), streams.len()), (count / 100, count));
        Ok((sockets, streams))
    };
    hold(&dev, "stream of HTTP/2", BYTES_EACH_HTTP2_LIMIT, open).await;
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
