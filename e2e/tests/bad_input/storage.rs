//! A data directory that is full or cannot be written. These mount a small file system, which needs root or user
//! namespaces; where neither exists they fail, unless `TIDEGATE_TESTS_WITHOUT_MOUNTS=1` says that they need not run.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use tidegate_e2e::{Follow, Follower, Server, Setup, Transport, eventually};

use crate::Rig;

const WITHOUT_MOUNTS: &str = "TIDEGATE_TESTS_WITHOUT_MOUNTS";

fn can_mount() -> bool {
    let mounts = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]).output();
    let can = mounts.is_ok_and(|output| output.status.success());
    assert!(
        can || std::env::var_os(WITHOUT_MOUNTS).is_some(),
        "this needs root or user namespaces to mount a tmpfs; set {WITHOUT_MOUNTS}=1 to do without"
    );
    if !can {
        eprintln!("NOT RUN, for {WITHOUT_MOUNTS} is set");
    }
    can
}

/// The data directory as the server's process sees it.
fn inside(server: &Server) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{}", server.pid(), server.data_dir().display()))
}

/// Publishes until it is acked again; what was refused until then says why.
async fn until_accepted(server: &Server, channel: &str) {
    eventually("publishes are accepted again", async || {
        let body = json!({"channel": channel, "data": "again"}).to_string();
        (server.try_publish(&body).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn full_data_directory() {
    if !can_mount() {
        return;
    }
    let rig = Rig::start(Setup::new().file_system("size=320m")).await;
    let mut client = Follower::open(rig.server.public(), Transport::Sse, &Follow::channels(["a"])).await;
    client.state().await;
    rig.server.publish(json!({"channel": "a", "data": "before"})).await;
    assert_eq!(client.event().await.json(), "before");
    let filler = inside(&rig.server).join("filler");
    let _ = std::fs::write(&filler, vec![1; 310 << 20]); // As much as there is room for.
    let refused = eventually("a publish is refused", async || {
        let body = json!({"channel": "b", "data": "refused"}).to_string();
        let answer = rig.server.try_publish(&body).await;
        (answer.status() != 200).then_some(answer)
    })
    .await;
    assert_eq!((refused.status(), refused.problem().as_str()), (507, "storage_full"));
    let body = json!({"channel": "b", "data": 1}).to_string();
    let said = tidegate_e2e::http::post(rig.server.public(), "/v1/messages", &[], &body).await;
    assert_eq!(said.problem(), "storage_full");
    // Those who are connected stay, new ones may come, what was kept is there.
    let mut late =
        Follower::open(rig.server.public(), Transport::Ndjson, &Follow::channels(["a"]).since("start")).await;
    late.state().await;
    assert_eq!(late.event().await.json(), "before");
    std::fs::remove_file(&filler).expect("removed");
    until_accepted(&rig.server, "c").await;
    rig.server.publish(json!({"channel": "a", "data": "after"})).await;
    assert_eq!(client.event().await.json(), "after");
    assert_eq!(late.event().await.json(), "after");
    rig.end().await;
}

#[tokio::test]
async fn read_only_data_directory() {
    if !can_mount() {
        return;
    }
    // Refused at the start, with the directory's name; an open store turns read-only in the tests of the event log.
    let (code, said) = Server::start_refused(Setup::new().file_system("size=64m,ro")).await;
    assert!(code != 0 && said.contains("data"), "{code}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    let (code, said) = Server::start_refused(Setup::new().data_dir("/proc/tidegate")).await;
    assert!(code != 0 && said.contains("/proc/tidegate"), "{code}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    Rig::start(Setup::new()).await.end().await;
}
