//! `loadtest million`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use tidegate_loadtest::million::{self, MillionOptions, Up, gateways_needed};
use tidegate_loadtest::verify::Cluster;
use tokio::signal::unix::{SignalKind, signal};

use super::args::{ReportArgs, this_program};
use super::output::show;

/// Beyond what the rate asks for, events have so long to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// 1,000,000 idle WebSockets with a user and a channel each: what each part takes, and whether all hear what they should
///
/// Starts a cluster with deploy/local/up (as many gateways as the limit of open files asks for, two routers, three registry
/// members; a ping each 55 s and presence of users only, where TIDEGATE__LIMITS__PING_INTERVAL and TIDEGATE__PRESENCE__CHANNELS
/// say nothing else), or takes the one of --cluster. Opens --connections at --rate, of eight worker processes at a time, waits until
/// all their channels are live, and counts each part's processor time for --idle-seconds. Then one event goes to all, and
/// --unicasts go to one user each, in turn to the user and to the connection's own channel. Says what each part takes of the
/// machine's memory, by connection.
///
/// Both ends of every connection are on this machine: about 12.5 KB each, 5 of them for each end in the kernel. It watches the
/// memory that is left and stops in good time. Nothing needs root; where a limit of the system binds it says which one, and
/// how to raise it. Exit code 1: something was lost, came twice, or a connection was closed.
///
/// Examples:
///
///   loadtest million --connections 20000
///
///   loadtest million --json million.json --html million.html
///
///   deploy/local/up --dir /tmp/tide --gateways 53 --gateway-shards 1
///
///   loadtest million --cluster /tmp/tide/cluster.json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct MillionArgs {
    /// How many connections.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    connections: u64,
    /// The cluster.json that deploy/local/up wrote; without it, a cluster is started and ended.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["gateways", "dir"])]
    cluster: Option<PathBuf>,
    /// Gateways of the cluster that is started [default: as few as the limit of open files allows, 53 for 1,000,000].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=99))]
    gateways: Option<u64>,
    /// Directory of the cluster that is started, which is deleted afterwards [default: tidegate-million-PID in the system's
    /// directory for temporary files].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Connections that open in a second, as far as the machine keeps up.
    #[arg(long, default_value_t = 3_000.0)]
    rate: f64,
    /// Events to one user each.
    #[arg(long, default_value_t = 10_000)]
    unicasts: u64,
    /// How many of them in a second.
    #[arg(long, default_value_t = 500.0)]
    unicast_rate: f64,
    /// Seconds for which processor time is counted while nothing happens; 0 leaves it out.
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// It stops when less memory than this is left.
    #[arg(long, default_value_t = 3_072)]
    least_memory_mib: u64,
    /// Where deploy/local is [default: that of this repository].
    #[arg(long, value_name = "DIR")]
    scripts: Option<PathBuf>,
    #[command(flatten)]
    report: ReportArgs,
}

pub(super) async fn million(args: MillionArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.rate > 0.0 && args.unicast_rate > 0.0, "a rate is more than 0");
    let options = MillionOptions {
        connections: args.connections,
        rate: args.rate,
        unicasts: args.unicasts.min(args.connections),
        unicast_rate: args.unicast_rate,
        idle_seconds: args.idle_seconds,
        least_memory_bytes: args.least_memory_mib << 20,
        patience: PATIENCE,
        loadtest: this_program()?,
        planted_drops: 0,
    };
    let (cluster, _ended_when_dropped) = match &args.cluster {
        Some(file) => (Cluster::read(file)?, None),
        None => {
            let up = start(&args)?;
            (up.cluster.clone(), Some(up))
        }
    };
    // However it ends, the cluster that it started does too.
    let mut terminate = signal(SignalKind::terminate())?;
    let report = tokio::select! {
        report = million::million(&options, &cluster, show) => report?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    };
    println!("{report}");
    args.report.write(&report, million::html)?;
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start(args: &MillionArgs) -> anyhow::Result<Up> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let scripts = args.scripts.clone().unwrap_or_else(|| repository.join("deploy/local"));
    ensure!(
        scripts.join("up").exists(),
        "{} has no up: name deploy/local of the repository with --scripts",
        scripts.display()
    );
    let named = || std::env::temp_dir().join(format!("tidegate-million-{}", std::process::id()));
    let directory = args.dir.clone().unwrap_or_else(named);
    let needed = gateways_needed(args.connections)?;
    let gateways = args.gateways.unwrap_or(needed);
    ensure!(
        gateways >= needed,
        "{} connections need {needed} gateways, as the limit of open files is: --gateways {needed}",
        args.connections
    );
    show(&format!("starting {gateways} gateways in {}\n", directory.display()));
    Up::start(&scripts, &directory, gateways)
}
