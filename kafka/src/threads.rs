//! Threads that end within a bounded time, or are left behind with an error in the log: closing a librdkafka
//! client waits for brokers and has been seen to hang.

use std::ops::Deref;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A named thread.
pub(crate) struct Worker {
    handle: JoinHandle<()>,
    /// Hears nothing and is disconnected when the thread ends.
    ended: Receiver<()>,
}

impl Worker {
    pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let (running, ended) = sync_channel(0);
        let handle = std::thread::Builder::new().name(name.into()).spawn(move || {
            // Dropped at the end, also by a panic.
            let _running: SyncSender<()> = running;
            work();
        })?;
        Ok(Self { handle, ended })
    }

    /// Waits for the end, at most until the deadline.
    pub(crate) fn join(self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let thread = self.handle.thread().name().map(str::to_owned);
        if self.ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            return tracing::error!(thread, "Kafka thread did not end in time and is left behind");
        }
        if self.handle.join().is_err() {
            tracing::error!(thread, "Kafka thread has panicked");
        }
    }
}

/// Drops on a thread of its own what may take long to drop, and waits for that at most so long.
pub(crate) fn drop_within<T: Send + 'static>(what: T, name: &'static str, timeout: Duration) {
    match Worker::spawn(name, move || drop(what)) {
        Ok(worker) => worker.join(Instant::now() + timeout),
        Err(error) => tracing::error!(%error, name, "no thread to close a Kafka client on"),
    }
}

/// How long a client that reads may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A client that is dropped on a thread of its own.
pub(crate) struct Detached<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Detached<T> {
    pub(crate) fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send + 'static> Deref for Detached<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("invariant: only dropping takes it out")
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        drop_within(self.0.take(), "kafka-close", CLOSE_TIMEOUT);
    }
}
