//! What a process says in its metrics.

use std::net::SocketAddr;

use crate::http;

/// The sum of a metric's series whose labels contain all of `labels`, as they are written.
pub(crate) async fn metric(admin: SocketAddr, name: &str, labels: &[&str]) -> f64 {
    let metrics = http::get(admin, "/metrics", &[]).await.text();
    metrics
        .lines()
        .filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
                && labels.iter().all(|label| line.contains(label))
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
