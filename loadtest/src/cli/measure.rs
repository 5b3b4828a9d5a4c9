//! `loadtest idle` and `loadtest latency`.

use std::any::Any;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tidegate_loadtest::fleet::{Channels, Follow};
use tidegate_loadtest::idle::{IdleOptions, idle_minute};
use tidegate_loadtest::latency::{KafkaOptions, beside_kafka};
use tidegate_loadtest::verify::Cluster;
use tidegate_loadtest::{
    Following, Memory, Resident, Tls, Transport, make_room, open_all, open_all_http2, open_all_tls,
    publish_latency,
};

use super::args::{JsonArgs, exit_code, this_program};
use super::output::show;

/// For how long `idle --minute` looks at the process without connections.
const EMPTY_SECONDS: u64 = 10;

/// User memory of idle connections, or their processor time: on one shared channel, or with a user and channels of their own
///
/// Opens --connections, waits until the server's memory has settled, and divides what it has grown by (RssAnon of its /proc
/// entry) by their number. The kernel's memory of a socket is not in it. What a further channel costs is the difference of
/// two runs, divided by --channels. The process dev holds router and registry too; a gateway of a cluster only itself.
///
/// With --minute it is the processor time of idle connections: they are opened evenly over one ping interval, do nothing but
/// answer pings, and the process's user and system time is counted for --seconds. It is extrapolated to 1,000,000 connections
/// on as many processes of this size as that takes; so what the process uses without any connection counts too, which is why
/// it should hold many. The gate: at most 1 core per 1,000,000.
///
/// Examples:
///
///   tidegate dev &
///
///   loadtest idle --pid $!
///
///   loadtest idle --cluster /tmp/tide/cluster.json --minute --connections 18000 --gate
///
///   loadtest idle --pid $! --own                  ?user= needs auth.insecure, which dev has
///
///   loadtest idle --pid $! --own --channels 16 --leave 120
///
///   loadtest idle --pid $! --channels 16 --of 1000       each follows another 16 of 1,000 rooms
///
///   tidegate dev --tls &
///
///   loadtest idle --pid $! --tls
///
///   loadtest idle --pid $! --http2 --transport sse --streams 10    ten to a socket, whose memory they share
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, mut_arg("json", |json| json.requires("minute")))]
pub(super) struct IdleArgs {
    /// The public port.
    #[arg(long, default_value = "127.0.0.1:8000")]
    public: SocketAddr,
    /// The server's process, on this machine.
    #[arg(long, required_unless_present = "cluster")]
    pid: Option<u32>,
    /// The cluster.json that deploy/local/up wrote, instead: its first gateway.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["public", "pid"])]
    cluster: Option<PathBuf>,
    /// How many connections; this process must be allowed as many files.
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
    /// How they receive.
    #[arg(long, value_enum, default_value = "ws")]
    transport: Transport,
    /// Each connection has a user and channels of its own, instead of sharing them.
    #[arg(long)]
    own: bool,
    /// Over TLS, whatever certificate the server shows.
    #[arg(long)]
    tls: bool,
    /// Over TLS, if the server's certificate is for `localhost` and signed by one in this PEM file.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// As streams of HTTP/2 sockets, over TLS.
    #[arg(long)]
    http2: bool,
    /// Streams of each HTTP/2 socket; a gateway takes 128.
    #[arg(long, default_value_t = 100, requires = "http2", value_parser = clap::value_parser!(u16).range(1..=128))]
    streams: u16,
    /// Channels that each follows beside its first.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=127))]
    channels: u16,
    /// Take them from so many that the connections share, another handful for each, instead of the same for all.
    #[arg(long, requires = "channels", conflicts_with_all = ["own", "minute"], value_parser = clap::value_parser!(u16).range(128..))]
    of: Option<u16>,
    /// Close the connections again, and say what memory stays after so many seconds.
    #[arg(long, value_name = "SECONDS", conflicts_with = "minute")]
    leave: Option<u64>,
    /// Count processor time instead of memory.
    #[arg(long)]
    minute: bool,
    /// For how long it is counted.
    #[arg(long, default_value_t = 60, requires = "minute", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Seconds over which connections are opened: the server's limits.ping_interval.
    #[arg(long, default_value_t = 25, requires = "minute", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    open_seconds: u64,
    /// Exit code 1 when the gate is missed.
    #[arg(long, requires = "minute")]
    gate: bool,
    #[command(flatten)]
    json: JsonArgs,
}

