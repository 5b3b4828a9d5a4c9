//! The two clocks of a gateway: the wall for people and tokens, ticks for timers.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds of one tick of a shard's wheel.
const TICK_MS: u64 = 50;

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Monotonic time since the process's gateway started; wide enough for 6 years of ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now_ms(self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    /// The current tick; 0 is never one, so that it can mean "none".
    pub(crate) fn tick(self) -> u32 {
        (self.now_ms() / TICK_MS) as u32 + 1
    }

    /// When a tick begins.
    pub(crate) fn begin_of(self, tick: u32) -> Instant {
        self.0 + Duration::from_millis(u64::from(tick.saturating_sub(1)) * TICK_MS)
    }
}

/// Ticks that are at least `ms` milliseconds.
pub(crate) fn ticks(ms: u64) -> u32 {
    (ms.div_ceil(TICK_MS)).min(u64::from(u32::MAX / 2)) as u32
}
