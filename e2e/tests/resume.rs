//! Nothing acked is missing, whatever is cut, killed or restarted, and wherever a client comes back.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use futures::future::join_all;
use serde_json::json;
use tidegate_e2e::{
    Acked, Follow, Follower, Goal, Publisher, Record, Server, Setup, Tour, Transport, eventually,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Clients under way, and what they shall reach.
struct Tours {
    names: Vec<String>,
    tasks: Vec<JoinHandle<Record>>,
    goal: watch::Sender<Option<Goal>>,
}

impl Tours {
    /// Starts clients and waits until each has had its first state.
    async fn start(tours: Vec<(String, Tour)>) -> Self {
        let (goal, goals) = watch::channel(None);
        let (ready, is_ready) = watch::channel(0);
        let (names, tours): (Vec<_>, Vec<_>) = tours.into_iter().unzip();
        let tasks: Vec<_> = tours.into_iter().map(|tour| tour.start(goals.clone(), ready.clone())).collect();
        let what = "every client has its first state";
        eventually(what, async || {
            assert!(tasks.iter().all(|task| !task.is_finished()), "a client ended early");
            (*is_ready.borrow() == tasks.len()).then_some(())
        })
        .await;
        Self { names, tasks, goal }
    }

    /// Waits until each has all that was acked, and checks what each was given.
    async fn finish(self, acked: &[Acked]) -> Vec<Record> {
        self.goal.send_replace(Some(Tour::goal(acked)));
        let mut records = Vec::new();
        for (name, task) in self.names.iter().zip(self.tasks) {
            let waiting = tokio::time::timeout(tidegate_e2e::PATIENCE, task).await;
            let mut record =
                waiting.unwrap_or_else(|_| panic!("{name}: never had it all")).expect("no panic");
            record.check(name, acked);
            records.push(record);
        }
        records
    }
}

fn deep() -> Setup {
    Setup::new().set("history.rows", 50_000)
}

fn tour(address: SocketAddr, transports: &[Transport], channels: &[&str], cuts: &[usize]) -> Tour {
    let follow = Follow::channels(channels);
    Tour { address, transports: transports.to_vec(), follow, cuts: cuts.to_vec() }
}

/// A channel on the partition of `everyone`, so that one entry of the cursor stands for both.
async fn neighbour_of_everyone(server: &Server) -> String {
    let partition = async |body: serde_json::Value| {
        let pos = server.publish(body).await["pos"].as_str().expect("a position").to_owned();
        pos.split('.').nth(1).expect("a partition").to_owned()
    };
    let sought = partition(json!({"everyone": true, "data": 0})).await;
    for number in 0..1_000 {
        let name = format!("near-{number}");
        if partition(json!({"channel": name, "data": 0})).await == sought {
            return name;
        }
    }
    panic!("one of 1000 channels is on partition {sought}");
}

/// The event that a resume brings comes with a cursor above itself, or one follows: the next resume has no repeat. The
/// client leaves at once, before its opening has settled.
#[tokio::test]
async fn a_neighbour_of_everyone_is_resumed_without_repeats() {
    let mut server = Server::start(Setup::new()).await;
    let channel = neighbour_of_everyone(&server).await;
    let follow = Follow::channels([&channel]);
    for transport in Transport::ALL {
        let mut client = Follower::open(server.public(), transport, &follow).await;
        client.state().await;
        let mut cursor = client.cut().cursor;
        for round in 0..60 {
            let pos = server.publish(json!({"channel": channel, "data": round})).await["pos"].clone();
            let resumed = follow.clone().resume(&cursor);
            let mut client = Follower::open(server.public(), transport, &resumed).await;
            client.state().await;
            assert_eq!(json!(client.event().await.pos), pos, "{transport:?}, round {round}: it and no other");
            cursor = client.cut().cursor;
        }
    }
    server.assert_well().await;
}

/// Every pair of transports, there and back again, each client cut some ten times while events flow.
#[tokio::test]
async fn cut_and_resume_on_every_other_transport() {
    let mut server = Server::start(deep()).await;
    let mut tours = Vec::new();
    for (at, from) in Transport::ALL.into_iter().enumerate() {
        for to in Transport::ALL {
            let cuts = [1 + at * 3, 7, 2, 19 - at, 1, 30];
            tours.push((format!("{from:?} to {to:?}"), tour(server.public(), &[from, to], &["hot"], &cuts)));
        }
    }
    let tours = Tours::start(tours).await;
    let publisher = Publisher::start(server.api(), "pairs", &["hot"]);
    publisher.acked(150).await;
    let acked = publisher.stop().await;
    for (number, record) in tours.finish(&acked).await.iter().enumerate() {
        assert!(record.connections.len() > 3, "client {number} was cut often enough");
        assert_eq!(record.repeats, 0, "client {number}: one channel has no repeats at all");
    }
    server.assert_well().await;
}

#[tokio::test]
async fn clients_of_several_channels_lose_nothing_when_cut() {
    let mut server = Server::start(deep()).await;
    let channels = ["m:0", "m:1", "m:2", "m:3", "m:4"];
    let tours = Transport::ALL.into_iter().enumerate().map(|(at, first)| {
        let mut transports = Transport::ALL;
        transports.rotate_left(at);
        (format!("{first:?} first"), tour(server.public(), &transports, &channels, &[3, 11, 1, 25, 8]))
    });
    let tours = Tours::start(tours.collect()).await;
    let publisher = Publisher::start(server.api(), "several", &channels);
    publisher.acked(200).await;
    let acked = publisher.stop().await;
    tours.finish(&acked).await;
    server.assert_well().await;
}

/// Five clients, one on each transport, that move on when they are thrown out.
async fn five(server: &Server, channels: &[&str]) -> Tours {
    let tours = Transport::ALL.into_iter().enumerate().map(|(at, first)| {
        let mut transports = Transport::ALL;
        transports.rotate_left(at);
        (format!("{first:?} first"), tour(server.public(), &transports, channels, &[]))
    });
    Tours::start(tours.collect()).await
}

#[tokio::test]
async fn killed_under_publish_nothing_acked_is_missing() {
    let mut server = Server::start(deep()).await;
    let tours = five(&server, &["k"]).await;
    let publisher = Publisher::start(server.api(), "killed", &["k"]);
    for round in 1..=3 {
        publisher.acked(publisher.count() + 40 * round).await;
        server.kill9().await;
        server.start_again().await;
    }
    publisher.acked(publisher.count() + 40).await;
    let acked = publisher.stop().await;
    for record in tours.finish(&acked).await {
        assert!(record.connections.len() > 3, "thrown out three times");
        assert_eq!(record.repeats, 0, "one channel has no repeats at all");
    }
    server.assert_well().await;
}

#[tokio::test]
async fn restarted_under_publish_nothing_acked_is_missing() {
    let setup = deep().set("drain.window", "300ms").set("drain.retry_window", "100ms");
    let mut server = Server::start(setup).await;
    let channels = ["r:0", "r:1", "r:2"];
    let tours = five(&server, &channels).await;
    let publisher = Publisher::start(server.api(), "restarted", &channels);
    for _ in 0..2 {
        publisher.acked(publisher.count() + 60).await;
        server.sigterm();
        assert_eq!(server.exit_code().await, Some(0));
        server.start_again().await;
    }
    publisher.acked(publisher.count() + 60).await;
    let acked = publisher.stop().await;
    tours.finish(&acked).await;
    server.assert_well().await;
}

/// A cursor of before, in a log that is another one now.
#[tokio::test]
async fn an_epoch_change_is_answered_lost_epoch_and_goes_on_live() {
    let mut server = Server::start(Setup::new()).await;
    let mut client =
        Follower::open(server.public(), Transport::WebSocket, &Follow::channels(["a", "b"])).await;
    client.state().await;
    server.publish(json!({"channel": "a", "data": "old"})).await;
    client.event().await;
    let cursor = client.cut().cursor;
    server.kill9().await;
    server.reconfigure(|setup| setup.set("log.epoch_salt", "restored-from-a-backup"));
    server.start_again().await;
    let mut positions = BTreeSet::new();
    for (n, transport) in Transport::ALL.into_iter().enumerate() {
        let follow = Follow::channels(["a", "b"]).resume(&cursor);
        let mut client = Follower::open(server.public(), transport, &follow).await;
        let state = client.state().await;
        let lost = state["lost"].as_array().expect("a list");
        for channel in ["a", "b"] {
            let told = json!({"channel": channel, "reason": "epoch"});
            assert!(lost.contains(&told), "{transport:?}: {state}");
        }
        let pos = server.publish(json!({"channel": "a", "data": n})).await["pos"].clone();
        let event = loop {
            let event = client.event().await;
            if event.json() == n {
                break event;
            }
        };
        assert_eq!(json!(event.pos), pos, "{transport:?} goes on live");
        positions.insert(event.pos.expect("a position"));
        // Its new cursor is good.
        let again = Follow::channels(["a", "b"]).resume(client.cut().cursor);
        let state = Follower::open(server.public(), transport, &again).await.state().await;
        assert_eq!(state["lost"], json!([]), "{transport:?}: {state}");
    }
    assert_eq!(positions.len(), 5);
}

#[tokio::test]
async fn what_expired_is_answered_lost_expired() {
    let mut server = Server::start(Setup::new().set("namespaces.tiny.history_rows", 5)).await;
    for (at, transport) in Transport::ALL.into_iter().enumerate() {
        let (tiny, other) = (format!("tiny:{at}"), format!("kept:{at}"));
        let follow = Follow::channels([&tiny, &other]);
        let mut client = Follower::open(server.public(), transport, &follow).await;
        client.state().await;
        for channel in [&tiny, &other] {
            server.publish(json!({"channel": channel, "data": "seen"})).await;
        }
        client.events(2).await;
        let cursor = client.cut().cursor;
        for n in 0..20 {
            for channel in [&tiny, &other] {
                server.publish(json!({"channel": channel, "data": n})).await;
            }
        }
        server.restart().await; // Until then the ring of recent events knows more than the history keeps.
        let mut client = Follower::open(server.public(), transport, &follow.resume(cursor)).await;
        let state = client.state().await;
        assert_eq!(state["lost"], json!([{"channel": tiny, "reason": "expired"}]), "{transport:?}");
        let recovered = state["recovered"].as_array().expect("a list");
        assert!(
            recovered.contains(&json!(other)) && !recovered.contains(&json!(tiny)),
            "{transport:?}: {state}"
        );
        let mut kept = Vec::new();
        while kept.len() < 20 {
            let event = client.event().await;
            if event.channel == other && event.json() != "seen" {
                kept.push(event.json().as_u64().expect("a number"));
            }
        }
        assert_eq!(kept, (0..20).collect::<Vec<_>>(), "{transport:?}");
        server.publish(json!({"channel": tiny, "data": "live"})).await;
        while client.event().await.json() != "live" {}
    }
    server.assert_well().await;
}

#[tokio::test]
async fn a_user_has_three_devices_on_three_transports() {
    let mut server = Server::start(Setup::new()).await;
    let transports = [Transport::WebSocket, Transport::Sse, Transport::LongPoll];
    let mut devices = join_all(transports.map(async |transport| {
        let follow = Follow::default().user("alice");
        let mut device = Follower::open(server.public(), transport, &follow).await;
        device.state().await;
        device
    }))
    .await;
    let mut stranger =
        Follower::open(server.public(), Transport::Ndjson, &Follow::default().user("bob")).await;
    stranger.state().await;
    for n in 0..20 {
        let pos = server.publish(json!({"user": "alice", "data": n})).await["pos"].clone();
        for device in &mut devices {
            let event = device.event().await;
            assert_eq!((event.channel.as_str(), event.json()), ("user:alice", json!(n)));
            assert_eq!(json!(event.pos), pos);
        }
    }
    // One device goes and comes back; the others do not notice.
    let cursor = devices.remove(0).cut().cursor;
    server.publish(json!({"user": "alice", "data": "missed"})).await;
    let follow = Follow::default().user("alice").resume(cursor);
    let mut back = Follower::open(server.public(), Transport::ShortPoll, &follow).await;
    for device in devices.iter_mut().chain([&mut back]) {
        assert_eq!(device.event().await.json(), "missed", "{:?}", device.transport);
        assert!(device.quiet().await.is_empty(), "{:?}", device.transport);
    }
    assert!(stranger.quiet().await.is_empty(), "nothing of alice reaches bob");
    server.assert_well().await;
}

#[tokio::test]
async fn a_user_offline_for_500_events_returns_on_another_transport_and_gets_all() {
    let mut server = Server::start(Setup::new()).await;
    for (at, transport) in Transport::ALL.into_iter().enumerate() {
        let user = format!("user{at}");
        let follow = Follow::default().user(&user);
        let mut client = Follower::open(server.public(), transport, &follow).await;
        client.state().await;
        server.publish(json!({"user": user, "data": "online"})).await;
        client.event().await;
        let cursor = client.cut().cursor;
        for from in (0..500).step_by(100) {
            let items: Vec<_> = (from..from + 100).map(|n| json!({"user": user, "data": n})).collect();
            let body = json!(items).to_string();
            let answer = tidegate_e2e::http::post(server.api(), "/v1/publish/batch", &[], &body).await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
        if at == 2 {
            server.restart().await; // The inbox is on disk.
        }
        let other = Transport::ALL[(at + 1) % 5];
        let mut client = Follower::open(server.public(), other, &follow.resume(cursor)).await;
        let state = client.state().await;
        assert!(
            state["recovered"].as_array().is_some_and(|r| r.contains(&json!(format!("user:{user}")))),
            "{state}"
        );
        let events = client.events(500).await;
        let data: Vec<_> = events.iter().map(|event| event.json().as_u64().expect("a number")).collect();
        assert_eq!(data, (0..500).collect::<Vec<_>>(), "{other:?}");
        assert!(client.quiet().await.is_empty(), "{other:?}");
    }
    server.assert_well().await;
}
