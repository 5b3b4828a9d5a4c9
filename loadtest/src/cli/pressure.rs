//! `loadtest saturation`, `loadtest storm` and `loadtest stalled`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tidegate_loadtest::saturation::{self, SaturationOptions};
use tidegate_loadtest::stalled::{self, StalledOptions};
use tidegate_loadtest::storm::{self, StormOptions};
use tidegate_loadtest::verify::Cluster;

use super::args::{JsonArgs, ReportArgs, between, exit_code};
use super::output::show;

/// The highest rate of durable events that a cluster keeps up with
///
/// Doubles the rate in short steps until one is too much, then goes on from the last that was not in steps of 10 %. A rate is
/// kept up with when the lag is flat (events that were due and are not with the subscribers: the median of the last third of
/// the step is not above that of the first by more than 50 ms' worth), p99 from due to received is below 250 ms, and
/// nothing is lost, twice or refused. A step that fails is tried once more.
///
/// The subscribers, the publishers and Kafka run on this machine too: the rate is one of all of them together.
///
/// Examples:
///
///   deploy/local/up --dir /tmp/tide
///
///   loadtest saturation --cluster /tmp/tide/cluster.json --html /tmp/tide/saturation.html
///
///   loadtest saturation --cluster /tmp/tide/cluster.json --receivers 200 --step-seconds 5      sooner and less sure
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct SaturationArgs {
    /// The cluster.json that deploy/local/up wrote.
    #[arg(long, value_name = "FILE")]
    cluster: PathBuf,
    /// How long a step lasts; those that look for where to begin last a quarter.
    #[arg(long, default_value_t = 20.0, value_parser = seconds)]
    step_seconds: f64,
    /// Events a second to begin with.
    #[arg(long, default_value_t = 500.0, value_parser = rate)]
    start_rate: f64,
    /// Rates above it are not tried.
    #[arg(long, default_value_t = 50_000.0, value_parser = rate)]
    rate_limit: f64,
    /// WebSockets, each of which gets every event.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    receivers: u16,
    /// Bytes of each event's data.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(32..=32_768))]
    bytes: u32,
    #[command(flatten)]
    report: ReportArgs,
}

/// What live subscribers notice while thousands of clients come back at once, and whether those get all that they missed
///
/// The clients, spread over all gateways, follow one channel each. They are dropped by a reset, --missed events are published
/// on each channel, and then all come at once, with their cursors. Every event has a number: what a client does not get, or
/// gets again, is counted. Beside them a few live subscribers hear a steady flow; compared are their p99 from the first
/// client that comes to the last that has everything, and in the quiet before.
///
/// The gate: p99 in the storm at most 2 times that in the quiet (median of the pairs), and for the clients nothing lost, twice
/// or told as lost.
///
/// Examples:
///
///   deploy/local/up --dir /tmp/tide
///
///   loadtest storm --cluster /tmp/tide/cluster.json --gate
///
///   loadtest storm --cluster /tmp/tide/cluster.json --clients 500 --pairs 1      a look at it
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct StormArgs {
    /// The cluster.json that deploy/local/up wrote.
    #[arg(long, value_name = "FILE")]
    cluster: PathBuf,
    /// That go and come back; this process, and all gateways together, must be allowed as many files.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    clients: u32,
    /// Channels that they share.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    channels: u16,
    /// Events of each channel while they are away.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    missed: u64,
    /// Live subscribers, each of which gets every event of the flow.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    receivers: u16,
    /// Events a second of the flow.
    #[arg(long, default_value_t = 200.0, value_parser = rate)]
    rate: f64,
    /// Quiet before each storm.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    quiet_seconds: f64,
    /// Quiet and storm, so many times.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Seconds in which a client must be back and have everything.
    #[arg(long, default_value_t = 30.0, value_parser = seconds)]
    patience: f64,
    /// Exit code 1 when the gate is missed.
    #[arg(long)]
    gate: bool,
    #[command(flatten)]
    json: JsonArgs,
}

