//! One HTTP/2 socket: takes its requests, closes it when nobody uses it, and asks a client that says nothing for a sign of life.
//! A request runs as a task of its own.

use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::Connection;
use h2::{Ping, PingPong};
use tidegate_vocab::limits;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};

use super::meter::{MeteredSocket, Seen};
use super::request;
use crate::admission::Entry;
use crate::shard::Shard;

const PONG_TIMEOUT: Duration = Duration::from_millis(limits::PONG_TIMEOUT_MS);

/// A socket and what is known of its use.
pub(super) struct Serving {
    shard: Rc<Shard>,
    connection: Connection<MeteredSocket, Bytes>,
    seen: Rc<Seen>,
    entry: Entry,
    /// Each open request holds a clone.
    open: Rc<()>,
    /// There was a request since the last look.
    begun: bool,
    /// The client has been told that no further request is taken.
    pub(super) is_ending: bool,
    looks: Interval,
    liveness: Liveness,
}

impl Serving {
    pub(super) fn new(
        shard: &Rc<Shard>,
        mut connection: Connection<MeteredSocket, Bytes>,
        seen: Rc<Seen>,
        entry: Entry,
    ) -> Self {
        let idle_after = shard.shared.config.head_timeout;
        let mut looks = tokio::time::interval_at(Instant::now() + idle_after, idle_after);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let liveness = Liveness::new(connection.ping_pong(), shard.shared.config.ping_interval);
        let (shard, open) = (Rc::clone(shard), Rc::new(()));
        Self { shard, connection, seen, entry, open, begun: false, is_ending: false, looks, liveness }
    }

    pub(super) fn say_goodbye(&mut self) {
        self.is_ending = true;
        self.connection.graceful_shutdown();
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while self.looks.poll_tick(cx).is_ready() {
            if std::mem::take(&mut self.begun) || Rc::strong_count(&self.open) > 1 {
                continue;
            }
            if self.is_ending {
                return Poll::Ready(Ok(())); // It was asked to go, has nothing open and is still here.
            }
            self.say_goodbye();
        }
        loop {
            if self.liveness.poll_dead(cx, &self.seen).is_ready() {
                return Poll::Ready(Ok(()));
            }
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.begun = true;
                    let (shard, open) = (Rc::clone(&self.shard), Rc::clone(&self.open));
                    tokio::task::spawn_local(request::handle(shard, open, self.entry, request, respond));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                // A socket that was refused at the door goes once it has been told: the next one may be let in.
                Poll::Pending if !self.is_ending && self.entry != Entry::Open && self.begun => {
                    self.say_goodbye();
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Asks a client that says nothing for a sign of life.
struct Liveness {
    pings: Option<PingPong>,
    interval: Duration,
    due: Pin<Box<Sleep>>,
    is_asked: bool,
}

impl Liveness {
    fn new(pings: Option<PingPong>, interval: Duration) -> Self {
        Self { pings, interval, due: Box::pin(tokio::time::sleep(interval)), is_asked: false }
    }

    /// Ready when a ping was not answered in time, by whatever.
    fn poll_dead(&mut self, cx: &mut Context<'_>, seen: &Seen) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        while self.due.as_mut().poll(cx).is_ready() {
            let is_heard = seen.heard.take();
            if self.is_asked && !is_heard {
                return Poll::Ready(());
            }
            let _ = pings.poll_pong(cx); // Taken, so that another may be sent.
            self.is_asked = !is_heard && pings.send_ping(Ping::opaque()).is_ok();
            let wait = if self.is_asked { PONG_TIMEOUT } else { self.interval };
            self.due.as_mut().reset(Instant::now() + wait);
        }
        Poll::Pending
    }
}
