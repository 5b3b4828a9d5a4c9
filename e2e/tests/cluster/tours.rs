//! Clients under way on all transports, and what they shall reach.

use tidegate_e2e::{Acked, Cluster, Follow, Goal, Record, Tour, Transport, eventually};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// See the module.
pub(crate) struct Tours {
    tasks: Vec<(String, JoinHandle<Record>)>,
    goal: watch::Sender<Option<Goal>>,
}

impl Tours {
    /// One client on each transport on each gateway. Thrown out, it comes back with its cursor on the next transport.
    /// Returns once each has had its first state.
    pub(crate) async fn start(cluster: &Cluster, channels: &[&str]) -> Self {
        let (goal, goals) = watch::channel(None);
        let (ready, is_ready) = watch::channel(0);
        let mut tasks = Vec::new();
        for (number, gateway) in cluster.gateways.iter().enumerate() {
            for at in 0..Transport::ALL.len() {
                let mut transports = Transport::ALL;
                transports.rotate_left(at);
                let name = format!("{:?} on gateway {number}", transports[0]);
                let tour = Tour {
                    address: gateway.public(),
                    transports: transports.to_vec(),
                    follow: Follow::channels(channels),
                    cuts: Vec::new(),
                };
                tasks.push((name, tour.start(goals.clone(), ready.clone())));
            }
        }
        eventually("every client has its first state", async || {
            assert!(tasks.iter().all(|(_, task)| !task.is_finished()), "a client ended early");
            (*is_ready.borrow() == tasks.len()).then_some(())
        })
        .await;
        Self { tasks, goal }
    }

    /// Waits until each has all that was acked, and checks what each was given.
    pub(crate) async fn finish(self, acked: &[Acked]) -> Vec<Record> {
        self.goal.send_replace(Some(Tour::goal(acked)));
        let mut records = Vec::new();
        for (name, task) in self.tasks {
            let waiting = tokio::time::timeout(tidegate_e2e::PATIENCE, task).await;
            let mut record =
                waiting.unwrap_or_else(|_| panic!("{name}: never had it all")).expect("no panic");
            record.check(&name, acked);
            records.push(record);
        }
        records
    }
}
