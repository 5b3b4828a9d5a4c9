//! Arguments that several commands have.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tidegate_loadtest::run::Servers;
use tidegate_loadtest::verify::Cluster;

/// What is put under load: a cluster, or one server that is alone.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The cluster.json that deploy/local/up wrote.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["public", "api", "pid"])]
    pub(super) cluster: Option<PathBuf>,
    /// The public port of a server that is alone.
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub(super) public: SocketAddr,
    /// Its API port, where events are published.
    #[arg(long, default_value = "127.0.0.1:8001")]
    pub(super) api: SocketAddr,
    /// Its process, on this machine: without it, its processor time and memory are not read.
    #[arg(long)]
    pub(super) pid: Option<u32>,
}

impl ServerArgs {
    pub(super) fn servers(&self) -> anyhow::Result<Servers> {
        match &self.cluster {
            Some(file) => Servers::of_cluster(&Cluster::read(file)?),
            None => Ok(Servers::alone(self.public, self.api, self.pid)),
        }
    }
}

/// Where figures go.
#[derive(Debug, Args)]
pub(super) struct JsonArgs {
    /// Where all figures go, as JSON: also those of each round, step or second, which are not printed.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl JsonArgs {
    pub(super) fn write(&self, report: &impl Serialize) -> anyhow::Result<()> {
        self.json.as_deref().map_or(Ok(()), |path| write_to(path, &serde_json::to_vec_pretty(report)?))
    }
}

/// Where a report goes.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    json: JsonArgs,
    /// Where the report goes, with plots: one file that loads nothing.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl ReportArgs {
    pub(super) fn write<R: Serialize>(&self, report: &R, html: fn(&R) -> String) -> anyhow::Result<()> {
        self.json.write(report)?;
        self.html.as_deref().map_or(Ok(()), |path| write_to(path, html(report).as_bytes()))
    }
}

pub(super) fn write_to(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// This program, of which receivers are further processes.
pub(super) fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("which program this is")
}

/// The script of the repository that this directory or this program lies in.
pub(super) fn node_script() -> anyhow::Result<PathBuf> {
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let above = starts.iter().flatten().flat_map(|start| start.ancestors());
    above
        .map(|directory| directory.join("deploy/local/node"))
        .find(|script| script.is_file())
        .context("deploy/local/node was not found from here: pass --node-script")
}

/// A gate that was asked for and missed is a failure.
pub(super) fn exit_code(gate: bool, passed: bool) -> ExitCode {
    if gate && !passed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A number within its bounds, both included.
pub(super) fn between(text: &str, what: &str, from: f64, to: f64) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text} is not a number"))?;
    if (from..=to).contains(&value) { Ok(value) } else { Err(format!("{what} from {from} to {to}")) }
}
