//! `loadtest compare` and `loadtest floor`.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tidegate_loadtest::clock::now_us;
use tidegate_loadtest::compare::{self, CompareOptions, Scenario};
use tidegate_loadtest::floor::FloorOptions;
use tidegate_loadtest::gates::{self, GatesOptions, gates};
use tidegate_loadtest::verify::{Cluster, NodeScript};

use super::args::{ReportArgs, between, exit_code, node_script, this_program};
use super::output::show;

/// What a delivery costs: a gateway beside a bare loop of write(), and beside nchan
///
/// The same load is put to each system in turn, --pairs times, every other time in reverse order; the same receivers count:
///
///   floor     loadtest floor: one thread, one ready-made frame, one write() per socket
///
///   tidegate  one gateway of the cluster; events are published to the routers' HTTP API
///
///   nchan     nginx with nchan, one worker, started here; left out, and said so, where it is not installed
///
/// The figure is deliveries per CPU-second: what receivers counted in the window, by the user and system time that the
/// server's process used in it (of Tidegate: the gateway; routers and Kafka do not grow with sockets). It survives a noisy
/// machine; latency, counted from when an event was meant to be sent, does less so: receivers and servers share the cores.
///
/// The gate: deliveries per CPU-second at least 0.95 times the floor's, and above it when saturated (median of the pairs'
/// ratios), and nothing lost or twice.
///
/// With --all-gates: every gate that a cluster can be held to, one after the other, and one table of how they stand:
///
///   idle             memory of --sockets idle WebSockets, each row on a gateway that is started anew
///
///   polls            64 connections, --seconds
///
///   compare          broadcast and 20 channels, --pairs of three times --seconds; saturated, --pairs of --seconds
///
///   idle --minute    3.6 times --sockets with a user and a channel of their own, 5 times --seconds
///
///   latency          three rounds, or --pairs if that is less, of twice --seconds
///
///   storm            --sockets clients, --pairs, each as long as the storm
///
///   stalled          1,000 readers, --pairs of --seconds
///
/// What no cluster shows, tests hold to its limit: memory with TLS and HTTP/2, allocations, instructions of a delivery. Takes 22
/// minutes with --seconds 6. Exit code 1 also when one cannot be measured.
///
/// Examples:
///
///   deploy/local/up --dir /tmp/tide
///
///   loadtest compare --cluster /tmp/tide/cluster.json
///
///   loadtest compare --cluster /tmp/tide/cluster.json --scenario saturated --gate --html /tmp/tide/saturated.html
///
///   deploy/local/up --dir /tmp/gates --gateways 2 --gateway-shards 1      a shard for each of two cores
///
///   loadtest compare --cluster /tmp/gates/cluster.json --all-gates --html /tmp/gates/gates.html
///
///   loadtest compare --sockets 1000 --pairs 1 --seconds 5      without a cluster: what this machine can do at all
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CompareArgs {
    /// The cluster.json that deploy/local/up wrote; without it, only the others are measured.
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// The shape of the load.
    #[arg(long, value_enum, default_value = "broadcast")]
    scenario: Scenario,
    /// Receivers; this process, and each server, must be allowed as many files.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sockets: u32,
    /// Events a second, each to every socket; of no meaning when saturated.
    #[arg(long, default_value_t = 8.0, value_parser = rate)]
    rate: f64,
    /// How long each measurement lasts.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Seconds before it that are not counted.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=60))]
    warm_up: u64,
    /// How often each system is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Bytes of each event's data.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(32..=32_768))]
    bytes: u32,
    /// Bytes of the floor's events, to see what the length of a frame costs [default: as --bytes].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(32..=32_768))]
    floor_bytes: Option<u32>,
    /// When saturated: events that are published and not with everybody yet.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    in_flight: u64,
    /// Threads that receive; one reads more than one core can send.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    receiver_threads: u16,
    /// Which gateway of the cluster [default: its first].
    #[arg(long, value_name = "NAME", requires = "cluster")]
    gateway: Option<String>,
    /// Leave nchan out.
    #[arg(long)]
    without_nchan: bool,
    /// Exit code 1 when the gate is missed.
    #[arg(long, requires = "cluster")]
    gate: bool,
    /// Measure every gate, not only that of a delivery.
    #[arg(
        long,
        requires = "cluster",
        conflicts_with_all = ["scenario", "rate", "warm_up", "bytes", "floor_bytes", "in_flight", "receiver_threads", "gateway"]
    )]
    all_gates: bool,
    /// The script that starts gateways anew [default: deploy/local/node of the repository around this directory or program].
    #[arg(long, value_name = "FILE", requires = "all_gates")]
    node_script: Option<PathBuf>,
    #[command(flatten)]
    report: ReportArgs,
}

