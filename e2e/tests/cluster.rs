//! Several processes and a real Kafka, and what goes wrong between them.

#[path = "cluster/admin.rs"]
mod admin;
#[path = "cluster/anew.rs"]
mod anew;
#[path = "cluster/collector.rs"]
mod collector;
#[path = "cluster/counts.rs"]
mod counts;
#[path = "cluster/down.rs"]
mod down;
#[path = "cluster/killed.rs"]
mod killed;
#[path = "cluster/offline.rs"]
mod offline;
#[path = "cluster/poison.rs"]
mod poison;
#[path = "cluster/registry.rs"]
mod registry;
#[path = "cluster/revoked.rs"]
mod revoked;
#[path = "cluster/stopped.rs"]
mod stopped;
#[path = "cluster/tours.rs"]
mod tours;
#[path = "cluster/traced.rs"]
mod traced;

/// Bounds what must come: a connection that only ever pings has something to say for ever.
#[track_caller]
fn in_time<T>(coming: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let came = tokio::time::timeout(tidegate_e2e::PATIENCE, coming).await;
        came.unwrap_or_else(|_| panic!("{place}: not within {:?}", tidegate_e2e::PATIENCE))
    }
}
