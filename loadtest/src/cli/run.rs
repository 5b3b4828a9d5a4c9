//! `loadtest run` and `loadtest scenarios`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tidegate_loadtest::run::{self, RunOptions};
use tidegate_loadtest::scenario::{SHIPPED, Scenario};

use super::args::{ReportArgs, ServerArgs, this_program};
use super::output::show;

/// Runs a scenario: connects, publishes over gRPC, counts what arrives, and says what it cost
///
/// Without --cluster: one server on this machine, as `tidegate dev` is. Connections are spread over processes and source
/// addresses by themselves, as the limits of open files and of ports ask. Latency counts from when an event was due, so that
/// a stall counts for all that was due meanwhile.
///
/// Two figures survive a noisy machine: deliveries per CPU-second of the gateways, and bytes of user memory per connection.
///
/// Exit code 0: everything could be published, and nothing was lost, twice or out of order (ephemeral and direct events may
/// be lost, and are counted). Anything else: 1.
///
/// Examples:
///
///   tidegate dev &
///
///   loadtest run --scenario live-score --pid $!
///
///   deploy/local/up --dir /tmp/tide
///
///   loadtest run --cluster /tmp/tide/cluster.json --scenario reconnect-storm --html /tmp/tide/storm.html
///
///   loadtest run --scenario chat --print > mine.toml       a file to begin with
///
///   loadtest run --scenario mine.toml --pid $!
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RunArgs {
    /// A shipped scenario (`loadtest scenarios` lists them), or a file.
    #[arg(long, value_name = "NAME|FILE.toml")]
    scenario: String,
    /// Only print the scenario's file.
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// So many times the connections of the scenario.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    scale: f64,
    /// Events a second instead of the scenario's.
    #[arg(long)]
    rate: Option<f64>,
    /// For how long instead.
    #[arg(long)]
    seconds: Option<u64>,
    /// Processes of receivers, at least: one reads more than one core can send.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    #[command(flatten)]
    report: ReportArgs,
    /// A fault to be noticed: this event is said to be published, and is not.
    #[arg(long, value_name = "NUMBER", hide = true)]
    plant_drop: Option<u64>,
}

pub(super) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let (scenario, text) = Scenario::find(&args.scenario)?;
    if args.print {
        print!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut scenario = scenario.scaled(args.scale)?;
    scenario.publish.rate = args.rate.unwrap_or(scenario.publish.rate);
    scenario.seconds = args.seconds.unwrap_or(scenario.seconds);
    scenario.check().context("what the command line changed")?;
    let options = RunOptions {
        name: args.scenario,
        scenario,
        servers: args.server.servers()?,
        loadtest: this_program()?,
        least_workers: args.workers.into(),
        settles: true,
        planted_drop: args.plant_drop,
    };
    let report = run::run(&options, show).await?;
    show("\n");
    println!("{report}");
    args.report.write(&report, run::html)?;
    Ok(if report.good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The scenarios that come with this program
///
/// `loadtest run --scenario NAME` runs one, with --print it shows the file: a place to begin from.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ScenariosArgs {}

pub(super) fn scenarios(_args: &ScenariosArgs) -> anyhow::Result<ExitCode> {
    for shipped in SHIPPED {
        let (scenario, _) = Scenario::find(shipped.name)?;
        println!("{:16} {}", shipped.name, scenario.about);
    }
    Ok(ExitCode::SUCCESS)
}
