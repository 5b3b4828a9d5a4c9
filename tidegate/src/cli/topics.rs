//! `tidegate topics`: makes and checks the topics in Kafka.

use clap::{Args, Subcommand};
use tidegate_kafka::topics::{self, Severity, TopicsError};

use crate::app::kafka_options;
use crate::cli::config_args::ConfigArgs;
use crate::cli::{Failure, client_runtime, print_line};
use crate::config::{self, Profile};

/// Make or check the topics in Kafka
///
/// Tidegate keeps six: events, inbox (the users' own channels) and upstream (what clients say), each with log.partitions
/// partitions, and control (revocations), dead (records that nobody could read) and presence (who is online, compacted), each
/// with one. A router refuses to start on topics that would break a promise, and names this command.
///
/// Examples:
///
///   tidegate topics apply --bootstrap kafka:9092
///
///   tidegate topics check --bootstrap kafka:9092
///
///   tidegate topics apply --bootstrap 127.0.0.1:9092 --set kafka.replication=1 --set kafka.min_insync=1
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Make what is missing and correct what can be corrected without losing anything; deletes nothing
    Apply(ConfigArgs),
    /// Say what is wrong and how to put it right; 0 when a router would start
    Check(ConfigArgs),
}

pub(super) fn run(args: &TopicsArgs) -> Result<(), Failure> {
    let (TopicsCommand::Apply(config) | TopicsCommand::Check(config)) = &args.command;
    let config = config::load(&config.sources(Profile::Cluster)?)?.config;
    if config.kafka.bootstrap.is_empty() {
        return Err(Failure::usage("which Kafka? Pass --bootstrap HOST:PORT, or set kafka.bootstrap"));
    }
    let options = kafka_options(&config);
    let runtime = client_runtime()?;
    let left = match &args.command {
        TopicsCommand::Apply(_) => {
            let applied = runtime.block_on(topics::apply(&options)).map_err(failed)?;
            applied.done.iter().try_for_each(|line| print_line(line))?;
            applied.left
        }
        TopicsCommand::Check(_) => runtime.block_on(topics::check(&options)).map_err(failed)?,
    };
    for finding in &left {
        let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
        print_line(&format!("{severity}: {finding}"))?;
    }
    let errors = left.iter().filter(|finding| finding.severity == Severity::Error).count();
    match errors {
        0 => print_line("ok"),
        _ => Err(Failure::refused(format!("{errors} of these would keep a router from starting"))),
    }
}

fn failed(error: TopicsError) -> Failure {
    match error {
        TopicsError::Unreachable { .. } => Failure::not_now(error),
        other => Failure::refused(other),
    }
}
