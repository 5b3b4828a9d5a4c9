//! The real binary, in a process of its own on a data directory of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    data_dir: Option<PathBuf>,
    file_system: Option<String>,
}

impl Setup {
    /// As `tidegate dev` comes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this setting.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// With this environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// On this data directory instead of a temporary one.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// With the data directory on a file system of its own in memory, mounted with these options; for this the server
    /// runs in a mount namespace, which needs root or user namespaces.
    #[must_use]
    pub fn file_system(mut self, options: &str) -> Self {
        self.file_system = Some(options.to_owned());
        self
    }
}

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    public: SocketAddr,
    api: SocketAddr,
    admin: SocketAddr,
}

/// See the module. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    directory: TempDir,
    ports: Ports,
    process: Process,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    /// Starts `tidegate dev` and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(setup: Setup) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let stderr = Arc::default();
        let ports = Ports { public: any, api: any, admin: any };
        let process = spawn(&setup, directory.path(), ports, &stderr);
        let mut server = Self { setup, directory, ports, process, stderr };
        server.wait_until_ready().await;
        server
    }

    /// Starts a server that must refuse to start: its exit code and what it said.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn start_refused(setup: Setup) -> (i32, String) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let stderr = Arc::default();
        let ports = Ports { public: any, api: any, admin: any };
        let mut process = spawn(&setup, directory.path(), ports, &stderr);
        let status = eventually("the server refuses to start", async || process.exited()).await;
        process.reap();
        (status.code().unwrap_or(-1), text_of(&stderr))
    }

    /// Starts the process again, on the same ports and data. It must have ended.
    pub async fn start_again(&mut self) {
        self.process = spawn(&self.setup, self.directory.path(), self.ports, &self.stderr);
        self.wait_until_ready().await;
    }

    /// Kills the process and starts it again.
    pub async fn restart(&mut self) {
        self.kill9().await;
        self.start_again().await;
    }

    /// Changes the setup for the next start.
    pub fn reconfigure(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(std::mem::take(&mut self.setup));
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill9(&mut self) {
        self.process.signal(Signal::KILL);
        self.exit_code().await;
    }

    /// SIGTERM; the drain goes on.
    pub fn sigterm(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for the end of the process: its exit code, or none when a signal ended it.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let process = &mut self.process;
        let status = eventually("the server ends", async || process.exited()).await;
        self.process.reap();
        status.code()
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.exited().is_none()
    }

    /// The process id, for its namespaces under `/proc`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where clients connect.
    #[must_use]
    pub fn public(&self) -> SocketAddr {
        self.ports.public
    }

    /// Where backends publish.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.ports.api
    }

    /// Health and metrics.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.ports.admin
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.setup, self.directory.path())
    }

    /// Everything that all processes of this server have logged.
    #[must_use]
    pub fn stderr(&self) -> String {
        text_of(&self.stderr)
    }

    /// Publishes under a key of its own, so that the answer means that the router has dealt with it and not only that
    /// the log has it: whoever asks from then on is told of it. The answer.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn publish(&self, body: Value) -> Value {
        publish(self.api(), body).await
    }

    /// Publishes what may be refused.
    pub async fn try_publish(&self, body: &str) -> Response {
        http::post(self.api(), "/v1/publish", &[], body).await
    }

    /// What `/metrics` says.
    pub async fn metrics(&self) -> String {
        http::get(self.admin(), "/metrics", &[]).await.text()
    }

    /// The sum of a metric's series whose labels contain all of `labels`, as they are written.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metric(self.admin(), name, labels).await
    }

    /// Waits until a metric has a value.
    pub async fn metric_becomes(&self, name: &str, labels: &[&str], value: f64) {
        let what = format!("{name} {labels:?} becomes {value}");
        eventually(&what, async || (self.metric(name, labels).await == value).then_some(())).await;
    }

    /// Runs, answers, and no task of it has panicked.
    ///
    /// # Panics
    /// When that is not so.
    pub async fn assert_well(&mut self) {
        assert!(self.is_running(), "the process ended");
        assert_eq!(http::get(self.admin(), "/livez", &[]).await.status(), 200);
        let ready = async || (http::get(self.admin(), "/readyz", &[]).await.status() == 200).then_some(());
        eventually("ready, as before", ready).await;
        let stderr = self.stderr();
        assert!(!stderr.contains("panicked"), "{stderr}");
    }

    async fn wait_until_ready(&mut self) {
        let (file, process) = (ports_file(self.directory.path()), &mut self.process);
        let stderr = &self.stderr;
        let ports = eventually("the server has its ports", async || {
            if let Some(status) = process.exited() {
                panic!("the server ended at its start: {status}\n{}", text_of(stderr));
            }
            read_ports(&file)
        })
        .await;
        self.ports = ports;
        eventually("the server is ready", async || {
            let asked = async {
                let mut conn = http::HttpConn::connect(ports.admin).await.ok()?;
                conn.send(http::request("GET", "/readyz", &[], "")).await.ok()?;
                conn.response().await.ok()
            };
            asked.await.filter(|response| response.status() == 200)
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.end();
        if std::thread::panicking() {
            eprintln!("--- what the server logged ---\n{}---", self.stderr());
        }
    }
}

fn spawn(setup: &Setup, directory: &Path, ports: Ports, stderr: &Arc<Mutex<Vec<u8>>>) -> Process {
    let ports_file = ports_file(directory);
    let _ = std::fs::remove_file(&ports_file);
    let data_dir = data_dir(setup, directory);
    let mut command = match &setup.file_system {
        None => Command::new(binary()),
        Some(options) => {
            std::fs::create_dir_all(&data_dir).expect("mount point");
            let script = r#"mount -t tmpfs -o "$0" tmpfs "$1" && shift && exec "$@""#;
            let mut command = Command::new("unshare");
            command.args(["-rm", "sh", "-c", script, options]).arg(&data_dir).arg(binary());
            command
        }
    };
    command.arg("dev");
    for (name, address) in [("public", ports.public), ("api", ports.api), ("admin", ports.admin)] {
        if setup.settings.iter().all(|(key, _)| *key != format!("server.{name}")) {
            command.arg(format!("--{name}")).arg(address.to_string());
        }
    }
    command.arg("--data-dir").arg(&data_dir).arg("--ports-file").arg(&ports_file);
    for (key, value) in &setup.settings {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    command.envs(setup.environment.iter().cloned());
    Process::spawn(command, stderr)
}

fn data_dir(setup: &Setup, directory: &Path) -> PathBuf {
    setup.data_dir.clone().unwrap_or_else(|| directory.join("data"))
}

fn ports_file(directory: &Path) -> PathBuf {
    directory.join("ports.json")
}

/// The addresses, once the file is there and whole.
fn read_ports(path: &Path) -> Option<Ports> {
    let value: Value = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    let address = |name: &str| match &value[name] {
        Value::Number(port) => {
            let port = u16::try_from(port.as_u64()?).ok()?;
            Some(SocketAddr::from(([127, 0, 0, 1], port)))
        }
        address => address.as_str()?.parse().ok(),
    };
    Some(Ports { public: address("public")?, api: address("api")?, admin: address("admin")? })
}
