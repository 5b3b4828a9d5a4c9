//! Processor time that a process has used, as its kernel counts it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::param::clock_ticks_per_second;

/// Where `utime` and `stime` stand behind the program's name, which is the only field that may hold spaces.
const UTIME: usize = 11;

/// In user and in kernel mode, all threads, those that have ended too; in steps of a clock tick (10 ms as a rule).
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone: its processor time cannot be read"))?;
    let ticks = ticks_of(&stat).with_context(|| format!("/proc/{pid}/stat is not as proc(5) says"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// Of several processes together.
///
/// # Errors
/// When one of them is gone.
pub fn cpu_time_of_all(pids: &[u32]) -> anyhow::Result<Duration> {
    ensure!(!pids.is_empty(), "no process whose processor time could be read");
    pids.iter().map(|pid| cpu_time(*pid)).sum()
}

fn ticks_of(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(UTIME);
    let (utime, stime): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(utime + stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_moves_nothing() {
        let stat = "7 (a ) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 9 9 20 0 4 0 100 1 1";
        assert_eq!(ticks_of(stat), Some(400));
        assert_eq!(ticks_of("7 (a) S 1 2"), None);
    }

    #[test]
    fn work_shows_and_a_process_that_is_gone_says_so() {
        let pid = std::process::id();
        let (before, deadline) =
            (cpu_time(pid).unwrap(), std::time::Instant::now() + Duration::from_secs(30));
        while cpu_time_of_all(&[pid]).unwrap() < before + Duration::from_millis(20) {
            assert!(std::time::Instant::now() < deadline, "processor time does not rise");
        }
        let error = cpu_time(u32::MAX).unwrap_err();
        assert!(error.to_string().contains("is gone"), "{error}");
    }
}
