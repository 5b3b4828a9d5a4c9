//! Who is let in: a pace for accepting, and caps by address and by user. New ones are refused, old ones never closed for it.
//!
//! Counts are taken off again by dropping a permit, so that none leaks; what counts a user are the connections themselves
//! (`presence.rs`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sockets of an address that are still answered, with a refusal, beyond its limit; further ones are just closed.
const ANSWERED_BEYOND: u32 = 16;

/// What became of a socket at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It may ask for anything.
    Open,
    /// The node holds as many as it may: it is told so.
    NodeFull,
    /// Its address has as many as it may: it is told so.
    AddressFull,
}

/// Open sockets, in all and by address.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    count: AtomicUsize,
    address_limit: u32,
    by_address: Mutex<HashMap<IpAddr, u32>>,
}

impl Sockets {
    pub(crate) fn new(address_limit: u32) -> Self {
        Self { address_limit, ..Self::default() }
    }

    /// Sockets that are open now.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a stream of a socket that has its own permit: a connection more, and of its address no more.
    pub(crate) fn permit_stream(self: &Arc<Self>) -> Permit {
        self.count.fetch_add(1, Ordering::Relaxed);
        Permit { sockets: Arc::clone(self), address: None }
    }

    /// Counts one more socket; the permit counts it off again. `None`: not even an answer, its address has too many.
    pub(crate) fn permit(self: &Arc<Self>, address: IpAddr) -> Option<(Permit, Entry)> {
        let (mut counted, mut entry) = (None, Entry::Open);
        if self.address_limit > 0 {
            let key = key_of(address);
            let mut by_address = self.by_address();
            let count = by_address.entry(key).or_default();
            if *count >= self.address_limit.saturating_add(ANSWERED_BEYOND) {
                return None;
            }
            *count += 1;
            if *count > self.address_limit {
                entry = Entry::AddressFull;
            }
            counted = Some(Box::new(key));
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Some((Permit { sockets: Arc::clone(self), address: counted }, entry))
    }
}

/// One client socket, counted while this lives.
#[derive(Debug)]
pub(crate) struct Permit {
    sockets: Arc<Sockets>,
    address: Option<Box<IpAddr>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.sockets.count.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = &self.address else { return };
        let mut by_address = self.sockets.by_address();
        if let Some(count) = by_address.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(address);
            }
        }
    }
}

/// One customer has an IPv6 /64, not an address.
fn key_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// Sockets of so many seconds may come at once.
const BURST_SECONDS: f64 = 0.02;

/// The pace of accepting: a token bucket.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: f64,
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// `rate` a second; none for no limit.
    pub(crate) fn new(rate: f64, now: Instant) -> Self {
        Self { rate, tokens: Self::burst(rate), at: now }
    }

    fn burst(rate: f64) -> f64 {
        (rate * BURST_SECONDS).max(1.0)
    }

    /// Takes a token, or says how long to wait for one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        if self.rate <= 0.0 {
            return Ok(());
        }
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(Self::burst(self.rate));
        self.at = now;
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / self.rate));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_limit_and_gets_it_back() {
        let sockets = Arc::new(Sockets::new(2));
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut held: Vec<_> = (0..2).map(|_| sockets.permit(a).expect("room")).collect();
        assert!(held.iter().all(|(_, entry)| *entry == Entry::Open));
        held.extend((0..ANSWERED_BEYOND).map(|_| sockets.permit(a).expect("answered")));
        assert!(held[2..].iter().all(|(_, entry)| *entry == Entry::AddressFull));
        assert!(sockets.permit(a).is_none(), "no more answers");
        assert_eq!(sockets.permit(b).expect("another").1, Entry::Open);
        assert_eq!(sockets.count(), held.len());
        held.clear();
        assert_eq!((sockets.count(), sockets.by_address().len()), (0, 0), "nothing leaks");
        assert_eq!(sockets.permit(a).expect("room again").1, Entry::Open);
    }

    #[test]
    fn without_a_limit_no_address_is_counted() {
        let sockets = Arc::new(Sockets::new(0));
        let permit = sockets.permit([10, 0, 0, 1].into());
        assert!(permit.is_some() && sockets.by_address().is_empty());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_a_mapped_address_as_itself() {
        let key = |text: &str| key_of(text.parse().expect("an address"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
    }

    #[test]
    fn the_pace_lets_a_burst_through_and_then_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(100.0, start);
        let mut now = start;
        let mut taken = 0;
        while now < start + Duration::from_secs(2) {
            match pace.take(now) {
                Ok(()) => taken += 1,
                Err(wait) => now += wait.max(Duration::from_micros(1)),
            }
        }
        assert!((197..=204).contains(&taken), "{taken}: a burst of 2 and 200");
        let mut unpaced = Pace::new(0.0, start);
        assert!((0..1_000).all(|_| unpaced.take(start).is_ok()));
    }
}
