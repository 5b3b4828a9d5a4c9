//! A server's user memory, as its kernel counts it.

use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Resident memory of a process that no file backs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(pub u64);

impl Memory {
    /// Reads `RssAnon` of a process on this machine.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("no such process")?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon in status")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("RssAnon is no number")?;
        Ok(Self(kib * 1024))
    }
}

/// How long memory must not have changed by more than a little.
const CALM: Duration = Duration::from_secs(3);
/// What counts as a little: 64 KiB.
const LITTLE_BYTES: u64 = 64 * 1024;

/// Waits until a process's memory has settled, at most for `deadline`, and says it.
///
/// # Errors
/// When there is no such process.
pub async fn settled_memory(pid: u32, deadline: Duration) -> anyhow::Result<Memory> {
    let started = Instant::now();
    let (mut calm_since, mut last) = (Instant::now(), Memory::of(pid)?);
    while calm_since.elapsed() < CALM && started.elapsed() < deadline {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = Memory::of(pid)?;
        if now.0.abs_diff(last.0) > LITTLE_BYTES {
            (calm_since, last) = (Instant::now(), now);
        }
    }
    Memory::of(pid)
}
