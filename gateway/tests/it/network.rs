//! A gateway and a router that share nothing but a socket, and a client that notices nothing of it.

use std::time::Instant;

use prometheus::Registry;
use tidegate_deliver::{Dialer, Metrics, discover};
use tidegate_gateway::Gateway;

use crate::harness::{Client, RouterProcess, counts, eventually, gateway_config, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_notices_nothing_of_a_router_that_restarts_elsewhere() {
    let directory = tempfile::tempdir().expect("directory");
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound")
    };
    let registry = Registry::new();
    let dialer = Dialer { key: key(), metrics: Metrics::register(&registry).expect("registers") };
    let routers = discover(vec![address.to_string()], dialer);
    let gateway = Gateway::start(gateway_config(), routers, counts(), &registry, None).expect("starts");
    assert!(gateway.ready().is_err(), "there is no router yet");

    let router = RouterProcess::start(directory.path(), address).await;
    eventually("the gateway is ready", || gateway.ready().is_ok()).await;
    let mut client = Client::connect(gateway.local_addr(), "").await;
    for data in 0..100 {
        router.publish(data).await;
    }
    client.hears_events(0..100).await;
    for data in 1..=3 {
        client.say(data).await;
    }
    for seq in 1..=3 {
        assert_eq!(client.hear("ack").await["seq"], seq);
    }

    router.stop().await;
    client.say(4).await;
    let begun = Instant::now();
    let router = RouterProcess::start(directory.path(), address).await;
    println!("the router was back after {:?}", begun.elapsed());
    for data in 100..200 {
        router.publish(data).await;
    }
    // What was said while there was no router waits for one, as long as patience lasts.
    assert_eq!(client.hear("ack").await["seq"], 4);
    gateway.drain().await;
    gateway.stop().await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_missing_when_a_router_restarts_elsewhere() {
    let directory = tempfile::tempdir().expect("directory");
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound")
    };
    let registry = Registry::new();
    let dialer = Dialer { key: key(), metrics: Metrics::register(&registry).expect("registers") };
    let routers = discover(vec![address.to_string()], dialer);
    let gateway = Gateway::start(gateway_config(), routers, counts(), &registry, None).expect("starts");
    let mut router = RouterProcess::start(directory.path(), address).await;
    eventually("the gateway is ready", || gateway.ready().is_ok()).await;
    let mut client = Client::connect(gateway.local_addr(), "").await;
    for round in 0..3 {
        // From the second round on, some are published before the gateway is attached again.
        for data in round * 50..(round + 1) * 50 {
            router.publish(data).await;
        }
        client.hears_events(round * 50..(round + 1) * 50).await;
        router.stop().await;
        router = RouterProcess::start(directory.path(), address).await;
    }
    gateway.stop().await;
    router.stop().await;
}
