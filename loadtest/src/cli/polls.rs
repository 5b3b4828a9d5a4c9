//! `loadtest polls`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tidegate_loadtest::polls::{self, PollsOptions};
use tidegate_loadtest::verify::Cluster;

use super::output::{show, write_to};

/// What a short poll costs that finds nothing new: answers 304 per second of the server's processor time
///
/// --connections are kept alive, and each asks again as soon as it has its answer: GET /v1/events?channel=... with the tag of
/// its last answer in If-None-Match, which is answered 304 while nothing has come. Once in --event-interval an event is
/// published, and every connection must find each of them once: an answer that is quick because it looks at nothing would be
/// noticed as a loss. The figure is answers 304 by the user and system time that the server's process used meanwhile.
///
/// The gate: 40,000 answers 304 per CPU-second, and no event lost or twice. The process dev holds router and registry too; a
/// gateway of a cluster only itself.
///
/// Examples:
///
///   deploy/local/up --dir /tmp/tide
///
///   loadtest polls --cluster /tmp/tide/cluster.json --gate
///
///   tidegate dev & loadtest polls --pid $!
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PollsArgs {
    /// The cluster.json that deploy/local/up wrote: poll a gateway of it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["public", "api", "pid"])]
    cluster: Option<PathBuf>,
    /// Which gateway of the cluster [default: its first].
    #[arg(long, value_name = "NAME", requires = "cluster")]
    gateway: Option<String>,
    /// The public port of a server that is no cluster's.
    #[arg(long, default_value = "127.0.0.1:8000")]
    public: SocketAddr,
    /// Its API port, where events are published.
    #[arg(long, default_value = "127.0.0.1:8001")]
    api: SocketAddr,
    /// Its process, on this machine.
    #[arg(long, required_unless_present = "cluster")]
    pid: Option<u32>,
    /// Connections that poll, each one request at a time; this process must be allowed as many files.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Channels that each names.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    channels: u16,
    /// How long it is measured.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Seconds before it that are not counted.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=60))]
    warm_up: u64,
    /// Milliseconds between two events.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    event_interval: u64,
    /// Exit code 1 when the gate is missed.
    #[arg(long)]
    gate: bool,
    /// Where all figures go, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) async fn polls(args: PollsArgs) -> anyhow::Result<ExitCode> {
    let (public, apis, pid) = match &args.cluster {
        Some(file) => {
            let cluster = Cluster::read(file)?;
            let gateway = cluster.gateway(args.gateway.as_deref())?;
            let apis = cluster.routers.iter().map(|router| router.api).collect();
            (gateway.public, apis, cluster.pid(&gateway.name)?)
        }
        None => (args.public, vec![args.api], args.pid.context("--pid or --cluster is needed")?),
    };
    let options = PollsOptions {
        public,
        apis,
        pid,
        connections: args.connections as usize,
        channels: args.channels.into(),
        seconds: args.seconds,
        warm_seconds: args.warm_up,
        event_interval_ms: args.event_interval,
        planted_repeat: false,
    };
    let report = polls::polls(&options, show).await?;
    show("\n");
    println!("{report}");
    if let Some(path) = &args.json {
        write_to(path, &serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(if args.gate && !report.passed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
