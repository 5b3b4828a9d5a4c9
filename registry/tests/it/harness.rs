//! Served members, and waits with deadlines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_registry::server::{MemberHandle, MemberTask, serve};
use tidegate_registry::{Count, Key, Listed, Member, MemberId, MemberList, MemberOptions};
use tidegate_vocab::{Channel, Incarnation, UserId};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longest wait for anything that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

#[expect(non_snake_case, reason = "a constant in all but name")]
pub(crate) fn KEY() -> Key {
    Key::parse("0123456789abcdef").expect("a key")
}

pub(crate) fn user(id: &str) -> Channel {
    Channel::of_user(&UserId::parse(id).expect("valid"))
}

pub(crate) fn count(connections: u32) -> Count {
    Count { connections, ..Count::default() }
}

struct Served {
    address: SocketAddr,
    handle: MemberHandle,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// Members of one ring.
pub(crate) struct Members {
    members: Vec<Served>,
    incarnations: u128,
}

impl Members {
    pub(crate) async fn start(count: usize) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..count {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
        }
        let list = list(&listeners.iter().map(|it| it.local_addr().expect("bound")).collect::<Vec<_>>());
        let mut members = Self { members: Vec::new(), incarnations: 0 };
        for (id, listener) in listeners.into_iter().enumerate() {
            let served = members.serve(id, &list, listener);
            members.members.push(served);
        }
        members
    }

    fn serve(&mut self, id: usize, list: &MemberList, listener: TcpListener) -> Served {
        self.incarnations += 1;
        let ring = Arc::new(list.ring().expect("a ring"));
        let options = MemberOptions { debounce_ms: 200, ..MemberOptions::default() };
        let member = Member::new(MemberId(id as u32), Incarnation(self.incarnations), ring, options);
        let (handle, task) = MemberTask::spawn(member);
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let (served, abort) = (handle.clone(), task.abort_handle());
        let serving = tokio::spawn(async move {
            serve(served, Some(KEY()), listener, async { drop(stopped.await) }).await.expect("serves");
            abort.abort();
        });
        Served { address, handle, running: Some((stop, serving)) }
    }

    pub(crate) fn list(&self) -> MemberList {
        list(&self.members.iter().map(|member| member.address).collect::<Vec<_>>())
    }

    pub(crate) fn handle(&self, member: usize) -> &MemberHandle {
        &self.members[member].handle
    }

    pub(crate) fn address(&self, member: usize) -> String {
        self.members[member].address.to_string()
    }

    pub(crate) async fn stop(&mut self, member: usize) {
        let (stop, serving) = self.members[member].running.take().expect("it runs");
        drop(stop);
        serving.await.expect("no panic");
    }

    pub(crate) async fn restart(&mut self, member: usize) {
        let deadline = Instant::now() + PATIENCE;
        let listener = loop {
            match TcpListener::bind(self.members[member].address).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::task::yield_now().await;
        };
        let list = self.list();
        self.members[member] = self.serve(member, &list, listener);
    }
}

fn list(addresses: &[SocketAddr]) -> MemberList {
    let listed = |(id, address): (usize, &SocketAddr)| Listed {
        id: MemberId(id as u32),
        weight: 1,
        address: address.to_string(),
    };
    MemberList { version: 1, members: addresses.iter().enumerate().map(listed).collect() }
}

pub(crate) async fn within<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
