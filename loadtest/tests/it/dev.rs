//! A `tidegate dev` of a test's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate_loadtest::verify::{Cluster, Gateway, Router};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Where its data lies, in its own directory.
pub(crate) const DATA: &str = "data";
/// What a test has of the machine.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// For tests that measure memory, time or a rate, which others would disturb.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}

/// For tests that only count: as many at once as the test harness has threads. They wait most of the time.
pub(crate) async fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}

/// Looks again until it is so.
pub(crate) async fn eventually(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let looking = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        while !condition() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(within, looking).await.unwrap_or_else(|_| panic!("not within {within:?}: {what}"));
}

/// Killed when dropped.
pub(crate) struct Dev {
    process: Child,
    pub(crate) public: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) admin: SocketAddr,
    directory: tempfile::TempDir,
}

impl Dev {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments, which a second start does not have.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let (process, [public, api, admin]) = spawn(directory.path(), [any; 3], arguments);
        Self { process, public, api, admin, directory }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// It as a cluster of one process, with the pid file that `deploy/local/up` would have written. Its name there is that of
    /// the directory in its command line, by which it is known to be the process of that file.
    pub(crate) fn cluster(&self) -> Cluster {
        let dir = self.directory.path().to_owned();
        std::fs::write(dir.join(DATA).join("pid"), self.pid().to_string()).expect("a pid file");
        Cluster {
            kafka: None,
            partitions: 8,
            routers: vec![Router { name: DATA.to_owned(), api: self.api, admin: self.admin }],
            gateways: vec![Gateway { name: DATA.to_owned(), public: self.public, admin: self.admin }],
            dir,
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }

    /// With the same data on the same ports.
    pub(crate) fn start_again(&mut self) {
        let (process, _) = spawn(self.directory.path(), [self.public, self.api, self.admin], &[]);
        self.process = process;
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts it, and waits until it listens.
fn spawn(directory: &Path, addresses: [SocketAddr; 3], arguments: &[&str]) -> (Child, [SocketAddr; 3]) {
    let ports = directory.join("ports.json");
    let _ = std::fs::remove_file(&ports);
    let mut command = Command::new(binary());
    command.arg("dev");
    for (flag, address) in ["--public", "--api", "--admin"].into_iter().zip(addresses) {
        command.args([flag, &address.to_string()]);
    }
    command.arg("--data-dir").arg(directory.join(DATA)).arg("--ports-file").arg(&ports);
    command.args(arguments);
    let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("tidegate starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    let ports: serde_json::Value = loop {
        match std::fs::read(&ports).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            Some(ports) => break ports,
            None => assert!(Instant::now() < deadline, "tidegate dev did not become ready"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let address = |name: &str| ports[name].as_str().expect("an address").parse().expect("an address");
    (process, ["public", "api", "admin"].map(address))
}

/// `TIDEGATE_BIN`, or the binary that was built with this test.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEGATE_BIN") {
        return path.into();
    }
    let mut path = std::env::current_exe().expect("own path");
    path.pop();
    path.pop();
    path.push("tidegate");
    assert!(
        path.exists(),
        "{} is missing: run `cargo build -p tidegate` with the same profile",
        path.display()
    );
    path
}
