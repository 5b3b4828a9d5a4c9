//! Registry members over loopback, and a node that announces to them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidegate_registry::client::{AnnounceHandle, AnnounceTask};
use tidegate_registry::server::{MemberTask, serve};
use tidegate_registry::{Count, Listed, Member, MemberId, MemberList, MemberOptions, Members};
use tidegate_vocab::{Channel, Incarnation};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::harness::PATIENCE;

struct Served {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// Members of one ring. A lease is 2 s and the debounce 100 ms.
pub(crate) struct TestMembers {
    served: Vec<Option<Served>>,
    list: MemberList,
    incarnations: u128,
}

impl TestMembers {
    pub(crate) async fn start(count: usize) -> Self {
        let mut listeners = Vec::new();
        let mut list = MemberList { version: 1, members: Vec::new() };
        for id in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound").to_string();
            list.members.push(Listed { id: MemberId(id as u32), weight: 1, address });
            listeners.push(listener);
        }
        let mut members = Self { served: Vec::new(), list, incarnations: 0 };
        for (id, listener) in listeners.into_iter().enumerate() {
            let served = members.serve(id, listener);
            members.served.push(Some(served));
        }
        members
    }

    fn serve(&mut self, id: usize, listener: TcpListener) -> Served {
        self.incarnations += 1;
        let ring = Arc::new(self.list.ring().expect("a ring"));
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
        let options =
            MemberOptions { debounce_ms: 100, lease_ms: 2_000, unix_ms, ..MemberOptions::default() };
        let member = Member::new(MemberId(id as u32), Incarnation(self.incarnations), ring, options);
        let (handle, task) = MemberTask::spawn(member);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            serve(handle, None, listener, async { drop(stopped.await) }).await.expect("serves");
            task.abort();
        });
        Served { stop, serving }
    }

    pub(crate) async fn restart(&mut self, id: usize) -> Incarnation {
        let Served { stop, serving } = self.served[id].take().expect("it runs");
        drop(stop);
        serving.await.expect("no panic");
        let address: SocketAddr = self.list.members[id].address.parse().expect("an address");
        let deadline = Instant::now() + PATIENCE;
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::task::yield_now().await;
        };
        self.served[id] = Some(self.serve(id, listener));
        Incarnation(self.incarnations)
    }

    /// What a router is given; the list lives as long as the sender.
    pub(crate) fn lists(&self) -> (watch::Sender<MemberList>, Members) {
        let sender = watch::Sender::new(self.list.clone());
        let members = Members { lists: sender.subscribe(), key: None };
        (sender, members)
    }

    /// The number of the member that is the primary of a subject.
    pub(crate) fn primary(&self, subject: &str) -> usize {
        let ring = self.list.ring().expect("a ring");
        ring.replicas(subject, 1).next().expect("a member").0 as usize
    }

    pub(crate) fn node(&self, number: u128) -> TestAnnouncer {
        let (handle, task) =
            AnnounceTask::spawn(Incarnation(number), String::new(), self.list.clone(), None).expect("a ring");
        TestAnnouncer { handle, task }
    }
}

/// A node's word to the members.
pub(crate) struct TestAnnouncer {
    handle: AnnounceHandle,
    task: JoinHandle<()>,
}

impl TestAnnouncer {
    pub(crate) async fn has(&self, subject: &str, connections: u32) {
        let subject = Channel::parse(subject).expect("valid");
        self.handle.count(subject, Count { connections, ..Count::default() }).await;
    }

    /// Gone without a word, as after kill -9.
    pub(crate) async fn die(self) {
        self.task.abort();
        let gone = tokio::time::timeout(Duration::from_secs(5), self.task).await;
        assert!(gone.expect("in time").is_err_and(|error| error.is_cancelled()));
    }
}
