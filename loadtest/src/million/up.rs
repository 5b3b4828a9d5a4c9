//! A cluster of the command's own: `deploy/local/up` begins it, `deploy/local/down` ends it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, getrlimit};

use crate::verify::Cluster;

/// Files that a gateway keeps free of client connections, and some more.
const FILES_MARGIN: u64 = 1_000;
/// The most that `deploy/local/up` starts.
const GATEWAYS_LIMIT: u64 = 99;

/// How the cluster differs from that of `deploy/local/up`, where the environment says nothing else: both ends of every ping share
/// this machine, so there are as few as may be; and channels have no presence, as everywhere but there.
const ENVIRONMENT: [(&str, &str); 2] =
    [("TIDEGATE__LIMITS__PING_INTERVAL", "55s"), ("TIDEGATE__PRESENCE__CHANNELS", "false")];

/// Ended, and all it wrote deleted, when dropped.
#[derive(Debug)]
pub struct Up {
    scripts: PathBuf,
    directory: PathBuf,
    /// What it started.
    pub cluster: Cluster,
}

/// The fewest gateways that can hold so many connections, as the limit of open files is.
///
/// # Errors
/// When `deploy/local/up` starts fewer; says what to do.
pub fn gateways_needed(connections: u64) -> anyhow::Result<u64> {
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let each = files.saturating_sub(FILES_MARGIN);
    ensure!(each > 0, "a gateway may open {files} files only: raise ulimit -Hn");
    let needed = connections.div_ceil(each).max(1);
    ensure!(
        needed <= GATEWAYS_LIMIT,
        "{connections} connections need {needed} gateways of {files} open files each, and deploy/local/up starts \
         {GATEWAYS_LIMIT} at most: raise ulimit -Hn, or ask for fewer"
    );
    Ok(needed)
}

impl Up {
    /// Starts one of so many gateways, each with one thread for its connections, in this directory. What the script says
    /// goes to standard error.
    ///
    /// # Errors
    /// When the script fails.
    pub fn start(scripts: &Path, directory: &Path, gateways: u64) -> anyhow::Result<Self> {
        let up = scripts.join("up");
        let said = ENVIRONMENT.into_iter().filter(|(name, _)| std::env::var_os(name).is_none());
        let status = Command::new(&up)
            .envs(said)
            .arg("--dir")
            .arg(directory)
            .args(["--port-base", "0", "--gateway-shards", "1", "--gateways", &gateways.to_string()])
            .stdout(Stdio::null())
            .status()
            .with_context(|| format!("cannot run {}", up.display()))?;
        ensure!(status.success(), "{} failed: see above", up.display());
        let cluster = Cluster::read(&directory.join("cluster.json"))?;
        Ok(Self { scripts: scripts.to_owned(), directory: directory.to_owned(), cluster })
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let mut down = Command::new(self.scripts.join("down"));
        down.arg("--dir").arg(&self.directory).arg("--wipe").stdout(Stdio::null());
        if !down.status().is_ok_and(|status| status.success()) {
            eprintln!("the cluster in {} was not ended: deploy/local/down does", self.directory.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_as_large_as_the_limit_of_open_files_allows() {
        assert_eq!(gateways_needed(1).unwrap(), 1);
        if getrlimit(Resource::Nofile).maximum.is_some() {
            let error = gateways_needed(u64::MAX).unwrap_err().to_string();
            assert!(error.contains("ulimit -Hn"), "{error}");
        }
    }
}
