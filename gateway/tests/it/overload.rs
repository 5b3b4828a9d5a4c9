//! The overload ladder: each rung does what its name says, and no more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::Registry;
use tidegate_gateway::{AdmissionConfig, Gateway, GatewayConfig, MemorySource};
use tidegate_link::RouterLink;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::harness::{Client, RouterProcess, counts, eventually, gateway_config};

const OUTBOX: usize = 1 << 20;

/// A value of a gateway's metrics; with a label value, of that one.
fn metric(registry: &Registry, name: &str, label: Option<&str>) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
    let is_meant = |metric: &&prometheus::proto::Metric| {
        label.is_none_or(|value| metric.get_label().iter().any(|label| label.value() == value))
    };
    metrics
        .iter()
        .filter(is_meant)
        .map(|metric| metric.get_gauge().get_value() + metric.get_counter().get_value())
        .sum()
}

fn rungs(registry: &Registry) -> Vec<f64> {
    let names = ["short_outboxes", "no_new", "no_connections", "shed_slow"];
    names.map(|name| metric(registry, "tidegate_gateway_overload_rung", Some(name))).to_vec()
}

/// Follows the channel and reads nothing but the head.
async fn deaf(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(2_048).expect("a small buffer");
    let mut stream = socket.connect(address).await.expect("connects");
    let request =
        "GET /v1/events?channel=a HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_rung_gives_up_one_thing_more() {
    let directory = tempfile::tempdir().expect("directory");
    let process = RouterProcess::start(directory.path(), "127.0.0.1:0".parse().expect("an address")).await;
    let link = Arc::clone(&process.router) as Arc<dyn RouterLink>;
    let (routers, watching) = watch::channel(BTreeMap::from([("router".to_owned(), link)]));
    let registry = Registry::new();
    let percent = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&percent);
    let memory = MemorySource::Told(Arc::new(move || (told.load(Ordering::SeqCst), 100)));
    let admission = AdmissionConfig { memory, ..AdmissionConfig::default() };
    let config = GatewayConfig { admission, outbox_bytes_limit: OUTBOX, ..gateway_config() };
    let gateway = Gateway::start(config, watching, counts(), &registry, None).expect("starts");
    assert_eq!(gateway.budget().memory_limit_bytes, Some(100));
    eventually("the gateway is ready", || gateway.ready().is_ok()).await;
    let address = gateway.local_addr();
    let rung_is = async |used: u64, expected: [f64; 4]| {
        percent.store(used, Ordering::SeqCst);
        eventually("the rung is in force", || rungs(&registry) == expected).await;
        assert_eq!(metric(&registry, "tidegate_gateway_memory_bytes", None), used as f64);
    };
    let mut witness = Client::connect(address, "").await;
    let state = Client::try_connect(address, "").await.expect("let in").hear("state").await;
    let comes_back = format!("&cursor={}", state["cursor"].as_str().expect("a cursor"));

    // Slow clients: at rung 1 a quarter is what closes them, at rung 4 a second without reading.
    let outbox = || metric(&registry, "tidegate_gateway_outbox_bytes", None) as usize;
    let slow_closed =
        || metric(&registry, "tidegate_gateway_connections_closed_total", Some("slow_consumer"));
    let _deaf = deaf(address).await;
    let mut sent = 0;
    while outbox() < OUTBOX / 3 {
        process.publish_large(sent).await;
        sent += 1;
        witness.hear("event").await;
    }
    assert_eq!(slow_closed(), 0.0, "within its limit");
    rung_is(75, [1.0, 0.0, 0.0, 0.0]).await;
    process.publish_large(sent).await;
    eventually("a third is too much now", || slow_closed() == 1.0).await;
    witness.hear("event").await;
    Client::try_connect(address, "").await.expect("all may come");

    rung_is(85, [1.0, 1.0, 0.0, 0.0]).await;
    assert_eq!(Client::try_connect(address, "").await.err(), Some(503), "nobody new");
    Client::try_connect(address, &comes_back).await.expect("who comes back may");

    rung_is(92, [1.0, 1.0, 1.0, 0.0]).await;
    assert_eq!(Client::try_connect(address, &comes_back).await.err(), Some(503), "nobody");

    rung_is(0, [0.0; 4]).await;
    let _deaf = deaf(address).await;
    while outbox() < 64 * 1024 {
        process.publish_large(sent).await;
        sent += 1;
        witness.hear("event").await;
    }
    rung_is(95, [1.0; 4]).await;
    eventually("who does not read is closed", || slow_closed() == 2.0).await;
    rung_is(0, [0.0; 4]).await;
    Client::try_connect(address, "").await.expect("all is as before");
    assert!(metric(&registry, "tidegate_gateway_refused_total", Some("overloaded")) >= 2.0);
    gateway.stop().await;
    drop(routers);
    process.stop().await;
}
