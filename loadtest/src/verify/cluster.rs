//! `cluster.json`, as `deploy/local/up` writes it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
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
        anyhow::ensure!(
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
}