/// The least that a broadcast can cost: one thread, one ready-made frame, one write() per socket
///
/// Prints where it listens, waits until --sockets clients have asked for a WebSocket (of any path), then sends, then prints
/// how many broadcasts that were, and ends. An event's data is ~, 16 digits of microseconds of CLOCK_MONOTONIC (when it was
/// due), 8 digits of its number, and padding.
///
/// Examples:
///
///   loadtest floor --sockets 1 --rate 2 & curl -N -H 'Upgrade: websocket' -H 'Connection: Upgrade' 127.0.0.1:8090
///
///   loadtest floor --sockets 5000 --saturated --seconds 10
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct FloorArgs {
    /// Where to listen; port 0 for a free one.
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// It begins when so many are there.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sockets: u32,
    /// Broadcasts a second.
    #[arg(long, default_value_t = 8.0, value_parser = rate)]
    rate: f64,
    /// As many as fit instead.
    #[arg(long, conflicts_with = "rate")]
    saturated: bool,
    /// For how long.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_660))]
    seconds: u64,
    /// Bytes of an event's data.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(32..=32_768))]
    bytes: u32,
    /// When to begin once all sockets are there.
    #[arg(long, value_enum, default_value = "at-once")]
    begin: Begin,
    /// A fault to be noticed: leave out this write.
    #[arg(long, value_name = "NUMBER", hide = true)]
    plant_drop: Option<u64>,
}

/// When the floor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Begin {
    /// At once.
    AtOnce,
    /// When standard input says: microseconds of CLOCK_MONOTONIC, on a line; and end when it is closed.
    Stdin,
}

fn rate(text: &str) -> Result<f64, String> {
    between(text, "a rate is", 0.01, 20_000.0)
}

pub(super) async fn compare(args: CompareArgs) -> anyhow::Result<ExitCode> {
    let cluster = args.cluster.as_deref().map(Cluster::read).transpose()?;
    if let (true, Some(cluster)) = (args.all_gates, &cluster) {
        return all_gates(args, cluster).await;
    }
    let options = CompareOptions {
        scenario: args.scenario,
        sockets: args.sockets as usize,
        rate: args.rate,
        seconds: args.seconds,
        warm_seconds: args.warm_up,
        pairs: args.pairs.into(),
        bytes: args.bytes as usize,
        floor_bytes: args.floor_bytes.map(|bytes| bytes as usize),
        in_flight: args.in_flight,
        receiver_threads: args.receiver_threads.into(),
        gateway: args.gateway,
        loadtest: this_program()?,
        planted_drop: None,
    };
    let report = compare::compare(&options, cluster.as_ref(), !args.without_nchan, show).await?;
    println!("{report}");
    args.report.write(&report, compare::html)?;
    Ok(exit_code(args.gate, report.gate.is_some_and(|gate| gate.passed)))
}

async fn all_gates(args: CompareArgs, cluster: &Cluster) -> anyhow::Result<ExitCode> {
    let options = GatesOptions {
        sockets: args.sockets as usize,
        seconds: args.seconds,
        pairs: args.pairs.into(),
        with_nchan: !args.without_nchan,
        loadtest: this_program()?,
    };
    let script = args.node_script.map_or_else(node_script, Ok)?;
    let faults = NodeScript { script, dir: cluster.dir.clone() };
    let report = gates(&options, cluster, &faults, show).await?;
    println!("{report}");
    args.report.write(&report, gates::html)?;
    Ok(exit_code(args.gate || !report.is_whole(), report.passed()))
}

pub(super) fn floor(args: &FloorArgs) -> anyhow::Result<ExitCode> {
    let options = FloorOptions {
        listen: args.listen,
        sockets: args.sockets as usize,
        rate: (!args.saturated).then_some(args.rate),
        seconds: args.seconds,
        bytes: args.bytes as usize,
        planted_drop: args.plant_drop,
    };
    let listening = |address| Ok(writeln!(std::io::stdout(), "listening {address}")?);
    let begin = || match args.begin {
        Begin::AtOnce => Ok(now_us()),
        Begin::Stdin => {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            line.trim().parse().context("standard input must say when to begin, in microseconds")
        }
    };
    let sent = tidegate_loadtest::floor::floor(&options, listening, begin, |sent| {
        println!("sent {}", serde_json::to_string(&sent)?);
        if args.begin == Begin::Stdin {
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        Ok(())
    });
    sent.map(|()| ExitCode::SUCCESS)
}
