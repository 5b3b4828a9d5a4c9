//! `loadtest polls`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tidegate_loadtest::polls::{self, PollsOptions};
use tidegate_loadtest::verify::Cluster;

use super::args::{JsonArgs, ServerArgs, exit_code};
use super::output::show;

const PID_HELP: &str = "Its process, on this machine, whose processor time is read";

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
#[command(verbatim_doc_comment, mut_arg("pid", |pid| pid.required_unless_present("cluster").help(PID_HELP)))]
pub(super) struct PollsArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Which gateway of the cluster [default: its first].
    #[arg(long, value_name = "NAME", requires = "cluster")]
    gateway: Option<String>,
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
    #[command(flatten)]
    json: JsonArgs,
}

pub(super) async fn polls(args: PollsArgs) -> anyhow::Result<ExitCode> {
    let (public, apis, pid) = match &args.server.cluster {
        Some(file) => {
            let cluster = Cluster::read(file)?;
            let gateway = cluster.gateway(args.gateway.as_deref())?;
            let apis = cluster.routers.iter().map(|router| router.api).collect();
            (gateway.public, apis, cluster.pid(&gateway.name)?)
        }
        None => {
            let pid = args.server.pid.context("--pid or --cluster is needed")?;
            (args.server.public, vec![args.server.api], pid)
        }
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
    args.json.write(&report)?;
    Ok(exit_code(args.gate, report.passed))
}
