//! `loadtest verify` and `loadtest judge`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tidegate_loadtest::history::History;
use tidegate_loadtest::judge::{Limits, Verdict, prove};
use tidegate_loadtest::verify::{
    Cluster, NodeScript, PlannedRestart, VerifyOptions, judge_directory, verify as run,
};

use super::args::{node_script, write_to};

/// Kills gateways and routers under load and says whether any client missed anything
///
/// Publishes durable events to a cluster that deploy/local/up started, follows them with subscribers on all five transports,
/// kills the gateway with most connections at 15 s (back at 20 s) and the router with most partitions at 35 s (back at 55 s),
/// in shorter runs earlier, waits until everyone has everything, and then judges the history that it wrote.
///
/// Exit code 0: nothing acked is missing, nothing came twice on one connection or out of order, no pause was too long, and
/// the judge named the fault in three doctored copies of the history. Anything else: 1.
///
/// Example:
///
///   deploy/local/up --dir /tmp/tide
///
///   loadtest verify --cluster /tmp/tide/cluster.json --planned-restart router-1@70
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct VerifyArgs {
    /// The cluster.json that deploy/local/up wrote
    #[arg(long, value_name = "FILE")]
    cluster: PathBuf,
    /// How long events are published
    #[arg(long, default_value_t = 90)]
    seconds: u64,
    /// Durable events a second
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// Channels, spread evenly over the partitions
    #[arg(long, default_value_t = 100)]
    channels: usize,
    /// Subscribers, a fifth for each transport; a third of them follow several channels
    #[arg(long, default_value_t = 300)]
    subscribers: u32,
    /// Where the history and verdict.json go [default: history beside cluster.json]
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Restart this process in good order at that second: SIGTERM, and a start once it is gone; may be repeated
    #[arg(long, value_name = "NAME@SECOND")]
    planned_restart: Vec<PlannedRestart>,
    /// Kill nothing
    #[arg(long)]
    no_kill: bool,
    /// The script that kills and starts processes [default: deploy/local/node of this repository]
    #[arg(long, value_name = "FILE")]
    node_script: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
}

/// Judges the history of a run, as often as you like
///
/// Reads nothing but the files. Exit code 0: the verdict is good.
///
/// Example:
///
///   loadtest judge --history /tmp/tide/history --elsewhere-ms-limit 500
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct JudgeArgs {
    /// The directory that loadtest verify wrote
    #[arg(long, value_name = "DIR")]
    history: PathBuf,
    /// Only doctor three copies of the history, and say whether the judge names each fault
    #[arg(long)]
    prove: bool,
    #[command(flatten)]
    limits: Limits,
}

pub(super) async fn verify(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::read(&args.cluster)?;
    let beside = args.cluster.parent().unwrap_or(Path::new(".")).join("history");
    let options = VerifyOptions {
        seconds: args.seconds,
        rate: args.rate,
        channels: args.channels,
        subscribers: args.subscribers,
        no_kill: args.no_kill,
        planned_restarts: args.planned_restart,
        history: args.history.unwrap_or(beside),
    };
    let script = args.node_script.map_or_else(node_script, Ok)?;
    let faults = NodeScript { script, dir: cluster.dir.clone() };
    run(&options, &cluster, faults, |line| eprintln!("{line}")).await?;
    eprintln!("judging {}", options.history.display());
    let verdict = judge_directory(&options.history, &args.limits)?;
    conclude(&options.history, &verdict)
}

pub(super) fn judge(args: &JudgeArgs) -> anyhow::Result<ExitCode> {
    if args.prove {
        let history = History::read(&args.history)?;
        let proofs = prove(&history).map_err(anyhow::Error::msg).context("the judge is not proved")?;
        for proof in proofs {
            println!("proved: {proof}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    conclude(&args.history, &judge_directory(&args.history, &args.limits)?)
}

fn conclude(history: &Path, verdict: &Verdict) -> anyhow::Result<ExitCode> {
    let path = history.join("verdict.json");
    write_to(&path, &serde_json::to_vec_pretty(verdict)?)?;
    println!("{verdict}\n\n  {}", path.display());
    Ok(if verdict.good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
