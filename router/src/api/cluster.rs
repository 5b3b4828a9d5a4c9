//! The cluster for operators: `tidegate.cluster.v1.Cluster` and its JSON twin.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidegate_proto::cluster::v1 as wire;
use tidegate_proto::cluster::v1::cluster_server::Cluster;
use tidegate_vocab::{ErrorKind, Problem};
use tonic::Status;

use super::{answer, json};
use crate::Router;

/// `tidegate.cluster.v1.Cluster`.
pub(super) struct ClusterService(pub(super) Arc<Router>);

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn list_gateways(
        &self,
        _: tonic::Request<wire::ListGatewaysRequest>,
    ) -> Result<tonic::Response<wire::ListGatewaysResponse>, Status> {
        let gateways = listed(&self.0).into_iter().map(|gateway| wire::Gateway {
            name: gateway.name,
            incarnation: gateway.incarnation,
            version: gateway.version,
            attached_since_s: gateway.attached_since,
            connections: gateway.connections,
            connections_limit: gateway.connections_limit,
            draining: gateway.draining,
            current_members: gateway.current_members,
        });
        Ok(tonic::Response::new(wire::ListGatewaysResponse { gateways: gateways.collect() }))
    }

    async fn drain_gateway(
        &self,
        request: tonic::Request<wire::DrainGatewayRequest>,
    ) -> Result<tonic::Response<wire::DrainGatewayResponse>, Status> {
        let drained = self.0.drain_node(&request.into_inner().gateway).await;
        let incarnation = drained.map_err(|problem| answer::status(&problem, None))?.to_string();
        Ok(tonic::Response::new(wire::DrainGatewayResponse { incarnation }))
    }
}

#[derive(Serialize)]
struct Gateway {
    name: String,
    incarnation: String,
    version: String,
    /// Seconds since the Unix epoch.
    attached_since: u64,
    connections: u64,
    connections_limit: u64,
    draining: bool,
    current_members: u32,
}

#[derive(Serialize)]
struct Gateways {
    gateways: Vec<Gateway>,
}

/// By name.
fn listed(router: &Router) -> Vec<Gateway> {
    let nodes = router.list_nodes().into_iter();
    let mut gateways: Vec<_> = nodes
        .map(|node| Gateway {
            name: node.hello.name,
            incarnation: node.hello.incarnation.to_string(),
            version: node.hello.version,
            attached_since: node.since_s,
            connections: node.status.connections,
            connections_limit: node.status.connections_limit,
            draining: node.status.is_draining,
            current_members: u32::try_from(node.current_members).unwrap_or(u32::MAX),
        })
        .collect();
    gateways.sort_by(|one, other| (&one.name, &one.incarnation).cmp(&(&other.name, &other.incarnation)));
    gateways
}

pub(super) async fn gateways(State(router): State<Arc<Router>>) -> Response {
    json::of(&Gateways { gateways: listed(&router) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainBody {
    gateway: String,
}

#[derive(Serialize)]
struct Drained {
    incarnation: String,
}

pub(super) async fn drain(State(router): State<Arc<Router>>, request: Request) -> Response {
    let draining = async {
        let body = json::read(request.into_body()).await?;
        let body: DrainBody = serde_json::from_slice(&body).map_err(|error| {
            let form = r#"{"gateway":"gateway-1"}"#;
            Problem::new(ErrorKind::BadRequest, format!("the body is not of the form {form}: {error}"))
        })?;
        router.drain_node(&body.gateway).await
    };
    match draining.await {
        Ok(incarnation) => json::of(&Drained { incarnation: incarnation.to_string() }),
        Err(problem) => answer::http(&problem, None),
    }
}
