//! `loadtest idle` and `loadtest latency`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tidegate_loadtest::{Memory, Transport, open_all, publish_latency, settled_memory};

/// Memory of idle connections on one shared channel.
#[derive(Debug, Args)]
pub(super) struct IdleArgs {
    /// The public port.
    #[arg(long, default_value = "127.0.0.1:8000")]
    public: SocketAddr,
    /// The server's process, on this machine.
    #[arg(long)]
    pid: u32,
    /// How many connections; this process must be allowed as many files.
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
    /// How they receive.
    #[arg(long, value_enum, default_value = "ws")]
    transport: Transport,
}

/// Time from publishing to receiving, on a WebSocket and on a long poll in the same run.
#[derive(Debug, Args)]
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
}

pub(super) async fn latency(args: LatencyArgs) -> anyhow::Result<ExitCode> {
    let (ws, poll) = publish_latency(args.public, args.api, args.events).await?;
    for (name, latencies) in [("ws", ws), ("poll", poll)] {
        println!("{name:5} p50 {:?}  p99 {:?}", latencies.quantile(0.5), latencies.quantile(0.99));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn idle(args: IdleArgs) -> anyhow::Result<ExitCode> {
    let IdleArgs { public, pid, connections, transport } = args;
    let query = |_| "channel=load:idle".to_owned();
    drop(open_all(public, transport, connections.min(500), query, |_| ()).await?); // Warms what is there once.
    let before: Memory = settled_memory(pid, Duration::from_secs(30)).await?;
    let opened =
        open_all(public, transport, connections, query, |count| eprintln!("{count} of {connections} open"))
            .await?;
    let after = settled_memory(pid, Duration::from_secs(30)).await?;
    let each = after.0.saturating_sub(before.0) / connections as u64;
    println!(
        "{} {transport:?} connections: {each} bytes of user memory each ({} -> {})",
        opened.len(),
        before.0,
        after.0
    );
    Ok(ExitCode::SUCCESS)
}