impl IdleArgs {
    /// What each asks for.
    fn following(&self) -> Following {
        Following { own: self.own, further: self.channels, of: self.of }
    }

    /// On what they are, for the result.
    fn carrier(&self) -> String {
        match (self.http2, self.tls || self.tls_ca.is_some()) {
            (true, _) => format!(" over HTTP/2, {} to a socket", self.streams),
            (false, true) => " over TLS".to_owned(),
            (false, false) => String::new(),
        }
    }

    /// Opens so many; dropped, they are closed.
    async fn open(&self, public: SocketAddr, count: usize) -> anyhow::Result<Box<dyn Any>> {
        let query = |number| self.following().query(number);
        let progress = |opened| eprintln!("{opened} of {count} open");
        if self.http2 {
            let tls = Tls::new(self.tls_ca.as_deref(), true)?;
            let streams = self.streams.into();
            let opened = open_all_http2(public, &tls, streams, self.transport, count, query).await?;
            return Ok(Box::new(opened));
        }
        if self.tls || self.tls_ca.is_some() {
            let tls = Tls::new(self.tls_ca.as_deref(), false)?;
            return Ok(Box::new(open_all_tls(public, &tls, self.transport, count, query, progress).await?));
        }
        Ok(Box::new(open_all(public, self.transport, count, query, progress).await?))
    }

    /// The same for a fleet.
    fn follow(&self) -> Follow {
        let each = 1 + u64::from(self.channels);
        let of = if self.own { each * self.connections as u64 } else { each };
        Follow {
            channel: Some("load:idle-{c}".to_owned()),
            channels: Channels::Some { each, of },
            user: self.own.then(|| "load-{n}".to_owned()),
        }
    }
}

/// Time from publishing to receiving, on one server or compared with the Kafka below a cluster
///
/// Without --cluster: one event after the other to one server, as `tidegate dev` is, received on a WebSocket and on a long
/// poll in the same run.
///
/// With --cluster: what Tidegate adds to its floor. In turn, --rounds times each:
///
///   probe     librdkafka alone: produce (idempotent, acks=all, no linger), consume, write each record to every socket
///
///   tidegate  publish to the routers' HTTP API, follow on WebSockets of the gateways: durable and ephemeral events, each of
///             which every receiver gets, and direct messages, each of which goes to one user with one connection
///
/// All at the same rate, each latency counted from when the event was meant to be sent, so that a stall counts for all
/// that was due meanwhile; 2 s of warm-up each are not counted. A durable event that does not come within 10 s is a
/// failure; of the others, which are sent at most once, it is counted. The probe makes a topic of its own,
/// tidegate-latency-probe-PID, and deletes it.
///
/// The gate: durable p50 at most probe + 1.5 ms and p99 at most probe + 8 ms (medians of the rounds' differences). Direct
/// messages have a goal that is reported: p50 1.5 ms, p99 4 ms.
///
/// Examples:
///
///   loadtest latency --public 127.0.0.1:8000 --api 127.0.0.1:8001
///
///   deploy/local/up --dir /tmp/tide
///
///   loadtest latency --cluster /tmp/tide/cluster.json --json /tmp/tide/latency.json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, mut_arg("json", |json| json.requires("cluster")))]
pub(super) struct LatencyArgs {
    /// The public port.
    #[arg(long, default_value = "127.0.0.1:8000")]
    public: SocketAddr,
    /// The API port.
    #[arg(long, default_value = "127.0.0.1:8001")]
    api: SocketAddr,
    /// How many events.
    #[arg(long, default_value_t = 500)]
    events: usize,
    /// The cluster.json that deploy/local/up wrote: compare this cluster with its Kafka.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["public", "api", "events"])]
    cluster: Option<PathBuf>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    json: JsonArgs,
    /// Exit code 1 when the gate is missed.
    #[arg(long, requires = "cluster")]
    gate: bool,
}

