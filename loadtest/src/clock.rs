//! The clock that the processes of a comparison share: what one writes into an event, another can subtract from.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Microseconds of `CLOCK_MONOTONIC`: the same in every process of this machine, and nobody sets it.
#[must_use]
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000
}

/// Blocks this thread until then; not at all when it has passed.
pub fn sleep_until_us(at_us: u64) {
    std::thread::sleep(Duration::from_micros(at_us.saturating_sub(now_us())));
}
