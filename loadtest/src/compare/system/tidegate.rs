//! One gateway of a cluster that `deploy/local/up` started; events go to the routers' API.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rand::Rng as _;
use serde_json::json;

use super::{Sender, Target};
use crate::compare::CompareOptions;
use crate::compare::open::Door;
use crate::compare::publish::Publisher;
use crate::verify::{Cluster, Gateway, channels};

pub(super) fn target(options: &CompareOptions, cluster: &Cluster) -> anyhow::Result<Target> {
    let gateway = gateway(cluster, options.gateway.as_deref())?;
    let prefix = format!("bench:{:08x}", rand::rng().random::<u32>());
    let channels = channels(&prefix, options.channels(), cluster.partitions);
    let query: Vec<_> = channels.iter().map(|channel| format!("channel={channel}")).collect();
    let request = move |seq: u64, data: String| {
        let channel = &channels[seq as usize % channels.len()];
        ("/v1/publish".to_owned(), json!({"channel": channel, "data": data}).to_string())
    };
    Ok(Target {
        door: Door {
            address: gateway.public,
            path: format!("/v1/events?{}", query.join("&")),
            frames_first: 1, // The state.
        },
        pids: vec![pid_of(&cluster.dir.join(&gateway.name))?],
        sender: Sender::Publisher(Publisher {
            addresses: cluster.routers.iter().map(|router| router.api).collect(),
            request: Arc::new(request),
        }),
    })
}

/// The gateway of this name, or the first.
pub(crate) fn gateway<'a>(cluster: &'a Cluster, name: Option<&str>) -> anyhow::Result<&'a Gateway> {
    let gateway = match name {
        None => cluster.gateways.first(),
        Some(name) => cluster.gateways.iter().find(|gateway| gateway.name == name),
    };
    gateway.with_context(|| {
        let names: Vec<_> = cluster.gateways.iter().map(|gateway| gateway.name.as_str()).collect();
        format!("no such gateway: the cluster has {}", names.join(", "))
    })
}

/// A pid file outlives its process, and the number may be another's by now: the command line must name the directory.
pub(crate) fn pid_of(directory: &Path) -> anyhow::Result<u32> {
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
