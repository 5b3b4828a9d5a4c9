//! One process of a cluster: `tidegate router`, `tidegate gateway` or `tidegate registry`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::http::{self, Response};
use crate::metric::metric;
use crate::process::{Process, binary, text_of};
use crate::publisher::publish;

/// See the module. Dropped, it is killed.
#[derive(Debug)]
pub struct Node {
    name: String,
    arguments: Vec<String>,
    directory: TempDir,
    /// What the ports file of its first start said; from then on it is started with these.
    ports: Option<Value>,
    process: Process,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Node {
    /// Starts `tidegate ROLE` with these arguments; it is not ready yet.
    pub(crate) fn spawn(name: &str, role: &str, arguments: Vec<String>) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let stderr = Arc::default();
        let arguments: Vec<String> = [role.to_owned()].into_iter().chain(arguments).collect();
        let process = process(&arguments, None, &directory, &stderr);
        Self { name: name.to_owned(), arguments, directory, ports: None, process, stderr }
    }

    /// Starts the process again, with the same arguments, ports and data. It must have ended.
    pub fn spawn_again(&mut self) {
        self.process = process(&self.arguments, self.ports.as_ref(), &self.directory, &self.stderr);
    }

    /// Waits until it has said where it listens and is ready.
    ///
    /// # Panics
    /// When it ends before.
    pub async fn wait_until_ready(&mut self) {
        let file = self.directory.path().join("ports.json");
        let (process, stderr, name) = (&mut self.process, &self.stderr, &self.name);
        let ports = eventually(&format!("{name} has its ports"), async || {
            if let Some(status) = process.exited() {
                panic!("{name} ended at its start: {status}\n{}", text_of(stderr));
            }
            serde_json::from_str(&std::fs::read_to_string(&file).ok()?).ok()
        })
        .await;
        self.ports = Some(ports);
        let what = format!("{} is ready", self.name);
        eventually(&what, async || self.is_ready().await.then_some(())).await;
    }

    /// Whether it says so.
    pub async fn is_ready(&self) -> bool {
        self.readiness().await.is_some_and(|answer| answer.status() == 200)
    }

    /// What `/readyz` says; nothing when nobody answers.
    pub async fn readiness(&self) -> Option<Response> {
        let mut conn = http::HttpConn::connect(self.admin()).await.ok()?;
        conn.send(http::request("GET", "/readyz", &[], "")).await.ok()?;
        conn.response().await.ok()
    }

    /// SIGKILL; it ends a moment later.
    pub fn kill9(&self) {
        self.process.signal(Signal::KILL);
    }

    /// SIGSTOP: it is there and does nothing.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Waits for the end of the process: its exit code, or none when a signal ended it.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let process = &mut self.process;
        let status = eventually("the process ends", async || process.exited()).await;
        self.process.reap();
        status.code()
    }

    /// Deletes what it has on disk.
    ///
    /// # Panics
    /// When there is nothing.
    pub fn delete_data(&self) {
        std::fs::remove_dir_all(self.data_dir()).expect("a data directory");
    }

    /// Where its data is.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where clients connect.
    #[must_use]
    pub fn public(&self) -> SocketAddr {
        self.port("public")
    }

    /// Where backends publish.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.port("api")
    }

    /// Health and metrics.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.port("admin")
    }

    /// Everything that all processes of this node have logged.
    #[must_use]
    pub fn stderr(&self) -> String {
        text_of(&self.stderr)
    }

    /// Publishes, and returns once the owner has dealt with it.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn publish(&self, body: Value) -> Value {
        publish(self.api(), body).await
    }

    /// Publishes what may be refused.
    pub async fn try_publish(&self, headers: &[(&str, &str)], body: &Value) -> Response {
        http::post(self.api(), "/v1/publish", headers, &body.to_string()).await
    }

    /// The sum of a metric's series whose labels contain all of `labels`, as they are written.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metric(self.admin(), name, labels).await
    }

    /// Bytes of memory that the process has resident.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    fn port(&self, name: &str) -> SocketAddr {
        let ports = self.ports.as_ref().expect("it was ready once");
        let address = ports[name].as_str().and_then(|text| text.parse().ok());
        address.unwrap_or_else(|| panic!("{} has no port {name}: {ports}", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process.end();
        if std::thread::panicking() {
            eprintln!("--- what {} logged ---\n{}---", self.name, self.stderr());
        }
    }
}

fn process(
    arguments: &[String],
    ports: Option<&Value>,
    directory: &TempDir,
    stderr: &Arc<Mutex<Vec<u8>>>,
) -> Process {
    let ports_file = directory.path().join("ports.json");
    let _ = std::fs::remove_file(&ports_file);
    let mut command = Command::new(binary());
    command.args(arguments).arg("--quiet").arg("--ports-file").arg(&ports_file);
    let names: &[&str] = match arguments[0].as_str() {
        "router" => &["api", "admin"],
        "registry" => &["admin"],
        _ => &["public", "admin"],
    };
    for name in names {
        let known = ports.and_then(|ports| ports[name].as_str());
        command.arg(format!("--{name}")).arg(known.unwrap_or("127.0.0.1:0"));
    }
    if arguments[0] == "router" {
        command.arg("--data-dir").arg(directory.path().join("data"));
    }
    Process::spawn(command, stderr)
}
