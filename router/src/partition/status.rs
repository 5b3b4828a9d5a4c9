//! What the rest of the router may see of a partition without asking its task.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Where a partition task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Finding where to go on.
    Beginning = 0,
    /// Consuming; the own takeover has not been consumed yet, or a foreign one has.
    Waiting = 1,
    /// In a tenure.
    Serving = 2,
    /// In a tenure, but the store refuses what was consumed.
    StoreFails = 3,
    /// A record needs a newer version.
    GivenUp = 4,
    /// The task panicked.
    Dead = 5,
}

impl Phase {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Beginning => "is being loaded",
            Self::Waiting => "waits for its takeover",
            Self::Serving => "serves",
            Self::StoreFails => "cannot write its history",
            Self::GivenUp => "has a record of a newer version",
            Self::Dead => "has failed",
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Beginning,
            1 => Self::Waiting,
            2 => Self::Serving,
            3 => Self::StoreFails,
            4 => Self::GivenUp,
            _ => Self::Dead,
        }
    }
}

/// See the module.
pub(crate) struct Status {
    phase: AtomicU8,
    lag: AtomicU64,
    lag_ms: AtomicU64,
    behind: AtomicU64,
    alive_ms: AtomicU64,
}

impl Status {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Beginning as u8),
            lag: AtomicU64::new(0),
            lag_ms: AtomicU64::new(0),
            behind: AtomicU64::new(0),
            alive_ms: AtomicU64::new(now_ms),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::from_number(self.phase.load(Ordering::Acquire))
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Records between H and the high watermark when it was last asked for.
    pub(crate) fn lag(&self) -> u64 {
        self.lag.load(Ordering::Relaxed)
    }

    /// The age of the last record consumed, while others wait; 0 otherwise.
    pub(crate) fn lag_ms(&self) -> u64 {
        self.lag_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_lag(&self, lag: u64, lag_ms: u64) {
        self.lag.store(lag, Ordering::Relaxed);
        self.lag_ms.store(lag_ms, Ordering::Relaxed);
    }

    /// Tenures whose node has no room or that are sent from the log.
    pub(crate) fn behind(&self) -> u64 {
        self.behind.load(Ordering::Relaxed)
    }

    pub(crate) fn set_behind(&self, behind: u64) {
        self.behind.store(behind, Ordering::Relaxed);
    }

    /// Milliseconds since the task was last seen alive.
    pub(crate) fn stall_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.alive_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn beat(&self, now_ms: u64) {
        self.alive_ms.store(now_ms, Ordering::Relaxed);
    }
}
