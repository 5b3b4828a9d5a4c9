//! One task per router that discovery names: dials it, forwards what it says, and dials again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::Rng as _;
use tidegate_link::{DeliverReceiver, DeliverStream, Routers};
use tidegate_tenure::{StreamId, ToNode, ToRouter};
use tidegate_vocab::Incarnation;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// Frames taken from a stream at once.
const FRAMES_AT_ONCE: usize = 256;
/// Pauses before a router is dialled again, in milliseconds: at random between the half and the whole.
const PAUSES_MS: [u64; 4] = [100, 200, 500, 1_000];
/// A stream that lasted this long ended for a new reason: the pauses begin anew.
const STEADY: Duration = Duration::from_secs(5);

/// What the node task hears of its streams.
pub(super) enum FromStream {
    /// A stream is open. Dropping the last part ends it.
    Up(StreamId, mpsc::Sender<ToRouter>, oneshot::Sender<()>),
    /// The router said something.
    Frames(StreamId, Vec<ToNode>),
    /// The stream has ended.
    Down(StreamId),
}

/// See the module. Dropping it ends all of them.
pub(super) struct Attachments {
    routers: Routers,
    dialling: Dialling,
    tasks: JoinSet<()>,
    running: BTreeMap<String, AbortHandle>,
    is_watched: bool,
}

/// What every task needs.
#[derive(Clone)]
struct Dialling {
    incarnation: Incarnation,
    node: mpsc::Sender<FromStream>,
    /// One counter for all routers: of two streams the newer has the higher id.
    last_stream: Arc<AtomicU64>,
    dial_now: Arc<Notify>,
}

impl Attachments {
    pub(super) fn new(routers: Routers, incarnation: Incarnation, node: mpsc::Sender<FromStream>) -> Self {
        let dialling = Dialling { incarnation, node, last_stream: Arc::default(), dial_now: Arc::default() };
        Self { routers, dialling, tasks: JoinSet::new(), running: BTreeMap::new(), is_watched: true }
    }

    /// Completes when discovery names other routers; never once discovery has ended. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        if !self.is_watched || self.routers.changed().await.is_err() {
            self.is_watched = false;
            std::future::pending().await
        }
    }

    /// Sees to it that there is a task for every router that is named. That of a router that is no longer named ends
    /// when its stream does.
    pub(super) fn follow(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.running.retain(|_, task| !task.is_finished());
        let named: Vec<String> = self.routers.borrow_and_update().keys().cloned().collect();
        for address in named {
            if !self.running.contains_key(&address) {
                let staying = self.dialling.clone().stay_attached(address.clone(), self.routers.clone());
                self.running.insert(address, self.tasks.spawn(staying));
            }
        }
    }

    /// Ends the pauses of all that wait to dial.
    pub(super) fn dial_now(&self) {
        self.dialling.dial_now.notify_waiters();
    }
}

impl Dialling {
    async fn stay_attached(self, address: String, routers: Routers) {
        let mut failures = 0;
        loop {
            let Some(router) = routers.borrow().get(&address).cloned() else { return };
            match router.attach(self.incarnation).await {
                Ok(stream) => {
                    let opened = Instant::now();
                    if self.forward(stream).await.is_err() {
                        return;
                    }
                    failures = if opened.elapsed() < STEADY { failures + 1 } else { 1 };
                    tracing::warn!("deliver stream ended; dialling again");
                }
                Err(problem) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(%problem, "router refused the deliver stream; dialling again");
                    } else {
                        tracing::debug!(%problem, failures, "router refused the deliver stream");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause(failures)) => {}
                () = self.dial_now.notified() => {}
            }
        }
    }

    /// Until the stream ends, or the node task lets go of it; an error when the node task is gone.
    async fn forward(&self, stream: DeliverStream) -> Result<(), mpsc::error::SendError<FromStream>> {
        let id = StreamId(self.last_stream.fetch_add(1, Ordering::Relaxed) + 1);
        let (stop, stopped) = oneshot::channel();
        self.node.send(FromStream::Up(id, stream.to_router, stop)).await?;
        tokio::select! {
            forwarded = self.frames(id, stream.from_router) => forwarded?,
            _ = stopped => {}
        }
        self.node.send(FromStream::Down(id)).await
    }

    async fn frames(
        &self,
        id: StreamId,
        mut from_router: DeliverReceiver,
    ) -> Result<(), mpsc::error::SendError<FromStream>> {
        while let Some(frames) = from_router.next(FRAMES_AT_ONCE).await {
            self.node.send(FromStream::Frames(id, frames)).await?;
        }
        Ok(())
    }
}

/// The first is short, since most ends are restarts of a router beside others; none is longer than a second.
fn pause(failures: usize) -> Duration {
    let longest = PAUSES_MS[failures.saturating_sub(1).min(PAUSES_MS.len() - 1)];
    Duration::from_millis(rand::rng().random_range(longest / 2..=longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second() {
        let check = |failures: usize, from_ms: u64, to_ms: u64| {
            let drawn = pause(failures).as_millis() as u64;
            assert!((from_ms..=to_ms).contains(&drawn), "{failures}: {drawn}");
        };
        check(0, 50, 100);
        check(1, 50, 100);
        check(2, 100, 200);
        check(3, 250, 500);
        check(4, 500, 1_000);
        check(1_000, 500, 1_000);
    }
}
