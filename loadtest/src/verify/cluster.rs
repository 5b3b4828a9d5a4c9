//! `cluster.json`, as `deploy/local/up` writes it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::history;

/// The processes of a cluster on this machine.
#[derive(Debug, Clone, Deserialize)]
pub struct Cluster {
    /// Where its log is.
    pub kafka: Option<Kafka>,
    /// Partitions of the log.
    pub partitions: u32,
    /// Those that own partitions.
    pub routers: Vec<Router>,
    /// Those that clients connect to.
    pub gateways: Vec<Gateway>,
    /// Where their files are.
    pub dir: PathBuf,
}

/// The log of a cluster.
#[derive(Debug, Clone, Deserialize)]
pub struct Kafka {
    /// Brokers: `host:port`, separated by commas.
    pub bootstrap: String,
}

/// A router, or a process that is one too.
#[derive(Debug, Clone, Deserialize)]
pub struct Router {
    /// Its name for `deploy/local/node`.
    pub name: String,
    /// Where it takes publishes.
    pub api: SocketAddr,
    /// Where its metrics are.
    pub admin: SocketAddr,
}

/// A gateway, or a process that is one too.
#[derive(Debug, Clone, Deserialize)]
pub struct Gateway {
    /// Its name for `deploy/local/node`.
    pub name: String,
    /// Where clients connect.
    pub public: SocketAddr,
    /// Where its metrics are.
    pub admin: SocketAddr,
}

impl Cluster {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing, is another one, or names no router or no gateway.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let hint = || format!("{}: start a cluster with deploy/local/up, which writes it", path.display());
        let text = std::fs::read(path).with_context(hint)?;
        let cluster: Self = serde_json::from_slice(&text).with_context(hint)?;
        ensure!(
            !cluster.routers.is_empty() && !cluster.gateways.is_empty() && cluster.partitions > 0,
            "{} names no router, no gateway or no partition",
            path.display()
        );
        Ok(cluster)
    }

    /// Every process once, with its admin port.
    #[must_use]
    pub fn processes(&self) -> Vec<(String, SocketAddr)> {
        let routers = self.routers.iter().map(|router| (router.name.clone(), router.admin));
        let mut all: Vec<_> = routers.collect();
        for gateway in &self.gateways {
            if !all.iter().any(|(name, _)| *name == gateway.name) {
                all.push((gateway.name.clone(), gateway.admin));
            }
        }
        all
    }

    /// The names, for a history.
    #[must_use]
    pub fn names(&self) -> history::Cluster {
        history::Cluster {
            gateways: self.gateways.iter().map(|gateway| gateway.name.clone()).collect(),
            routers: self.routers.iter().map(|router| router.name.clone()).collect(),
        }
    }

    /// The process of this name.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid_of(&self, name: &str) -> anyhow::Result<u32> {
        pid_of(&self.dir.join(name))
    }
}

/// A pid file outlives its process, and the number may be another's by now: the command line must name the directory.
fn pid_of(directory: &Path) -> anyhow::Result<u32> {
    let hint = || format!("{}: does the cluster run? deploy/local/up starts one", directory.display());
    let text = std::fs::read_to_string(directory.join("pid")).with_context(hint)?;
    let pid: u32 = text.trim().parse().with_context(hint)?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).with_context(hint)?;
    let names_it = String::from_utf8_lossy(&command).contains(&*directory.to_string_lossy());
    ensure!(names_it, "process {pid} is another one; {}", hint());
    Ok(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_of_another_process_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        assert!(pid_of(directory.path()).unwrap_err().to_string().contains("deploy/local/up"));
        std::fs::write(directory.path().join("pid"), format!("{}\n", std::process::id())).unwrap();
        assert!(pid_of(directory.path()).unwrap_err().to_string().contains("another"));
    }
}
