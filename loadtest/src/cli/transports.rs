//! `loadtest transports`.

use std::process::ExitCode;

use clap::Args;
use tidegate_loadtest::transports::{self, TransportsOptions};

use super::args::{ReportArgs, ServerArgs, this_program};
use super::output::show;

/// What each of the five transports costs: the table by which to choose one
///
/// The same load over WebSocket, Server-Sent Events, HTTP streaming, long and short polling in turn: bytes beside the data,
/// latency, processor time of the gateway for each delivery, memory of an idle connection. Prints a table in Markdown.
///
/// With a cluster of five gateways, just started, each transport has one of its own, so that what one run leaves in a
/// process's memory is not the next one's; with fewer, the others' memory is not shown. Without --cluster: one server, as
/// `tidegate dev` is, in which router and log count too.
///
/// Exit code 0: nothing was lost, twice or out of order. Anything else: 1.
///
/// Examples:
///
///   deploy/local/up --dir /tmp/tide --gateways 5
///
///   loadtest transports --cluster /tmp/tide/cluster.json --html /tmp/tide/transports.html
///
///   tidegate dev &
///
///   loadtest transports --pid $! --connections 200 --seconds 5
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct TransportsArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Of each transport.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    connections: u64,
    /// Events a second, each to every connection.
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// Bytes of each event's data.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(32..=32_768))]
    bytes: u32,
    /// How long each transport is measured.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Between two short polls.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    poll_interval_ms: u64,
    #[command(flatten)]
    report: ReportArgs,
}

pub(super) async fn transports(args: TransportsArgs) -> anyhow::Result<ExitCode> {
    let servers = args.server.servers()?;
    let options = TransportsOptions {
        connections: args.connections,
        rate: args.rate,
        bytes: args.bytes as usize,
        seconds: args.seconds,
        poll_interval_ms: args.poll_interval_ms,
        settles: true,
        loadtest: this_program()?,
    };
    let report = transports::transports(&options, &servers, show).await?;
    println!("{report}");
    args.report.write(&report, transports::html)?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