/// What clients that never read cost a gateway and their neighbours
///
/// --readers WebSockets with the smallest receive buffer there is follow a busy channel and read nothing; a few healthy
/// neighbours on the same gateway hear a steady flow. In turn, with and without the readers, --pairs times; the channel is busy
/// all the time. Readers that the gateway closes are replaced by as many.
///
/// The gate: the gateway's private memory grows by at most what all outboxes may hold (--readers times --outbox-size, and
/// a quarter for the allocator; what the kernel holds for a socket is not in it), and a healthy neighbour's p99 is at most 1.2
/// times what it is without the readers (median of the pairs).
///
/// The policy for slow clients is that of the channel's namespace, by default to close them. For another:
///
///   TIDEGATE__NAMESPACES__TICKER__SLOW_CONSUMERS=drop_oldest TIDEGATE__NAMESPACES__QUOTE__SLOW_CONSUMERS=conflate \
///     deploy/local/up --dir /tmp/tide
///
///   loadtest stalled --cluster /tmp/tide/cluster.json --own --gate
///
///   loadtest stalled --cluster /tmp/tide/cluster.json --namespace ticker --gate
///
///   loadtest stalled --cluster /tmp/tide/cluster.json --namespace quote --gate
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct StalledArgs {
    /// The cluster.json that deploy/local/up wrote.
    #[arg(long, value_name = "FILE")]
    cluster: PathBuf,
    /// That never read.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=9_000))]
    readers: u32,
    /// Of the busy channel: it decides on the policy.
    #[arg(long, default_value = "stalled")]
    namespace: String,
    /// Each reader follows a channel of its own too: frames are not shared then, and outboxes take all they may.
    #[arg(long)]
    own: bool,
    /// Events a second of the busy channel.
    #[arg(long, default_value_t = 20.0, value_parser = rate)]
    busy_rate: f64,
    /// Bytes of each of these events.
    #[arg(long, default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(32..=65_000))]
    busy_bytes: u32,
    /// The gateway's limits.outbox_size, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1_048_576)]
    outbox_size: u64,
    /// Healthy neighbours, each of which gets every event of the flow.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    receivers: u16,
    /// Events a second of the flow.
    #[arg(long, default_value_t = 200.0, value_parser = rate)]
    rate: f64,
    /// How long each half of a pair lasts.
    #[arg(long, default_value_t = 20.0, value_parser = seconds)]
    seconds: f64,
    /// With and without, so many times.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Which gateway of the cluster [default: its first].
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    /// Exit code 1 when the gate is missed.
    #[arg(long)]
    gate: bool,
    #[command(flatten)]
    json: JsonArgs,
}

fn rate(text: &str) -> Result<f64, String> {
    between(text, "a rate is", 0.1, 1_000_000.0)
}

fn seconds(text: &str) -> Result<f64, String> {
    between(text, "seconds are", 0.5, 3_600.0)
}

pub(super) async fn saturation(args: SaturationArgs) -> anyhow::Result<ExitCode> {
    let options = SaturationOptions {
        step_seconds: args.step_seconds,
        start_rate: args.start_rate,
        rate_limit: args.rate_limit,
        receivers: args.receivers.into(),
        bytes: args.bytes as usize,
        planted: None,
    };
    let report = saturation::saturation(&options, &Cluster::read(&args.cluster)?, show).await?;
    println!("{report}");
    args.report.write(&report, saturation::html)?;
    Ok(exit_code(true, report.rate.is_some()))
}

impl StormArgs {
    fn options(&self) -> StormOptions {
        StormOptions {
            clients: self.clients as usize,
            channels: self.channels.into(),
            missed: self.missed,
            receivers: self.receivers.into(),
            rate: self.rate,
            quiet_seconds: self.quiet_seconds,
            pairs: self.pairs.into(),
            patience: Duration::from_secs_f64(self.patience),
            planted: None,
        }
    }
}

impl StalledArgs {
    fn options(&self) -> StalledOptions {
        StalledOptions {
            readers: self.readers as usize,
            namespace: self.namespace.clone(),
            own: self.own,
            busy_rate: self.busy_rate,
            busy_bytes: self.busy_bytes as usize,
            outbox_bytes: self.outbox_size,
            receivers: self.receivers.into(),
            rate: self.rate,
            seconds: self.seconds,
            pairs: self.pairs.into(),
            gateway: self.gateway.clone(),
        }
    }
}

pub(super) async fn storm(args: StormArgs) -> anyhow::Result<ExitCode> {
    let report = storm::storm(&args.options(), &Cluster::read(&args.cluster)?, show).await?;
    println!("{report}");
    args.json.write(&report)?;
    Ok(exit_code(args.gate, report.passed))
}

pub(super) async fn stalled(args: StalledArgs) -> anyhow::Result<ExitCode> {
    let report = stalled::stalled(&args.options(), &Cluster::read(&args.cluster)?, show).await?;
    println!("{report}");
    args.json.write(&report)?;
    Ok(exit_code(args.gate, report.passed))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    enum Only {
        Storm(StormArgs),
        Stalled(StalledArgs),
    }

    /// `compare --all-gates` measures with the defaults of the options, and says that these are those of the commands.
    #[test]
    fn what_is_not_said_is_as_the_options_have_it_by_default() {
        let Only::Storm(storm) = Only::parse_from(["only", "storm", "--cluster", "x"]) else { panic!() };
        assert_eq!(format!("{:?}", storm.options()), format!("{:?}", StormOptions::default()));
        let Only::Stalled(stalled) = Only::parse_from(["only", "stalled", "--cluster", "x"]) else {
            panic!()
        };
        assert_eq!(format!("{:?}", stalled.options()), format!("{:?}", StalledOptions::default()));
    }
}
