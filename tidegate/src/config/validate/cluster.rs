//! Addresses, Kafka and the other processes of the cluster: what each role needs, and what must not be exposed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tidegate_gateway::Secret;

use super::{API_KEY_CHARACTERS, Check};
use crate::config::keys::Raw;
use crate::config::members::is_host_and_port;
use crate::config::source::Sources;
use crate::config::{ClusterConfig, KafkaConfig, Profile};

impl Check {
    pub(super) fn addresses(&mut self, raw: &Raw, sources: &Sources) {
        let i_know = sources.i_know;
        let is_any = sources.profile == Profile::Cluster;
        let (is_gateway, is_router) =
            (is_any || sources.profile.has_gateway(), is_any || sources.profile.has_router());
        let is_exposed = |address: &SocketAddr| !address.ip().is_loopback();
        let server = &raw.server;
        if is_gateway && raw.auth.insecure && is_exposed(&server.public) && !i_know {
            let text = format!(
                "{} is not loopback and auth.insecure lets everybody be any user: set auth.insecure = false, or pass \
                 --i-know",
                server.public
            );
            self.refuse("server.public", text);
        }
        if is_router && raw.api.keys.is_empty() && is_exposed(&server.api) {
            let text = format!(
                "{} is not loopback. Without API keys the API port binds loopback only: set api.keys, or bind \
                 127.0.0.1",
                server.api
            );
            self.refuse("server.api", text);
        }
        let all = [
            ("server.public", server.public, is_gateway),
            ("server.api", server.api, is_router),
            ("server.admin", server.admin, true),
            ("cluster.listen", raw.cluster.listen, is_any || sources.profile == Profile::Router),
            ("registry.listen", raw.registry.listen, is_any || sources.profile == Profile::Registry),
        ];
        let all: Vec<_> = all.into_iter().filter(|(_, _, is_used)| *is_used).collect();
        for (index, (key, address, _)) in all.iter().enumerate() {
            let taken = all[..index].iter().find(|(_, other, _)| other == address && address.port() != 0);
            if let Some((other, _, _)) = taken {
                self.refuse(*key, format!("{address} is also {other}: ports are separate, choose another"));
            }
        }
    }

    pub(super) fn kafka(&mut self, raw: &Raw, profile: Profile) -> KafkaConfig {
        let kafka = &raw.kafka;
        if profile == Profile::Router && kafka.bootstrap.is_empty() {
            self.refuse(
                "kafka.bootstrap",
                "is empty: a router needs brokers to begin with, such as --bootstrap kafka:9092",
            );
        }
        for address in &kafka.bootstrap {
            self.host_and_port("kafka.bootstrap", address);
        }
        let is_name = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
                && text.len() <= 200
        };
        if !is_name(&kafka.topic_prefix) {
            self.refuse(
                "kafka.topic_prefix",
                "has characters that no topic has: use a-z, A-Z, 0-9, `.`, `_` and `-`",
            );
        }
        if kafka.group.is_empty() || !is_name(&kafka.group) {
            self.refuse("kafka.group", "is no name of a group: use a-z, A-Z, 0-9, `.`, `_` and `-`");
        }
        self.range("kafka.replication", &kafka.replication, 1..=16, u32::to_string);
        self.range("kafka.min_insync", &kafka.min_insync, 1..=kafka.replication.max(1), u32::to_string);
        let mut properties = BTreeMap::new();
        for property in &kafka.properties {
            match property.split_once('=') {
                Some((name, value)) => {
                    drop(properties.insert(name.trim().to_owned(), value.trim().to_owned()))
                }
                None => self.refuse("kafka.properties", format!("`{property}` is not name=value")),
            }
        }
        KafkaConfig {
            bootstrap: kafka.bootstrap.clone(),
            topic_prefix: kafka.topic_prefix.clone(),
            group: kafka.group.clone(),
            replication: kafka.replication,
            min_insync: kafka.min_insync,
            properties,
        }
    }

    pub(super) fn cluster(&mut self, raw: &Raw, sources: &Sources) -> ClusterConfig {
        let cluster = &raw.cluster;
        if sources.profile == Profile::Gateway && cluster.routers.is_empty() {
            let text =
                "is empty: a gateway needs routers to attach to, such as --routers router.tidegate.svc:8003";
            self.refuse("cluster.routers", text);
        }
        for address in &cluster.routers {
            self.host_and_port("cluster.routers", address);
        }
        let key = cluster.key.expose();
        if !key.is_empty()
            && (!API_KEY_CHARACTERS.contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let (least, most) = (API_KEY_CHARACTERS.start(), API_KEY_CHARACTERS.end());
            let text = format!(
                "is not {least} to {most} visible ASCII characters: make one with `openssl rand -hex 24`"
            );
            self.refuse("cluster.key", text);
        }
        let is_exposed = !cluster.listen.ip().is_loopback();
        if sources.profile == Profile::Router && is_exposed && key.is_empty() && !sources.i_know {
            let text = format!(
                "{} is not loopback and cluster.key is empty: whoever reaches it could read and publish everything. Set \
                 cluster.key, or pass --i-know where the network keeps others out",
                cluster.listen
            );
            self.refuse("cluster.listen", text);
        }
        let advertise = Some(cluster.advertise.clone()).filter(|text| !text.is_empty());
        ClusterConfig {
            routers: cluster.routers.clone(),
            listen: cluster.listen,
            advertise: advertise.unwrap_or_else(|| cluster.listen.to_string()),
            key: (!key.is_empty()).then(|| Secret::new(key)),
        }
    }

    pub(super) fn host_and_port(&mut self, key: &str, address: &str) {
        if !is_host_and_port(address) {
            self.refuse(key, format!("`{address}` is not host:port"));
        }
    }
}
