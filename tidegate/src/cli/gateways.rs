//! `tidegate gateway list` and `tidegate gateway drain`.

use clap::{Args, Subcommand};
use serde::Serialize;
use tidegate_proto::cluster::v1 as wire;
use tidegate_proto::cluster::v1::cluster_client::ClusterClient;

use crate::cli::api::{ApiArgs, refusal};
use crate::cli::table::{OutputArgs, age, columns};
use crate::cli::{Failure, client_runtime};

#[derive(Debug, Subcommand)]
pub(super) enum GatewayCommand {
    List(ListArgs),
    Drain(DrainArgs),
}

/// Show the gateways that are attached to a router
///
/// Examples:
///
///   tidegate gateway list
///
///   tidegate gateway list -o json | jq '[.gateways[].connections] | add'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    api: ApiArgs,
}

/// Drain a gateway: it closes its connections at the configured pace and exits
///
/// As SIGTERM would: not ready, drain.wait, then all connections closed evenly over drain.window, each client told when to
/// come back. Whatever runs the gateway starts it again. Answers at once; `tidegate gateway list` shows how far it is.
///
/// Examples:
///
///   tidegate gateway drain gateway-2
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DrainArgs {
    /// Its name, or its incarnation where names are not unique
    gateway: String,
    #[command(flatten)]
    api: ApiArgs,
}

impl GatewayCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(args) => list(args),
            Self::Drain(args) => drain(args),
        }
    }
}

#[derive(Serialize)]
struct Gateways {
    gateways: Vec<Gateway>,
}

#[derive(Serialize)]
struct Gateway {
    name: String,
    incarnation: String,
    version: String,
    attached_since: u64,
    connections: u64,
    connections_limit: u64,
    draining: bool,
    current_members: u32,
}

fn list(args: ListArgs) -> Result<(), Failure> {
    client_runtime()?.block_on(async {
        let mut client = ClusterClient::new(args.api.connect().await?);
        let request = args.api.request(wire::ListGatewaysRequest {})?;
        let answer = client.list_gateways(request).await.map_err(|status| refusal(&status))?.into_inner();
        let gateways = answer.gateways.into_iter().map(|gateway| Gateway {
            name: gateway.name,
            incarnation: gateway.incarnation,
            version: gateway.version,
            attached_since: gateway.attached_since_s,
            connections: gateway.connections,
            connections_limit: gateway.connections_limit,
            draining: gateway.draining,
            current_members: gateway.current_members,
        });
        args.output.print(&Gateways { gateways: gateways.collect() }, table)
    })
}

fn table(all: &Gateways) -> Vec<String> {
    let row = |it: &Gateway| {
        [
            it.name.clone(),
            if it.draining { "draining".to_owned() } else { "serving".to_owned() },
            format!("{}/{}", it.connections, it.connections_limit),
            it.current_members.to_string(),
            it.version.clone(),
            age(it.attached_since),
            it.incarnation.clone(),
        ]
    };
    let heading = ["GATEWAY", "STATE", "CONNECTIONS", "REGISTRY", "VERSION", "ATTACHED", "INCARNATION"];
    columns(heading, all.gateways.iter().map(row).collect())
}

fn drain(args: DrainArgs) -> Result<(), Failure> {
    client_runtime()?.block_on(async {
        let mut client = ClusterClient::new(args.api.connect().await?);
        let request = args.api.request(wire::DrainGatewayRequest { gateway: args.gateway.clone() })?;
        let answer = client.drain_gateway(request).await.map_err(|status| refusal(&status))?.into_inner();
        crate::cli::print_line(&format!("{}  draining ({})", args.gateway, answer.incarnation))
    })
}