/// The load of a comparison.
#[derive(Debug, Args)]
struct LoadArgs {
    /// How long each of the measurements lasts.
    #[arg(long, default_value_t = 20, requires = "cluster", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Events a second, spread evenly over the partitions.
    #[arg(long, default_value_t = 500, requires = "cluster", value_parser = clap::value_parser!(u64).range(1..=20_000))]
    rate: u64,
    /// Sockets, each of which gets every event.
    #[arg(long, default_value_t = 10, requires = "cluster", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    receivers: u16,
    /// Pairs of measurements; figures are medians over them.
    #[arg(long, default_value_t = 3, requires = "cluster", value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Bytes of each event's data.
    #[arg(long, default_value_t = 100, requires = "cluster", value_parser = clap::value_parser!(u32).range(16..=32_768))]
    bytes: u32,
}

impl LoadArgs {
    fn options(&self) -> KafkaOptions {
        KafkaOptions {
            seconds: self.seconds,
            rate: self.rate,
            receivers: self.receivers.into(),
            rounds: self.rounds.into(),
            bytes: self.bytes as usize,
        }
    }
}

pub(super) async fn latency(args: LatencyArgs) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.cluster {
        return compared(&Cluster::read(file)?, &args.load, &args.json, args.gate).await;
    }
    let (ws, poll) = publish_latency(args.public, args.api, args.events).await?;
    for (name, latencies) in [("ws", ws), ("poll", poll)] {
        println!("{name:5} p50 {:?}  p99 {:?}", latencies.quantile(0.5), latencies.quantile(0.99));
    }
    Ok(ExitCode::SUCCESS)
}

async fn compared(
    cluster: &Cluster,
    load: &LoadArgs,
    json: &JsonArgs,
    gate: bool,
) -> anyhow::Result<ExitCode> {
    let report = beside_kafka(&load.options(), cluster, |line| eprintln!("{line}")).await?;
    println!("{report}");
    json.write(&report)?;
    Ok(exit_code(gate, report.passed()))
}

/// The public port and the process: of a cluster's first gateway, or as they were named.
fn server(args: &IdleArgs) -> anyhow::Result<(SocketAddr, u32)> {
    let Some(file) = &args.cluster else {
        return Ok((args.public, args.pid.context("--pid or --cluster is needed")?));
    };
    let cluster = Cluster::read(file)?;
    let gateway = cluster.gateway(None)?;
    Ok((gateway.public, cluster.pid(&gateway.name)?))
}

pub(super) async fn idle(args: IdleArgs) -> anyhow::Result<ExitCode> {
    let (public, pid) = server(&args)?;
    if args.minute {
        return idle_cpu(&args, public, pid).await;
    }
    let (connections, transport) = (args.connections, args.transport);
    make_room(connections)?;
    let resident = Resident::measure(pid, connections, async |count| args.open(public, count).await).await?;
    let (before, each) = (resident.before, resident.bytes_each());
    println!(
        "{connections} {transport:?} connections{} ({}): {each} bytes of user memory each ({} -> {})",
        args.carrier(),
        args.following().title(),
        before.0,
        resident.after.0
    );
    drop(resident);
    if let Some(seconds) = args.leave {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let stays = Memory::of(pid)?.0.saturating_sub(before.0);
        println!(
            "{seconds} s after they have gone: {stays} bytes more than before, {} each",
            stays / connections as u64
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn idle_cpu(args: &IdleArgs, public: SocketAddr, pid: u32) -> anyhow::Result<ExitCode> {
    let options = IdleOptions {
        public,
        pid,
        connections: args.connections as u64,
        transport: args.transport,
        follow: args.follow(),
        empty_seconds: EMPTY_SECONDS,
        open_seconds: args.open_seconds,
        seconds: args.seconds,
    };
    let loadtest = this_program()?;
    let report = idle_minute(&options, &loadtest, show).await?;
    show("\n");
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
        Latency(LatencyArgs),
    }

    /// `compare --all-gates` measures with the defaults of the options.
    #[test]
    fn what_is_not_said_is_as_the_options_have_it_by_default() {
        let Only::Latency(latency) = Only::parse_from(["only", "latency"]);
        assert_eq!(format!("{:?}", latency.load.options()), format!("{:?}", KafkaOptions::default()));
    }
}
