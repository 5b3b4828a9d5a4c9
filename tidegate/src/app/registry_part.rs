//! The registry's half of a process: one member, its port, and the ring that it follows.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::Registry;
use tidegate_registry::server::{MemberHandle, MemberTask, serve};
use tidegate_registry::{Key, Listed, Member, MemberId, MemberList, MemberMetrics, MemberOptions, Members};
use tidegate_vocab::Incarnation;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::shutdown::Shutdown;
use super::{BuildError, listen};
use crate::config::{Config, Profile, RegistryConfig, millis};

/// See the module.
pub(super) struct RegistryPart {
    pub(super) address: SocketAddr,
    id: MemberId,
    lists: watch::Receiver<MemberList>,
    stop: oneshot::Sender<()>,
    /// The member, its port, and who tells it of rings: none of them ends by itself.
    tasks: [JoinHandle<()>; 3],
}

/// Binds the member's port. The one of `tidegate dev` is found by nobody else: any free port, and a list of itself.
pub(super) async fn bind(config: &mut Config) -> Result<Option<TcpListener>, BuildError> {
    match config.role {
        Profile::Registry => Ok(Some(listen(config.registry.listen, "--listen").await?)),
        Profile::Dev => {
            let listener = listen((Ipv4Addr::LOCALHOST, 0).into(), "--listen").await?;
            let address = listener.local_addr().unwrap_or(config.registry.listen).to_string();
            let id = MemberId(0);
            let members = Some(MemberList { version: 0, members: vec![Listed { id, weight: 1, address }] });
            config.registry = RegistryConfig { members, file: None, id, ..config.registry.clone() };
            Ok(Some(listener))
        }
        _ => Ok(None),
    }
}

impl RegistryPart {
    /// Starts the member of this process.
    pub(super) fn start(
        config: &RegistryConfig,
        members: Members,
        listener: TcpListener,
        registry: &Registry,
    ) -> Result<Self, BuildError> {
        let Members { mut lists, key } = members;
        let address = listener.local_addr().unwrap_or(config.listen);
        let list = lists.borrow_and_update().clone();
        let ring = Arc::new(list.ring()?);
        let options =
            MemberOptions { debounce_ms: config.debounce_ms, unix_ms: now_ms(), ..MemberOptions::default() };
        let member = Member::new(config.id, Incarnation::random(), ring, options);
        let (handle, task) = MemberTask::spawn(member, list.version, MemberMetrics::register(registry)?);
        let following = tokio::spawn(follow(handle.clone(), lists.clone()));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve_until(handle, key, listener, stopped));
        Ok(Self { address, id: config.id, lists, stop, tasks: [task, serving, following] })
    }

    /// Whether gateways and routers find it.
    ///
    /// # Errors
    /// Says what to do.
    pub(super) fn ready(&self) -> Result<(), String> {
        let list = self.lists.borrow();
        if list.address(self.id).is_some() {
            return Ok(());
        }
        let ids: Vec<String> = list.members.iter().map(|member| member.id.0.to_string()).collect();
        Err(format!(
            "member {} is not in the list of version {}, which has {}: add it to registry.members or the file of \
             registry.members_file everywhere, or say with registry.id which one this is",
            self.id.0,
            list.version,
            ids.join(", ")
        ))
    }

    /// True once something has ended that must not.
    pub(super) fn has_failed(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Ends the port, then the member: nodes announce to its replica meanwhile, as they always do.
    pub(super) async fn end(self, shutdown: &mut Shutdown) {
        let [member, serving, following] = self.tasks;
        // invariant: a server that has ended needs no telling
        let _ = self.stop.send(());
        shutdown.phase("registry", Duration::from_secs(6), serving).await;
        following.abort();
        member.abort();
    }
}

/// Tells the member of every newer list.
async fn follow(handle: MemberHandle, lists: watch::Receiver<MemberList>) {
    tidegate_registry::follow(lists, |list| {
        tracing::info!(version = list.version, "another ring");
        handle.set_members(list)
    })
    .await;
    // The list is final: its owner is gone, as when the process ends.
    std::future::pending::<()>().await;
}

async fn serve_until(
    handle: MemberHandle,
    key: Option<Key>,
    listener: TcpListener,
    stopped: oneshot::Receiver<()>,
) {
    // invariant: a sender that is gone is as good as one that said so
    let until = async { drop(stopped.await) };
    if let Err(error) = serve(handle, key, listener, until).await {
        tracing::error!(%error, "registry port has failed");
    }
}

/// By this machine's clock: for people, never compared.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
