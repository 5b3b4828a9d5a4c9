//! A client that is cut again and again and comes back with its cursor, on one transport after the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::follow::{Follow, Transport};
use crate::follower::{Follower, Heard};
use crate::publisher::Acked;
use crate::record::Record;

/// How long a client listens before it looks whether it has all there is.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The last number of each channel, once nothing more is published.
pub type Goal = BTreeMap<String, u64>;

/// See the module.
#[derive(Debug)]
pub struct Tour {
    /// Where to connect.
    pub address: SocketAddr,
    /// One after the other, and from the beginning.
    pub transports: Vec<Transport>,
    /// What to ask for; the cursor is added.
    pub follow: Follow,
    /// Cuts after so many events, one after the other, and from the beginning; empty: never.
    pub cuts: Vec<usize>,
}

impl Tour {
    /// Begins, and ends when all of the goal was seen. Its first connection is up once `ready` says so.
    #[must_use]
    pub fn start(
        self,
        goal: watch::Receiver<Option<Goal>>,
        ready: watch::Sender<usize>,
    ) -> JoinHandle<Record> {
        tokio::spawn(self.run(goal, ready))
    }

    async fn run(self, goal: watch::Receiver<Option<Goal>>, ready: watch::Sender<usize>) -> Record {
        let mut record = Record::default();
        let mut follow = self.follow;
        for number in 0.. {
            let transport = self.transports[number % self.transports.len()];
            let cut_after =
                if self.cuts.is_empty() { usize::MAX } else { self.cuts[number % self.cuts.len()] };
            let mut follower = Follower::reopen(self.address, transport, &follow).await;
            record.connected();
            let mut count = 0;
            let is_over = loop {
                if count >= cut_after {
                    break false;
                }
                match follower.hear_within(LOOK_INTERVAL).await {
                    Some(Heard::Object(object)) => {
                        if object.kind == "state" && number == 0 {
                            ready.send_modify(|ready| *ready += 1);
                        }
                        count += usize::from(take(&mut record, &object, number, transport));
                    }
                    Some(Heard::End { .. } | Heard::Refused(_)) => break false,
                    Some(_) => {}
                    None if is_reached(&goal, &record) => break true,
                    None => {}
                }
            };
            let cut = follower.cut();
            for heard in &cut.rest {
                if let Heard::Object(object) = heard {
                    take(&mut record, object, number, transport);
                }
            }
            if is_over {
                return record;
            }
            follow.cursor = Some(cut.cursor).filter(|cursor| !cursor.is_empty());
        }
        record
    }
}

/// Takes an object in; true when it was an event.
fn take(record: &mut Record, object: &crate::object::Object, number: usize, transport: Transport) -> bool {
    if let Some(event) = object.event() {
        record.saw(&event);
        return true;
    }
    let is_fine = match object.kind.as_str() {
        "state" => {
            let fresh = object.value["fresh"].as_array().is_none_or(|fresh| number == 0 || fresh.is_empty());
            object.value["lost"].as_array().is_some_and(Vec::is_empty) && fresh
        }
        "ping" | "close" => true,
        _ => false,
    };
    assert!(is_fine, "{transport:?}, connection {number}: {}", object.raw);
    false
}

fn is_reached(goal: &watch::Receiver<Option<Goal>>, record: &Record) -> bool {
    goal.borrow().as_ref().is_some_and(|goal| goal.iter().all(|(channel, n)| record.has(channel, *n)))
}

impl Tour {
    /// The goal that all of these were seen.
    #[must_use]
    pub fn goal(acked: &[Acked]) -> Goal {
        acked.iter().map(|acked| (acked.channel.clone(), acked.n)).collect()
    }
}
