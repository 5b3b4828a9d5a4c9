//! The command line.

mod args;
mod compare;
mod measure;
mod million;
mod output;
mod polls;
mod pressure;
mod run;
mod transports;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidegate_loadtest::fleet;

/// Opens many client connections to a Tidegate on this machine, and says what they cost it and whether they got everything.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Examples:\n  tidegate dev &\n  loadtest run --scenario live-score --pid $!\n  loadtest idle --pid $! --connections 5000 --transport sse\n\n  \
                  deploy/local/up --dir /tmp/tide\n  loadtest verify --cluster /tmp/tide/cluster.json\n  \
                  loadtest compare --cluster /tmp/tide/cluster.json --html /tmp/tide/compare.html"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Scenarios(run::ScenariosArgs),
    Transports(transports::TransportsArgs),
    Idle(measure::IdleArgs),
    Latency(measure::LatencyArgs),
    Polls(polls::PollsArgs),
    Million(million::MillionArgs),
    Compare(compare::CompareArgs),
    Floor(compare::FloorArgs),
    Saturation(pressure::SaturationArgs),
    Storm(pressure::StormArgs),
    Stalled(pressure::StalledArgs),
    Verify(verify::VerifyArgs),
    Judge(verify::JudgeArgs),
    /// A worker of a fleet: takes orders on standard input, and ends with it
    #[command(name = fleet::WORKER_COMMAND, hide = true)]
    FleetWorker,
}

/// Runs the command; a verdict that is not good is a failure.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Run(args) => run::run(args).await,
        Command::Scenarios(args) => run::scenarios(&args),
        Command::Transports(args) => transports::transports(args).await,
        Command::Idle(args) => measure::idle(args).await,
        Command::Latency(args) => measure::latency(args).await,
        Command::Polls(args) => polls::polls(args).await,
        Command::Million(args) => million::million(args).await,
        Command::Compare(args) => compare::compare(args).await,
        Command::Floor(args) => compare::floor(&args),
        Command::Saturation(args) => pressure::saturation(args).await,
        Command::Storm(args) => pressure::storm(args).await,
        Command::Stalled(args) => pressure::stalled(args).await,
        Command::Verify(args) => verify::verify(args).await,
        Command::Judge(args) => verify::judge(&args),
        Command::FleetWorker => fleet::work().map(|()| ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_explains_itself() {
        let command = Args::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            for arg in sub.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", sub.get_name(), arg.get_id());
            }
        }
    }
}
