//! The commands that are processes: `tidegate dev`, `tidegate gateway`, `tidegate router` and `tidegate registry`.

mod banner;
mod self_signed;

use std::path::{Path, PathBuf};

use clap::Args;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{Addresses, App};
use crate::cli::Failure;
use crate::cli::config_args::ConfigArgs;
use crate::cli::gateways::GatewayCommand;
use crate::config::{self, Config, Flag, Profile};
use crate::{admin, logging};
use tidegate_telemetry::Exporter;

/// As tokio reads it: threads of the control runtime.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";
/// How long tasks that were given up may hold the process back.
const RUNTIME_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// Run everything in one process: gateway, router, registry and an embedded log
///
/// Binds loopback, needs nothing else installed, and prints where its data is and how to try each transport.
/// SIGTERM or Ctrl-C ends it in good order: clients are told when to come back, nothing is lost. Ctrl-C twice ends
/// it at once.
///
/// Examples:
///
///   tidegate dev
///
///   tidegate dev --public 127.0.0.1:9000 --api 127.0.0.1:9001 --admin 127.0.0.1:9002 --data-dir ./data
///
///   tidegate dev --config tidegate.toml --set history.age=2h
///
///   tidegate dev --tls                         https and wss, with a certificate of its own
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DevArgs {
    /// Speak TLS on the public port, with a certificate that is made and kept in the data directory
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    tls: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

/// Hold client connections: one node of a cluster
///
/// Attaches to every router behind the names of cluster.routers and needs nothing else: no disk, no Kafka. SIGTERM drains
/// it at the configured pace, each client told when to come back.
///
/// Examples:
///
///   tidegate gateway --public 0.0.0.0:8000 --routers router.tidegate.svc:8003
///
///   tidegate gateway --routers 127.0.0.1:8003 --set auth.hmac_secret_file=/run/secrets/hmac
///
///   tidegate gateway list                      those that run, asked of a router
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub(super) struct GatewayArgs {
    #[command(subcommand)]
    command: Option<GatewayCommand>,
    #[command(flatten)]
    serve: ServeArgs,
}

/// Own partitions and serve backends: one router of a cluster
///
/// Needs Kafka, with the topics that `tidegate topics apply` makes, and the other routers of the cluster. Its data
/// directory is a cache: what is not there is loaded from Kafka.
///
/// Examples:
///
///   tidegate router --bootstrap kafka:9092 --listen 10.0.0.7:8003 --routers router.tidegate.svc:8003
///
///   tidegate router --bootstrap 127.0.0.1:9092 --routers 127.0.0.1:8003 --data-dir ./router-1
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RouterArgs {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Know where users are: one member of a cluster's registry
///
/// Keeps everything in memory, told by the gateways, which need no member to do their work. Needs the list of all members,
/// the same for every process of the cluster, with itself in it: its place in --members, or its id in the file of
/// --members-file. In Kubernetes the id is the number of the pod; elsewhere say it with --id. SIGTERM ends it within
/// seconds: the member that has the same users answers meanwhile.
///
/// Examples:
///
///   tidegate registry --id 0 --members 10.0.0.7:8004,10.0.0.8:8004 --listen 10.0.0.7:8004
///
///   tidegate registry --id 2 --members-file members.toml --listen 127.0.0.1:8006 --admin 127.0.0.1:8007
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RegistryArgs {
    /// Which member of the list this is; without it, the number that the host's name ends with [registry.id]
    #[arg(long, value_name = "NUMBER")]
    id: Option<u32>,
    #[command(flatten)]
    serve: ServeArgs,
}

/// What all of them take.
#[derive(Debug, Args)]
struct ServeArgs {
    /// Once ready, write {"public","api","listen","admin"} to FILE as JSON, as far as the process has them: the real
    /// addresses, also for port 0
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
    /// Print nothing to standard output
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

impl DevArgs {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut own = Vec::new();
        if self.tls {
            let sources = self.serve.config.sources(Profile::Dev)?;
            let config = config::load(&sources)?.config;
            let data_dir = std::path::absolute(&config.data_dir).unwrap_or(config.data_dir);
            // This machine's pages are https now, the demonstration page among them; what the user said stays.
            if config.gateway.allowed_origins == ["http://localhost:*", "http://127.0.0.1:*"] {
                let value = "https://localhost:*, https://127.0.0.1:*".to_owned();
                own.push(Flag { name: "--tls".into(), key: "cors.allowed_origins".into(), value });
            }
            let files = self_signed::files(&data_dir, &sources.host).map_err(Failure::refused)?;
            for (key, path) in [("tls.cert_file", files.cert), ("tls.key_file", files.key)] {
                let value = path.to_str().ok_or_else(|| Failure::usage("--data-dir: not UTF-8"))?.to_owned();
                own.push(Flag { name: "--tls".into(), key: key.into(), value });
            }
        }
        run(&self.serve, Profile::Dev, "dev", own)
    }
}

impl GatewayArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(command) = self.command {
            return command.run();
        }
        run(&self.serve, Profile::Gateway, "gateway", Vec::new())
    }
}

