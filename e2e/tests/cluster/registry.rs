//! Users are found and reached, whoever of the registry dies or joins.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_e2e::{Cluster, Follow, Follower, Node, Shape, Transport, eventually, http};

use crate::in_time;

const STREAMS: [Transport; 3] = [Transport::WebSocket, Transport::Sse, Transport::Ndjson];
const USERS: usize = 60;

fn shape(name: &str) -> Shape {
    Shape::new(name).gateways(3).members(3).set("presence.channels", true)
}

/// What a router says; an answer that is no 200 is one that says what.
async fn get(api: SocketAddr, path: &str) -> Value {
    let answer = http::get(api, path, &[]).await;
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    answer.json()
}

async fn post(api: SocketAddr, path: &str, body: &Value) -> Value {
    let answer = http::post(api, path, &[], &body.to_string()).await;
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    answer.json()
}

async fn open(gateway: &Node, user: &str, transport: Transport) -> Follower {
    let follow = Follow::channels(["room:1"]).user(user);
    let mut client = Follower::open(gateway.public(), transport, &follow).await;
    client.state().await;
    client
}

/// Every gateway is known to every router, and every member is current about each of them.
async fn settled(cluster: &Cluster, members: u64) {
    for router in &cluster.routers {
        eventually("all gateways are known to the members", async || {
            let all = get(router.api(), "/v1/gateways").await;
            let gateways = all["gateways"].as_array().expect("a list");
            let is_current = |gateway: &Value| gateway["current_members"] == members;
            (gateways.len() == cluster.gateways.len() && gateways.iter().all(is_current)).then_some(())
        })
        .await;
    }
}

/// Asks for users and sends them direct messages until it is told to end; what was answered wrongly.
struct Asking {
    routers: Vec<SocketAddr>,
    /// Who is where.
    truth: Vec<(String, String)>,
    /// Rounds over all users that are done.
    rounds: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
}

struct Asked {
    located: u64,
    told: BTreeMap<String, u64>,
    wrong: Vec<String>,
    slowest: Duration,
}

impl Asking {
    async fn run(self) -> Asked {
        let mut asked =
            Asked { located: 0, told: BTreeMap::new(), wrong: Vec::new(), slowest: Duration::ZERO };
        let mut round = 0;
        while !self.ends.load(Ordering::Relaxed) {
            for (number, (user, node)) in self.truth.iter().enumerate() {
                let api = self.routers[(number + round) % self.routers.len()];
                let begun = Instant::now();
                let found = get(api, &format!("/v1/users?user={user}")).await;
                asked.slowest = asked.slowest.max(begun.elapsed());
                asked.located += 1;
                let places = found["places"].as_array().expect("a list");
                let is_right = places.len() == 1 && places[0]["node"] == node.as_str();
                if !is_right || places[0]["connections"] != 1 {
                    asked.wrong.push(format!("{user} on {node}: {found}"));
                }
                let nobody = get(api, &format!("/v1/users?user=nobody-{round}-{number}")).await;
                if nobody["online"] != false {
                    asked.wrong.push(format!("nobody: {nobody}"));
                }
                let count = asked.told.entry(user.clone()).or_default();
                let body = json!({"user": user, "event": "hint", "data": *count});
                let told = post(api, "/v1/direct", &body).await;
                *count += 1;
                if told["accepted"] != 1 || told["unanswered"] != 0 {
                    asked.wrong.push(format!("told {user}: {told}"));
                }
            }
            round += 1;
            self.rounds.store(round, Ordering::Relaxed);
        }
        asked
    }
}

