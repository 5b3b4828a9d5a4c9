//! Routers and gateways around one Kafka, each a process of its own.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::{Mutex, MutexGuard};

use crate::kafka::Kafka;
use crate::members::Members;
use crate::node::Node;
use crate::process::binary;

/// One cluster runs at a time: they would only take the machine from each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Shape {
    name: String,
    gateways: usize,
    members: usize,
    all: Vec<String>,
    router: Vec<String>,
    gateway: Vec<String>,
}

impl Shape {
    /// Two routers and two gateways. The name is that of their topics and of the group.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let name = format!("{name}.");
        Self { name, gateways: 2, members: 0, all: Vec::new(), router: Vec::new(), gateway: Vec::new() }
    }

    /// So many gateways.
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// With a registry of so many members.
    #[must_use]
    pub fn members(mut self, count: usize) -> Self {
        self.members = count;
        self
    }

    /// With a setting of all of them.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.all.extend(["--set".to_owned(), format!("{key}={}", value.to_string())]);
        self
    }

    /// With a setting of the routers.
    #[must_use]
    pub fn router_set(mut self, key: &str, value: impl ToString) -> Self {
        self.router.extend(["--set".to_owned(), format!("{key}={}", value.to_string())]);
        self
    }

    /// With a setting of the gateways.
    #[must_use]
    pub fn gateway_set(mut self, key: &str, value: impl ToString) -> Self {
        self.gateway.extend(["--set".to_owned(), format!("{key}={}", value.to_string())]);
        self
    }
}

/// See the module. Dropped, its processes are killed.
#[derive(Debug)]
pub struct Cluster {
    /// `tidegate router`.
    pub routers: Vec<Node>,
    /// `tidegate gateway`.
    pub gateways: Vec<Node>,
    /// `tidegate registry`, in the order of their ids.
    pub members: Members,
    /// What they keep their log in.
    pub kafka: Arc<Kafka>,
    shape: Shape,
    addresses: Vec<SocketAddr>,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Makes the topics, starts everything and waits until all of it is ready.
    ///
    /// # Panics
    /// When something does not become ready.
    pub async fn start(shape: Shape) -> Self {
        let kafka = Kafka::shared();
        let turn = TURN.lock().await;
        kafka.start_again(); // The test before may have left it dead.
        let addresses = free_addresses(2);
        let (routers, gateways, members) = (Vec::new(), Vec::new(), Members::new());
        let mut cluster = Self { routers, gateways, members, kafka, shape, addresses, _turn: turn };
        cluster.apply_topics();
        for _ in 0..cluster.shape.members {
            cluster.add_member();
        }
        cluster.members.write_list();
        for number in 0..cluster.addresses.len() {
            let router = cluster.spawn_router(number);
            cluster.routers.push(router);
        }
        for number in 0..cluster.shape.gateways {
            let gateway = cluster.spawn_gateway(number);
            cluster.gateways.push(gateway);
        }
        cluster.wait_until_ready().await;
        cluster
    }

    /// The topic of this name that belongs to this cluster.
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.shape.name)
    }

    /// `tidegate topics apply`.
    ///
    /// # Panics
    /// When it fails.
    pub fn apply_topics(&self) {
        let output = self.topics_apply();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    }

    /// As above, where it may fail: what it said.
    #[must_use]
    pub fn try_apply_topics(&self) -> String {
        let output = self.topics_apply();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    fn topics_apply(&self) -> Output {
        let mut command = Command::new(binary());
        command.args(["topics", "apply"]).args(self.kafka_arguments()).output().expect("it runs")
    }

    /// Waits until every process is ready.
    pub async fn wait_until_ready(&mut self) {
        let all = self.routers.iter_mut().chain(&mut self.gateways).chain(&mut self.members.nodes);
        join_all(all.map(Node::wait_until_ready)).await;
    }

    /// Starts one more member of the registry. Nobody knows of it before the list is written.
    pub fn add_member(&mut self) {
        let taken = self.addresses.len() + self.members.addresses.len();
        let address = free_addresses(taken + 1)
            .into_iter()
            .find(|it| !self.members.addresses.contains(it) && !self.addresses.contains(it));
        self.members.spawn(address.expect("a free port"), &self.shape.all);
    }

    /// Kills all routers at once, and waits for their end.
    pub async fn kill_routers(&mut self) {
        self.routers.iter().for_each(Node::kill9);
        join_all(self.routers.iter_mut().map(Node::exit_code)).await;
    }

    /// Starts all routers again.
    pub fn spawn_routers_again(&mut self) {
        self.routers.iter_mut().for_each(Node::spawn_again);
    }

    /// Starts a router with the arguments of this one, on a data directory and ports of its own.
    #[must_use]
    pub fn spawn_router(&self, number: usize) -> Node {
        let mut arguments = self.kafka_arguments();
        let listen = self.addresses.get(number).copied().unwrap_or_else(|| free_addresses(1)[0]);
        arguments.extend(["--listen".to_owned(), listen.to_string()]);
        arguments.extend(self.router_names());
        arguments.extend(self.members.arguments());
        arguments.extend(self.shape.all.iter().chain(&self.shape.router).cloned());
        Node::spawn(&format!("router {number}"), "router", arguments)
    }

    fn spawn_gateway(&self, number: usize) -> Node {
        let mut arguments = self.router_names();
        arguments.extend(self.members.arguments());
        arguments.extend(["--set".to_owned(), format!("server.name=gateway-{number}")]);
        for setting in ["auth.insecure=true", "auth.anonymous=true", "log.partitions=8"] {
            arguments.extend(["--set".to_owned(), setting.to_owned()]);
        }
        arguments.extend(self.shape.all.iter().chain(&self.shape.gateway).cloned());
        Node::spawn(&format!("gateway {number}"), "gateway", arguments)
    }

    fn router_names(&self) -> Vec<String> {
        let names: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        vec!["--routers".to_owned(), names.join(",")]
    }

    fn kafka_arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--bootstrap".to_owned(), self.kafka.bootstrap().to_owned()];
        let settings = [
            "kafka.replication=1".to_owned(),
            "kafka.min_insync=1".to_owned(),
            "log.partitions=8".to_owned(),
            format!("kafka.topic_prefix={}", self.shape.name),
            format!("kafka.group={}", self.shape.name),
        ];
        arguments.extend(settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]));
        arguments
    }
}

/// Addresses on which nobody listens, below where the system takes ports for outgoing connections, so that they are
/// still free when a process that was killed is started again.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let first = 12_000 + u16::try_from(std::process::id() * 16 % 7_000).expect("small"); // Programs run beside each other.
    let addresses = (first..20_000).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let free: Vec<_> = addresses.filter(|address| TcpListener::bind(address).is_ok()).take(count).collect();
    assert_eq!(free.len(), count, "free ports");
    free
}