impl RouterArgs {
    pub(super) fn run(&self) -> Result<(), Failure> {
        run(&self.serve, Profile::Router, "router", Vec::new())
    }
}

impl RegistryArgs {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let id = |id: u32| Flag { name: "--id".into(), key: "registry.id".into(), value: id.to_string() };
        run(&self.serve, Profile::Registry, "registry", self.id.map(id).into_iter().collect())
    }
}

fn run(args: &ServeArgs, role: Profile, name: &'static str, own: Vec<Flag>) -> Result<(), Failure> {
    let mut sources = args.config.sources(role)?;
    sources.flags.extend(own);
    let config = config::load(&sources)?.config;
    let mut builder = Builder::new_multi_thread();
    builder.thread_name("control").enable_all();
    if role == Profile::Gateway && std::env::var_os(WORKER_THREADS).is_none() {
        builder.worker_threads(gateway_workers());
    }
    let runtime =
        builder.build().map_err(|error| Failure::refused(format!("no runtime could be started: {error}")))?;
    let exporter = {
        let _within = runtime.enter();
        let exporter = config.otlp_endpoint.as_deref().map(|endpoint| Exporter::start(endpoint, name));
        exporter.transpose().map_err(Failure::usage)?
    };
    logging::start(&config.logging, exporter.as_ref()).map_err(Failure::refused)?;
    if let Some(warning) = admin::allocator_warning() {
        tracing::warn!("{warning}");
    }
    raise_files_limit();
    let ended = runtime.block_on(serve(args, config));
    if let Some(exporter) = exporter {
        exporter.shutdown();
    }
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    ended
}

async fn serve(args: &ServeArgs, config: Config) -> Result<(), Failure> {
    let signals =
        |kind| signal(kind).map_err(|error| Failure::refused(format!("signals cannot be heard: {error}")));
    let (terminate, interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let data_dir = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let tls = config.gateway.tls.clone();
    let app = App::build(config).await.map_err(Failure::refused)?;
    let (addresses, budget) = (app.addresses(), app.budget());
    let (ready, ports_file, quiet) = (app.ready(), args.ports_file.clone(), args.quiet);
    let announcing = tokio::spawn(async move {
        ready.await;
        if let (false, Some(budget)) = (quiet, budget) {
            banner::print(&addresses, &data_dir, &budget, tls.as_ref());
        }
        if let Some(path) = ports_file
            && let Err(error) = write_ports(&path, &addresses)
        {
            tracing::error!(path = %path.display(), %error, "ports file cannot be written");
        }
    });
    let ended = app.run(asked_to_end(terminate, interrupt)).await;
    announcing.abort();
    ended.map_err(Failure::refused)
}

/// Completes at the first SIGTERM or SIGINT; from then on a SIGINT ends the process at once.
async fn asked_to_end(mut terminate: Signal, mut interrupt: Signal) {
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "shutting down; Ctrl-C ends at once");
    tokio::spawn(async move {
        interrupt.recv().await;
        tracing::warn!("interrupted: ending at once");
        std::process::exit(130);
    });
}

/// A gateway's shards have threads of their own and want the cores: beside them, its control runtime has little to do, and
/// workers that wake each other do it less well than few.
fn gateway_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() / 4).max(1)
}

/// Whoever waits for the file must never see half of it.
fn write_ports(path: &Path, addresses: &Addresses) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, serde_json::to_vec(addresses)?)?;
    std::fs::rename(&partial, path)
}

/// A process may raise its own limit of open files up to the hard one: every connection is a file.
fn raise_files_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "limit of open files cannot be raised");
    }
}
