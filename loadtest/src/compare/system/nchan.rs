//! nginx with nchan, started here, in a directory of its own on a free port.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rand::Rng as _;

use super::{NchanOrReason, Sender, Target};
use crate::compare::CompareOptions;
use crate::compare::open::Door;
use crate::compare::publish::Publisher;

/// Where distributions put nginx's modules.
const MODULE_FOLDERS: [&str; 4] = [
    "/usr/lib/nginx/modules",
    "/usr/lib64/nginx/modules",
    "/usr/share/nginx/modules",
    "/usr/local/nginx/modules",
];
const MODULE: &str = "ngx_nchan_module.so";
/// Time in which it must listen, and in which its worker must be there.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Ended when dropped.
pub(in crate::compare) struct Nchan {
    master: Child,
    worker: u32,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Nchan {
    /// Starts it; or says why it cannot be compared with, and what to do.
    pub(in crate::compare) fn start(sockets: usize) -> NchanOrReason {
        let Some(module) =
            MODULE_FOLDERS.iter().map(|folder| Path::new(folder).join(MODULE)).find(|path| path.exists())
        else {
            return Err("nchan is not installed: on Debian, apt-get install libnginx-mod-nchan".to_owned());
        };
        start(&module, sockets).map_err(|error| format!("nchan does not start: {error:#}"))
    }

    pub(super) fn target(&self, options: &CompareOptions) -> anyhow::Result<Target> {
        let prefix = format!("bench-{:08x}", rand::rng().random::<u32>());
        let channels: Vec<_> = (0..options.channels()).map(|number| format!("{prefix}-{number}")).collect();
        let path = format!("/sub?id={}", channels.join(","));
        let request =
            move |seq: u64, data| (format!("/pub?id={}", channels[seq as usize % channels.len()]), data);
        Ok(Target {
            door: Door { address: self.address, path, frames_first: 0 },
            pids: vec![self.worker],
            sender: Sender::Publisher(Publisher {
                addresses: vec![self.address],
                request: Arc::new(request),
            }),
        })
    }
}

impl Drop for Nchan {
    /// The master ends the worker; a worker without a master ends too.
    fn drop(&mut self) {
        let pid = i32::try_from(self.master.id()).ok().and_then(rustix::process::Pid::from_raw);
        let asked = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        if !matches!(asked, Some(Ok(()))) {
            let _may_have_ended = self.master.kill();
        }
        let _then_too = self.master.wait();
    }
}

fn start(module: &Path, sockets: usize) -> anyhow::Result<Nchan> {
    let directory = tempfile::Builder::new().prefix("tidegate-nchan-").tempdir()?;
    let at = directory.path();
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?; // Free again when this line is through.
    std::fs::write(at.join("nginx.conf"), configuration(module, address, sockets))?;
    let log = std::fs::File::create(at.join("log"))?;
    let mut command = Command::new(nginx());
    command.arg("-p").arg(at).arg("-c").arg(at.join("nginx.conf")).args(["-e", "stderr"]);
    let mut master = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("nginx cannot be run; on Debian: apt-get install nginx-light")?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let (Ok(_), Some(worker)) = (TcpStream::connect(address), worker_of(master.id())) {
            return Ok(Nchan { master, worker, address, _directory: directory });
        }
        if Instant::now() > deadline || master.try_wait()?.is_some() {
            let _may_have_ended = master.kill();
            master.wait()?;
            bail!("it said: {}", std::fs::read_to_string(at.join("log"))?.trim());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn nginx() -> PathBuf {
    let path = Path::new("/usr/sbin/nginx"); // Where it is, though not on everybody's PATH.
    if path.exists() { path.to_owned() } else { PathBuf::from("nginx") }
}

/// One worker, as the floor is one thread; otherwise nchan's defaults, with room for events that a slow reader has yet to
/// take. Pings are off, as they are by default.
fn configuration(module: &Path, address: SocketAddr, sockets: usize) -> String {
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let (module, connections) = (module.display(), sockets + 512);
    format!(
        "load_module {module};
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile {connections};
pid nginx.pid;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  keepalive_requests 1000000;
  client_body_temp_path tmp;
  proxy_temp_path tmp;
  fastcgi_temp_path tmp;
  uwsgi_temp_path tmp;
  scgi_temp_path tmp;
  nchan_shared_memory_size 128M;
  server {{
    listen {address} backlog=4096;
    location = /pub {{ nchan_publisher; nchan_channel_id $arg_id; nchan_message_buffer_length 1000; }}
    location = /sub {{
      nchan_subscriber websocket;
      nchan_channel_id $arg_id;
      nchan_channel_id_split_delimiter \",\";
      nchan_subscriber_first_message newest;
    }}
  }}
}}
"
    )
}

/// The process whose parent is the master: there is one.
fn worker_of(master: u32) -> Option<u32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent: u32 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?;
        (parent == master).then_some(pid)
    })
}
