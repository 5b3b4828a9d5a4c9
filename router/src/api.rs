//! The API port: gRPC and its JSON twin on one listener.
//!
//! Owns routing, the API key, the request deadline and what every error looks like on both sides. One server, HTTP/1.1
//! and HTTP/2 with prior knowledge; TLS is the mesh's or the ingress'. `grpc.health.v1.Health` needs no key.

mod answer;
mod auth;
mod body;
mod cluster;
mod control;
mod grpc;
mod json;
mod presence;
mod users;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use tidegate_proto::cluster::v1::cluster_server::ClusterServer;
use tidegate_proto::control::v1::control_server::ControlServer;
use tidegate_proto::presence::v1::presence_server::PresenceServer;
use tidegate_proto::publish::v1::publisher_server::PublisherServer;
use tidegate_proto::upstream::v1::upstream_server::UpstreamServer;
use tidegate_proto::users::v1::users_server::UsersServer;
use tidegate_vocab::{ErrorKind, Problem, limits};
use tokio::net::TcpListener;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use crate::Router;
use auth::ApiKeys;

/// How long connections may go on after a shutdown has begun.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);

impl Router {
    /// Serves the API port until [`Router::shutdown`], which waits for it.
    pub fn serve_api(self: &Arc<Self>, listener: TcpListener) {
        let router = Arc::clone(self);
        self.own(tokio::spawn(async move {
            if let Err(error) = serve(router, listener).await {
                tracing::error!(%error, "api server ended");
            }
        }));
    }
}

async fn serve(router: Arc<Router>, listener: TcpListener) -> io::Result<()> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let app = app(&router, health).map_err(io::Error::other)?;
    let reporting = tokio::spawn(report_health(Arc::clone(&router), reporter));
    let serving = axum::serve(listener, app).with_graceful_shutdown(router.closed()).into_future();
    let overdue = async {
        router.closed().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    let served = tokio::select! {
        served = serving => served,
        () = overdue => {
            tracing::warn!("connections of the api port are cut");
            Ok(())
        }
    };
    reporting.abort();
    served
}

fn app<H: Health>(
    router: &Arc<Router>,
    health: HealthServer<H>,
) -> Result<axum::Router, tonic_reflection::server::Error> {
    let publisher = PublisherServer::new(grpc::PublisherService(Arc::clone(router)))
        .max_decoding_message_size(limits::API_REQUEST_BYTES_LIMIT);
    let upstream = UpstreamServer::new(grpc::UpstreamService(Arc::clone(router)));
    let control = ControlServer::new(control::ControlService(Arc::clone(router)))
        .max_decoding_message_size(control::REQUEST_BYTES_LIMIT);
    let presence = PresenceServer::new(presence::PresenceService(Arc::clone(router)))
        .max_decoding_message_size(control::REQUEST_BYTES_LIMIT);
    let users = UsersServer::new(users::UsersService(Arc::clone(router)))
        .max_decoding_message_size(limits::API_REQUEST_BYTES_LIMIT);
    let cluster = ClusterServer::new(cluster::ClusterService(Arc::clone(router)))
        .max_decoding_message_size(control::REQUEST_BYTES_LIMIT);
    let mut services = tonic::service::Routes::new(publisher)
        .add_service(upstream)
        .add_service(control)
        .add_service(presence)
        .add_service(users)
        .add_service(cluster)
        .add_service(health);
    if router.context.config.reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tidegate_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        services = services.add_service(reflection);
    }
    let twin = axum::Router::new()
        .route("/v1/publish", post(json::publish))
        .route("/v1/publish/batch", post(json::publish_batch))
        .route("/v1/revoke", post(control::revoke))
        .route("/v1/presence/watch", get(presence::watch))
        .route("/v1/direct", post(users::direct))
        .route("/v1/disconnect", post(users::disconnect))
        .route("/v1/users", get(users::locate))
        .route("/v1/occupants", get(users::occupants))
        .route("/v1/gateways", get(cluster::gateways))
        .route("/v1/gateways/drain", post(cluster::drain))
        .with_state(Arc::clone(router));
    let keys = Arc::new(ApiKeys::new(&router.context.config.api_keys));
    let deadline = Duration::from_millis(router.context.config.request_timeout_ms);
    Ok(services
        .into_axum_router()
        .merge(twin)
        .fallback(answer::not_found)
        .method_not_allowed_fallback(answer::method_not_allowed)
        .layer(middleware::from_fn_with_state(deadline, within_deadline))
        .layer(middleware::from_fn_with_state(keys, auth::require_key)))
}

/// A request that has not been answered in time; a stream counts as answered once it has begun.
async fn within_deadline(State(deadline): State<Duration>, request: Request, next: Next) -> Response {
    let style = answer::Style::of(request.headers());
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            style.refuse(&Problem::new(ErrorKind::RequestTimeout, "the request did not arrive in time"))
        }
    }
}

async fn report_health(router: Arc<Router>, reporter: HealthReporter) {
    let mut ticks = tokio::time::interval(HEALTH_INTERVAL);
    loop {
        ticks.tick().await;
        let status = match router.ready() {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        };
        reporter.set_service_status("", status).await;
        reporter.set_service_status("tidegate.publish.v1.Publisher", status).await;
        reporter.set_service_status("tidegate.upstream.v1.Upstream", status).await;
        reporter.set_service_status("tidegate.control.v1.Control", status).await;
        reporter.set_service_status("tidegate.presence.v1.Presence", status).await;
        reporter.set_service_status("tidegate.users.v1.Users", status).await;
        reporter.set_service_status("tidegate.cluster.v1.Cluster", status).await;
    }
}
