//! How far a run is: for the line that people see, and for knowing when everyone has everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by all tasks of a run.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    acked: AtomicU64,
    retries: AtomicU64,
    received: AtomicU64,
    connected: AtomicI64,
    fault: Mutex<String>,
    /// The highest acked offset of each channel.
    tops: Mutex<BTreeMap<String, u64>>,
    clients: Vec<Mutex<Client>>,
}

#[derive(Debug, Default)]
struct Client {
    /// Channels not yet followed.
    unestablished: BTreeSet<String>,
    /// The highest offset received of each channel.
    tops: BTreeMap<String, u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn offset(pos: &str) -> u64 {
    pos.rsplit('.').next().and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Progress {
    pub(super) fn new<'a>(clients: impl Iterator<Item = &'a [String]>) -> Self {
        let client = |channels: &[String]| {
            let tops = channels.iter().map(|channel| (channel.clone(), 0)).collect();
            Mutex::new(Client { unestablished: channels.iter().cloned().collect(), tops })
        };
        let shared = Shared {
            clients: clients.map(client).collect(),
            fault: Mutex::new("-".into()),
            ..Shared::default()
        };
        Self(Arc::new(shared))
    }

    pub(super) fn set_fault(&self, what: &str) {
        what.clone_into(&mut lock(&self.0.fault));
    }

    pub(super) fn retried(&self) {
        self.0.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn acked(&self, channel: &str, pos: &str) {
        self.0.acked.fetch_add(1, Ordering::Relaxed);
        let mut tops = lock(&self.0.tops);
        let top = tops.entry(channel.to_owned()).or_default();
        *top = (*top).max(offset(pos));
    }

    pub(super) fn connected(&self, by: i64) {
        self.0.connected.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn established<'a>(&self, client: u32, channels: impl Iterator<Item = &'a String>) {
        let Some(client) = self.0.clients.get(client as usize) else { return };
        let mut client = lock(client);
        for channel in channels {
            client.unestablished.remove(channel);
        }
    }

    pub(super) fn received(&self, client: u32, channel: &str, pos: &str) {
        self.0.received.fetch_add(1, Ordering::Relaxed);
        let Some(client) = self.0.clients.get(client as usize) else { return };
        if let Some(top) = lock(client).tops.get_mut(channel) {
            *top = (*top).max(offset(pos));
        }
    }

    /// Clients that do not yet follow all of their channels.
    pub(super) fn unestablished(&self) -> usize {
        self.0.clients.iter().filter(|client| !lock(client).unestablished.is_empty()).count()
    }

    /// Clients that have not received the last acked event of each of their channels.
    pub(super) fn behind(&self) -> usize {
        let tops = lock(&self.0.tops).clone();
        let is_behind = |client: &&Mutex<Client>| {
            lock(client).tops.iter().any(|(channel, top)| tops.get(channel).is_some_and(|last| top < last))
        };
        self.0.clients.iter().filter(is_behind).count()
    }

    /// For people.
    pub(super) fn line(&self) -> String {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (acked, retries, received) = (of(&self.0.acked), of(&self.0.retries), of(&self.0.received));
        let connected = self.0.connected.load(Ordering::Relaxed);
        let fault = lock(&self.0.fault);
        format!(
            "acked {acked:>7}  retried {retries:>5}  delivered {received:>8}  connected {connected:>4}  fault: {fault}"
        )
    }
}
