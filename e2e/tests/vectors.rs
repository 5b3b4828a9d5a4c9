//! `proto/vectors/` against the binary. Each file has a server of its own, whose defaults the cases rely on.

use tidegate_e2e::vectors::{
    load, run_bad_cursors, run_deliveries, run_messages, run_publish_refusals, run_refusals,
};
use tidegate_e2e::{Server, Setup};

#[tokio::test]
async fn events_arrive_as_they_were_published() {
    let mut server = Server::start(Setup::new()).await;
    assert!(run_deliveries(&server, &load("events"), "event").await > 15);
    server.assert_well().await;
}

#[tokio::test]
async fn states_say_where_a_connection_begins() {
    let mut server = Server::start(Setup::new()).await;
    assert!(run_deliveries(&server, &load("state"), "state").await > 15);
    server.assert_well().await;
}

#[tokio::test]
async fn cursors_that_are_none_lose_and_go_on() {
    let mut server = Server::start(Setup::new()).await;
    assert!(run_bad_cursors(&server, &load("cursors")).await > 15);
    server.assert_well().await;
}

#[tokio::test]
async fn wrong_requests_are_refused_as_each_transport_understands() {
    let mut server = Server::start(Setup::new()).await;
    assert!(run_refusals(&server, &load("refusals")).await > 15);
    server.assert_well().await;
}

#[tokio::test]
async fn clients_messages_are_acked_or_refused() {
    let mut server = Server::start(Setup::new()).await;
    assert!(run_messages(&server, &load("messages")).await > 15);
    server.assert_well().await;
}

#[tokio::test]
async fn wrong_publishes_are_refused_whole() {
    let mut server = Server::start(Setup::new()).await;
    assert!(run_publish_refusals(&server, &load("publish")).await > 15);
    server.assert_well().await;
}
