//! A whole process within this one: it starts on port 0 and a directory of its own, serves, and ends in good order.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tidegate::config::{Config, Flag, Profile, Sources};
use tidegate::{App, BuildError, RunError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

const DEADLINE: Duration = Duration::from_secs(20);

fn config(data_dir: &Path, more: &[(&str, &str)]) -> Config {
    let data_dir = data_dir.to_str().expect("temporary paths are UTF-8");
    let ports =
        [("server.public", "127.0.0.1:0"), ("server.api", "127.0.0.1:0"), ("server.admin", "127.0.0.1:0")];
    let base = [("store.data_dir", data_dir), ("drain.window", "100ms"), ("drain.retry_window", "100ms")];
    let flag =
        |(key, value): (&str, &str)| Flag { name: "test".into(), key: key.into(), value: value.into() };
    let flags = ports.into_iter().chain(base).chain(more.iter().copied()).map(flag).collect();
    load(Profile::Dev, flags)
}

fn load(profile: Profile, flags: Vec<Flag>) -> Config {
    let host = "somewhere".into();
    let sources = Sources { profile, file: None, environment: Vec::new(), flags, i_know: false, host };
    tidegate::config::load(&sources).expect("valid configuration").config
}

/// Repeats until the condition gives something or the deadline passes.
async fn eventually<T, F: Future<Output = Option<T>>>(mut condition: impl FnMut() -> F) -> T {
    let mut tries = tokio::time::interval(Duration::from_millis(10));
    let trying = async {
        loop {
            tries.tick().await;
            if let Some(value) = condition().await {
                return value;
            }
        }
    };
    tokio::time::timeout(DEADLINE, trying).await.expect("in time")
}

async fn request(address: SocketAddr, head: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    request(address, &format!("GET {path}"), "").await
}

struct Running {
    addresses: tidegate::Addresses,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<Result<(), RunError>>,
}

impl Running {
    async fn start(config: Config) -> Self {
        let app = App::build(config).await.expect("starts");
        let (addresses, ready) = (app.addresses(), app.ready());
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(app.run(async {
            let _ = stopped.await;
        }));
        tokio::time::timeout(DEADLINE, ready).await.expect("ready in time");
        Self { addresses, stop, ended }
    }

    async fn stop(self) {
        self.stop.send(()).expect("still running");
        let ended = tokio::time::timeout(DEADLINE, self.ended).await.expect("ends in time");
        ended.expect("not panicked").expect("in good order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_its_three_ports_and_ends_in_good_order() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let running = Running::start(config(directory.path(), &[])).await;
    let admin = running.addresses.admin;
    assert!(get(admin, "/livez").await.expect("answers").starts_with("HTTP/1.1 200"));
    assert!(get(admin, "/readyz").await.expect("answers").starts_with("HTTP/1.1 200"));
    let metrics = get(admin, "/metrics").await.expect("answers");
    for family in
        ["tidegate_build_info{", "tidegate_router_partitions_serving ", "tidegate_gateway_outbox_bytes "]
    {
        assert!(metrics.contains(&format!("\n{family}")), "{family} in {metrics}");
    }
    // Neither metrics nor health are on the public port.
    for path in ["/metrics", "/readyz", "/livez"] {
        let answer = get(running.addresses.public.expect("a gateway"), path).await.expect("answers");
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let body = "{\"channel\":\"score:42\",\"event\":\"goal\",\"data\":{\"home\":1}}";
    let published =
        request(running.addresses.api.expect("a router"), "POST /v1/publish", body).await.expect("answers");
    assert!(published.starts_with("HTTP/1.1 200") && published.contains("\"pos\":\""), "{published}");
    let followed = eventually(|| async {
        let answer =
            get(running.addresses.public.expect("a gateway"), "/v1/events?channel=score:42&last=1").await?;
        answer.contains("\"goal\"").then_some(answer)
    })
    .await;
    assert!(followed.contains("\"home\":1"), "{followed}");
    running.stop().await;
    assert!(TcpStream::connect(admin).await.is_err());
}

/// A member that nobody finds is not ready, says what to do, and is once the list has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_ready_once_the_list_has_it() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("members.toml");
    let member = |id: u32| format!("[[members]]\nid = {id}\naddress = \"127.0.0.1:{}\"\n", 1000 + id);
    std::fs::write(&path, format!("version = 1\n{}", member(0))).expect("written");
    let flags = [
        ("server.admin", "127.0.0.1:0"),
        ("store.data_dir", "/nonexistent"),
        ("registry.listen", "127.0.0.1:0"),
        ("registry.members_file", path.to_str().expect("temporary paths are UTF-8")),
        ("registry.id", "5"),
    ];
    let flag =
        |(key, value): (&str, &str)| Flag { name: "test".into(), key: key.into(), value: value.into() };
    let app =
        App::build(load(Profile::Registry, flags.into_iter().map(flag).collect())).await.expect("starts");
    let (addresses, ready) = (app.addresses(), app.ready());
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(app.run(async { drop(stopped.await) }));
    let told = eventually(|| async {
        get(addresses.admin, "/readyz").await.filter(|answer| answer.contains("member 5 is not in the list"))
    })
    .await;
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("registry.id"), "{told}");
    let address = addresses.listen.expect("a member listens").to_string();
    let mut client = tidegate_registry::client::connect(&address, None).expect("an address");
    let digest = async |client: &mut tidegate_registry::client::RegistryClientWithKey| {
        let request = tidegate_proto::registry::v1::ListNodesRequest {};
        client.list_nodes(request).await.expect("answers").into_inner().digest
    };
    let before = digest(&mut client).await;
    std::fs::write(&path, format!("version = 2\n{}{}", member(0), member(5))).expect("written");
    tokio::time::timeout(DEADLINE, ready).await.expect("ready in time");
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while digest(&mut client).await == before {
        assert!(tokio::time::Instant::now() < deadline, "the member follows the list");
    }
    let metrics = get(addresses.admin, "/metrics").await.expect("answers");
    for line in ["tidegate_registry_members_version 2", "tidegate_registry_subjects{kind=\"user\"} 0"] {
        assert!(metrics.contains(&format!("\n{line}")), "{line} in {metrics}");
    }
    stop.send(()).expect("still running");
    ended.await.expect("not panicked").expect("in good order");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_survives_a_restart() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let running = Running::start(config(directory.path(), &[])).await;
    let body = "{\"channel\":\"score:7\",\"data\":\"kept\"}";
    let published =
        request(running.addresses.api.expect("a router"), "POST /v1/publish", body).await.expect("answers");
    assert!(published.starts_with("HTTP/1.1 200"), "{published}");
    running.stop().await;
    let running = Running::start(config(directory.path(), &[])).await;
    eventually(|| async {
        let answer =
            get(running.addresses.public.expect("a gateway"), "/v1/events?channel=score:7&last=1").await?;
        answer.contains("\"kept\"").then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_one_directory_is_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let running = Running::start(config(directory.path(), &[])).await;
    let refused = App::build(config(directory.path(), &[])).await.err().expect("refused");
    assert!(matches!(refused, BuildError::Store(_)), "{refused}");
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_with_its_flag() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("bound").to_string();
    for (key, flag) in [("server.public", "--public"), ("server.api", "--api"), ("server.admin", "--admin")] {
        let refused = App::build(config(directory.path(), &[(key, &address)])).await.err().expect("refused");
        let text = refused.to_string();
        assert!(text.contains(&address) && text.contains(flag), "{text}");
        // The directory is free again: the next round opens it.
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_refused_with_the_way_out() {
    let directory = tempfile::tempdir().expect("temporary directory");
    Running::start(config(directory.path(), &[("log.partitions", "2")])).await.stop().await;
    let refused =
        App::build(config(directory.path(), &[("log.partitions", "3")])).await.err().expect("refused");
    assert!(refused.to_string().contains("set it back to 2"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_made_is_explained() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("file");
    std::fs::write(&file, b"").expect("written");
    let refused = App::build(config(&file.join("data"), &[])).await.err().expect("refused");
    assert!(refused.to_string().contains("is not writable"), "{refused}");
}