/// Users that come and go meanwhile.
async fn churn(gateways: Vec<SocketAddr>, ends: Arc<AtomicBool>) -> u64 {
    let mut count = 0;
    while !ends.load(Ordering::Relaxed) {
        for gateway in &gateways {
            let follow = Follow::channels(["room:2"]).user(&format!("guest-{}", count % 50));
            let mut client = Follower::open(*gateway, Transport::WebSocket, &follow).await;
            client.state().await;
            count += 1;
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_found_and_reached_whoever_of_the_registry_dies_or_joins() {
    let mut cluster = Cluster::start(shape("registry")).await;
    let (mut clients, mut truth) = (Vec::new(), Vec::new());
    for number in 0..USERS {
        let gateway = number % cluster.gateways.len();
        let user = format!("user-{number}");
        clients.push(open(&cluster.gateways[gateway], &user, STREAMS[number / 3 % 3]).await);
        truth.push((user, format!("gateway-{gateway}")));
    }
    settled(&cluster, 3).await;
    let ends = Arc::new(AtomicBool::new(false));
    let routers: Vec<_> = cluster.routers.iter().map(Node::api).collect();
    let rounds = Arc::<AtomicUsize>::default();
    let asking = Asking { routers, truth, rounds: Arc::clone(&rounds), ends: Arc::clone(&ends) };
    let asking = tokio::spawn(asking.run());
    // Everybody is asked for at least once more in whatever state the registry is now.
    let all_asked = async || {
        let before = rounds.load(Ordering::Relaxed);
        eventually("all are asked for", async || {
            (rounds.load(Ordering::Relaxed) >= before + 2).then_some(())
        })
        .await;
    };
    let gateways = cluster.gateways.iter().map(Node::public).collect();
    let churning = tokio::spawn(churn(gateways, Arc::clone(&ends)));

    cluster.members.nodes[1].kill9();
    cluster.members.nodes[1].exit_code().await;
    all_asked().await;
    settled(&cluster, 2).await;
    cluster.members.nodes[1].spawn_again();
    cluster.members.nodes[1].wait_until_ready().await;
    settled(&cluster, 3).await;
    cluster.add_member();
    cluster.members.write_list();
    cluster.wait_until_ready().await;
    all_asked().await;
    settled(&cluster, 4).await;
    all_asked().await;
    // The old ring is spoken by no router any more, and is given up.
    cluster.members.nodes[0].kill9();
    all_asked().await;
    settled(&cluster, 3).await;
    all_asked().await;
    ends.store(true, Ordering::Relaxed);
    let (asked, churned) = (in_time(asking).await.expect("asked"), in_time(churning).await.expect("churned"));
    eprintln!("located {} times, slowest {:?}; {churned} guests came and went", asked.located, asked.slowest);
    assert!(asked.located >= 10 * USERS as u64 && churned > 10, "it was asked under load");
    assert_eq!(asked.wrong, Vec::<String>::new());
    for (number, client) in clients.iter_mut().enumerate() {
        let count = asked.told[&format!("user-{number}")];
        for expected in 0..count {
            let event = in_time(client.event()).await;
            assert_eq!(
                (event.name.as_str(), event.data.clone()),
                ("hint", Some(expected.to_string())),
                "{event:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn occupants_disconnects_and_drains_cross_the_cluster() {
    let mut cluster = Cluster::start(shape("occupants")).await;
    let mut clients = Vec::new();
    for (number, user) in ["carol", "alice", "bob", "alice"].iter().enumerate() {
        clients.push(open(&cluster.gateways[number % 3], user, STREAMS[number % 3]).await);
    }
    let mut guest =
        Follower::open(cluster.gateways[2].public(), Transport::Ndjson, &Follow::channels(["room:1"])).await;
    guest.state().await;
    settled(&cluster, 3).await;
    let api = cluster.routers[1].api();
    let users = |page: &Value| -> Vec<String> {
        let all = page["users"].as_array().expect("a list").iter();
        all.map(|it| {
            format!("{} {} {}", it["user"].as_str().expect("a name"), it["connections"], it["nodes"])
        })
        .collect()
    };
    let page = eventually("everybody is there", async || {
        let page = get(api, "/v1/occupants?channel=room:1").await;
        (page["connections"] == 5).then_some(page)
    })
    .await;
    assert_eq!(
        (&page["anonymous"], &page["nodes"], &page["has_more"]),
        (&json!(1), &json!(3), &json!(false))
    );
    assert_eq!(users(&page), ["alice 2 2", "bob 1 1", "carol 1 1"]);
    let first = get(api, "/v1/occupants?channel=room:1&limit=2").await;
    assert_eq!((users(&first).len(), &first["has_more"]), (2, &json!(true)));
    let second = get(api, "/v1/occupants?channel=room:1&limit=2&after=bob").await;
    assert_eq!((users(&second), &second["has_more"]), (vec!["carol 1 1".to_owned()], &json!(false)));

    let found = get(api, "/v1/users?user=alice").await;
    let nodes: Vec<_> =
        found["places"].as_array().expect("a list").iter().map(|it| it["node"].clone()).collect();
    assert_eq!(nodes, ["gateway-0", "gateway-1"]);
    let closed = post(api, "/v1/disconnect", &json!({"user": "alice", "reason": "signed out"})).await;
    assert_eq!((&closed["closed"], &closed["unanswered"]), (&json!(2), &json!(0)));
    for at in [1, 3] {
        let (close, _) = in_time(clients[at].closed()).await;
        assert_eq!((&close["reason"], &close["detail"]), (&json!("disconnected"), &json!("signed out")));
    }
    eventually("she is gone", async || {
        (get(api, "/v1/users?user=alice").await["online"] == false).then_some(())
    })
    .await;

    let unknown = http::post(api, "/v1/gateways/drain", &[], "{\"gateway\":\"gateway-9\"}").await;
    assert_eq!((unknown.status(), unknown.problem()), (404, "not_found".to_owned()));
    post(api, "/v1/gateways/drain", &json!({"gateway": "gateway-2"})).await;
    let (close, _) = in_time(guest.closed()).await;
    assert_eq!(close["reason"], "draining");
    assert_eq!(cluster.gateways[2].exit_code().await, Some(0), "as on SIGTERM");
    cluster.gateways.truncate(2);
    settled(&cluster, 3).await;
    let bob = get(api, "/v1/users?user=bob").await;
    assert_eq!(bob["online"], false, "he was on the gateway that said goodbye: {bob}");
}
