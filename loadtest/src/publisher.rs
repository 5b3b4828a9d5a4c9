//! Publishing over HTTP at a pace: a thread says when each event is due, and a few connections, each with one event under
//! way, take them in turn. What waits for a connection is late from when it was due, not from when it was sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use anyhow::{Context as _, anyhow, ensure};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::clock::sleep_until_us;
use crate::http::{HttpConn, Response, post};
use crate::mark::Mark;

/// The thread that keeps the pace.
pub(crate) struct Pace(JoinHandle<u64>);

impl Pace {
    /// Calls `send` with each event when it is due, overdue ones at once, until `due_us` has no time for the next or `send`
    /// says no. On a thread of its own: the runtime's timers are no finer than a millisecond.
    pub(crate) fn start(
        mut due_us: impl FnMut(u64) -> Option<u64> + Send + 'static,
        mut send: impl FnMut(Mark) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let run = move || {
            let mut seq = 0;
            while let Some(due_us) = due_us(seq) {
                sleep_until_us(due_us);
                if !send(Mark { due_us, seq }) {
                    break;
                }
                seq += 1;
            }
            seq
        };
        Builder::new().name("pace".into()).spawn(run).map(Self)
    }

    /// How many were sent, once it has ended.
    pub(crate) fn join(self) -> anyhow::Result<u64> {
        self.0.join().map_err(|_| anyhow!("the pacing thread ended"))
    }
}

/// When the event of this number is due at a steady rate.
pub(crate) fn due_us(begin_us: u64, rate: f64, seq: u64) -> u64 {
    begin_us + (seq as f64 * 1e6 / rate) as u64
}

/// Events that are due, for whichever connection is free.
pub(crate) struct Queue<T>(Arc<Mutex<UnboundedReceiver<T>>>);

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Queue<T> {
    /// Not bounded: what is overdue must wait in it, or the pace would be the server's.
    pub(crate) fn new() -> (UnboundedSender<T>, Self) {
        let (due, queue) = unbounded_channel();
        (due, Self(Arc::new(Mutex::new(queue))))
    }

    /// Nothing, once no more can come.
    pub(crate) async fn next(&self) -> Option<T> {
        self.0.lock().await.recv().await
    }
}

/// A connection that publishes one event after the other.
pub(crate) struct PublishConn {
    address: SocketAddr,
    /// None when the server has closed it after its last answer.
    conn: Option<HttpConn>,
}

impl PublishConn {
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let conn = HttpConn::connect(address).await;
        Ok(Self { address, conn: Some(conn.with_context(|| format!("cannot connect to {address}"))?) })
    }

    /// So many, in turn to each of the addresses.
    pub(crate) async fn connect_all(addresses: &[SocketAddr], count: usize) -> anyhow::Result<Vec<Self>> {
        let mut publishers = Vec::new();
        for address in addresses.iter().cycle().take(count) {
            publishers.push(Self::connect(*address).await?);
        }
        Ok(publishers)
    }

    /// Sends a request and waits for its answer, whatever that is.
    pub(crate) async fn post(&mut self, path: &str, body: &str) -> anyhow::Result<Response> {
        if self.conn.is_none() {
            *self = Self::connect(self.address).await?;
        }
        let conn = self.conn.as_mut().context("not connected")?;
        let response = conn.exchange(&post(path, body)).await.context("publish")?;
        if response.is_last() {
            self.conn = None;
        }
        Ok(response)
    }

    /// The same; an answer that is no ack is a failure, and so is 207: not all of it was published. Tidegate acks with 200, nchan with
    /// 201 or 202.
    pub(crate) async fn publish(&mut self, path: &str, body: &str) -> anyhow::Result<()> {
        let response = self.post(path, body).await?;
        let status = response.head.status;
        ensure!(matches!(status, 200..=202), "a publish was answered with {status} {}", response.text());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now_us;

    #[tokio::test]
    async fn every_event_is_sent_once_not_before_it_is_due_and_overdue_ones_keep_their_time() {
        let (due, queue) = Queue::new();
        let begin_us = now_us() - 1_000_000;
        let due_at = move |seq| (seq < 1_010).then(|| due_us(begin_us, 1_000.0, seq));
        let pace = Pace::start(due_at, move |mark| due.send(mark).is_ok()).expect("a thread");
        let (other, mut marks) = (queue.clone(), Vec::new());
        while let Some(mark) = if marks.len() % 2 == 0 { queue.next().await } else { other.next().await } {
            assert!(mark.due_us <= now_us(), "{mark:?}");
            marks.push(mark);
        }
        assert_eq!(pace.join().expect("it ended"), 1_010);
        assert!(marks.iter().map(|mark| mark.seq).eq(0..1_010));
        assert!(marks.iter().all(|mark| mark.due_us == begin_us + mark.seq * 1_000), "{marks:?}");
    }

    #[test]
    fn nobody_who_takes_events_ends_the_pace() {
        let (due, queue) = Queue::<Mark>::new();
        drop(queue);
        let pace = Pace::start(|_| Some(0), move |mark| due.send(mark).is_ok()).expect("a thread");
        assert_eq!(pace.join().expect("it ended"), 0);
    }
}
