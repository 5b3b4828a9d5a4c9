//! The administration port: is the process alive, is it ready, what does it count.
//!
//! Owns one thread with a runtime of its own, so that it answers while the others are stuck: `/livez` reads a
//! heartbeat, `/readyz` what the roles say, `/metrics` the registry. Asks nothing of the roles that could wait.
//! Holds no secret and serves no configuration.

mod heartbeat;
mod memory;
mod process;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{IntGaugeVec, Opts, Registry, TextEncoder};
use tokio::sync::watch;

pub use heartbeat::Heartbeat;
pub use memory::{MemoryCollector, allocator_warning};
pub use process::ProcessCollector;

use crate::version::VERSION;

/// What `/readyz` asks: `Ok`, or every reason why not.
pub type Readiness = Arc<dyn Fn() -> Result<(), Vec<String>> + Send + Sync>;

/// What the port serves.
#[derive(Clone)]
pub struct AdminParts {
    /// Where all families are registered.
    pub registry: Registry,
    /// Whether the process can take traffic.
    pub readiness: Readiness,
    /// Whether its event loop turns.
    pub heartbeat: Heartbeat,
}

/// The running port. It ends when [`AdminServer::stop`] is called or this is dropped.
#[derive(Debug)]
pub struct AdminServer {
    local_addr: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Binds the port and serves it from a thread of its own.
    ///
    /// # Errors
    /// When the port cannot be bound or the thread cannot be started.
    pub fn start(address: SocketAddr, parts: AdminParts) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let local_addr = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || runtime.block_on(serve(listener, parts, stopped)))?;
        Ok(Self { local_addr, stop, thread: Some(thread) })
    }

    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Ends the thread.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(Err(_panic)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("administration thread has panicked");
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.end();
    }
}

async fn serve(listener: TcpListener, parts: AdminParts, mut stopped: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "administration port cannot be served"),
    };
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(parts);
    // A scrape that hangs must not hold the process back: the runtime is dropped when this returns.
    tokio::select! {
        served = axum::serve(listener, router).into_future() => {
            if let Err(error) = served {
                tracing::error!(%error, "administration port ended");
            }
        }
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

async fn livez(State(parts): State<AdminParts>) -> Response {
    match parts.heartbeat.check() {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn readyz(State(parts): State<AdminParts>) -> Response {
    match (parts.readiness)() {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reasons) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))).into_response()
        }
    }
}

async fn metrics(State(parts): State<AdminParts>) -> Response {
    let mut text = String::new();
    match TextEncoder::new().encode_utf8(&parts.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Registers what every process counts: its build, its use of the system and of memory.
///
/// # Errors
/// When one of the families is registered already.
pub fn register_process_metrics(registry: &Registry) -> Result<(), prometheus::Error> {
    let options = Opts::new("tidegate_build_info", "Always 1; the labels say what runs.");
    let build = IntGaugeVec::new(options, &["version", "commit", "rustc"])?;
    build.with_label_values(&[VERSION.number, VERSION.commit.unwrap_or("unknown"), VERSION.rustc]).set(1);
    registry.register(Box::new(build))?;
    registry.register(Box::new(ProcessCollector::new()?))?;
    registry.register(Box::new(MemoryCollector::new()?))
}

#[cfg(test)]
mod tests;
