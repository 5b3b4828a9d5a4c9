//! One gateway of a cluster that `deploy/local/up` started; events go to the routers' API.

use std::sync::Arc;

use anyhow::Context as _;
use rand::Rng as _;
use serde_json::json;

use super::{Sender, Target};
use crate::compare::CompareOptions;
use crate::compare::open::Door;
use crate::compare::publish::Publisher;
use crate::verify::{Cluster, channels};

pub(super) fn target(options: &CompareOptions, cluster: &Cluster) -> anyhow::Result<Target> {
    let gateway = match &options.gateway {
        None => cluster.gateways.first(),
        Some(name) => cluster.gateways.iter().find(|gateway| gateway.name == *name),
    };
    let gateway = gateway.with_context(|| {
        let names: Vec<_> = cluster.gateways.iter().map(|gateway| gateway.name.as_str()).collect();
        format!("no such gateway: the cluster has {}", names.join(", "))
    })?;
    let prefix = format!("bench:{:08x}", rand::rng().random::<u32>());
    let channels = channels(&prefix, options.channels(), cluster.partitions);
    let query: Vec<_> = channels.iter().map(|channel| format!("channel={channel}")).collect();
    let request = move |seq: u64, data: String| {
        let channel = &channels[seq as usize % channels.len()];
        ("/v1/publish".to_owned(), json!({"channel": channel, "data": data}).to_string())
    };
    Ok(Target {
        door: Door {
            address: gateway.public,
            path: format!("/v1/events?{}", query.join("&")),
            frames_first: 1, // The state.
        },
        pids: vec![cluster.pid_of(&gateway.name)?],
        sender: Sender::Publisher(Publisher {
            addresses: cluster.routers.iter().map(|router| router.api).collect(),
            request: Arc::new(request),
        }),
    })
}
