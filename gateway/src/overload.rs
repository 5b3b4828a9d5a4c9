//! The overload ladder: what the node gives up, step by step, as its memory runs out, before the kernel ends it.
//!
//! One task looks at the memory twice a second; shards and the door read which rung is in force. A rung is left only when
//! there is clearly more room than where it began, so that the node does not flap.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::config::MemorySource;
use crate::shared::Shared;

/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(500);
/// Percent points below its beginning at which a rung ends.
const SLACK_PERCENT: u64 = 3;

/// What is given up, in this order; each rung includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rung {
    /// Slow clients may have a quarter of `limits.outbox_size`.
    ShortOutboxes,
    /// Who comes without a cursor is refused; who comes back is let in.
    NoNew,
    /// Everyone who comes is refused.
    NoConnections,
    /// Clients that have not read for a second are closed.
    ShedSlow,
}

impl Rung {
    pub(crate) const ALL: [Self; 4] = [Self::ShortOutboxes, Self::NoNew, Self::NoConnections, Self::ShedSlow];

    /// The name in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ShortOutboxes => "short_outboxes",
            Self::NoNew => "no_new",
            Self::NoConnections => "no_connections",
            Self::ShedSlow => "shed_slow",
        }
    }

    /// Percent of the memory limit at which it begins.
    fn begins_percent(self) -> u64 {
        match self {
            Self::ShortOutboxes => 75,
            Self::NoNew => 85,
            Self::NoConnections => 92,
            Self::ShedSlow => 95,
        }
    }
}

/// How many rungs are in force.
#[derive(Debug, Default)]
pub(crate) struct Ladder(AtomicU8);

impl Ladder {
    pub(crate) fn is_at(&self, rung: Rung) -> bool {
        self.0.load(Ordering::Relaxed) > rung as u8
    }

    /// Takes a reading; says whether anything changed.
    fn read(&self, used: u64, limit: u64) -> bool {
        let percent = used.saturating_mul(100).checked_div(limit).unwrap_or(0);
        let before = self.0.load(Ordering::Relaxed);
        let in_force = Rung::ALL.into_iter().filter(|rung| {
            let slack = if self.is_at(*rung) { SLACK_PERCENT } else { 0 };
            percent >= rung.begins_percent() - slack
        });
        let now = in_force.count() as u8;
        self.0.store(now, Ordering::Relaxed);
        now != before
    }
}

/// Where the figures come from.
enum Gauge {
    Process(u64),
    Group { used: PathBuf, statistics: PathBuf, limit: u64 },
    Told(Arc<dyn Fn() -> (u64, u64) + Send + Sync>),
}

impl Gauge {
    /// None where there is no limit.
    fn of(source: &MemorySource) -> Option<Self> {
        match source {
            MemorySource::Process(limit) => Some(Self::Process(*limit)),
            MemorySource::Told(told) => Some(Self::Told(Arc::clone(told))),
            MemorySource::ControlGroup => Self::of_group(Path::new("/sys/fs/cgroup")),
        }
    }

    /// The limit of this process's group (cgroup v2; a container sees its own at the root).
    fn of_group(root: &Path) -> Option<Self> {
        let limit = std::fs::read_to_string(root.join("memory.max")).ok()?.trim().parse().ok()?;
        Some(Self::Group { used: root.join("memory.current"), statistics: root.join("memory.stat"), limit })
    }

    /// Bytes used, and the limit. The group's count has the sockets' buffers in it, and the page cache, which the kernel
    /// gives up by itself.
    fn read(&self) -> Option<(u64, u64)> {
        match self {
            Self::Told(told) => Some(told()),
            Self::Process(limit) => {
                let status = std::fs::read_to_string("/proc/self/status").ok()?;
                Some((field(&status, "RssAnon:")? * 1024, *limit))
            }
            Self::Group { used, statistics, limit } => {
                let used: u64 = std::fs::read_to_string(used).ok()?.trim().parse().ok()?;
                let statistics = std::fs::read_to_string(statistics).ok()?;
                Some((used.saturating_sub(field(&statistics, "inactive_file ")?), *limit))
            }
        }
    }
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// The memory limit in force, in bytes, if there is one.
pub(crate) fn memory_limit(source: &MemorySource) -> Option<u64> {
    Gauge::of(source)?.read().map(|(_, limit)| limit)
}

/// Looks at the memory until aborted. Without a limit there is nothing to look at.
pub(crate) async fn watch(shared: Arc<Shared>) {
    for rung in Rung::ALL {
        shared.metrics.overload_rung.with_label_values(&[rung.as_str()]).set(0);
    }
    let Some(gauge) = Gauge::of(&shared.config.admission.memory) else { return std::future::pending().await };
    let mut interval = tokio::time::interval(LOOK);
    loop {
        interval.tick().await;
        let Some((used, limit)) = gauge.read() else { continue };
        shared.metrics.memory_bytes.set(used as i64);
        shared.metrics.memory_limit_bytes.set(limit as i64);
        if shared.ladder.read(used, limit) {
            let names: Vec<_> =
                Rung::ALL.into_iter().filter(|rung| shared.ladder.is_at(*rung)).map(Rung::as_str).collect();
            tracing::warn!(used, limit, in_force = names.join(", "), "the overload ladder has moved");
        }
        for rung in Rung::ALL {
            let is_at = shared.ladder.is_at(rung);
            shared.metrics.overload_rung.with_label_values(&[rung.as_str()]).set(i64::from(is_at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_begin_in_order_and_end_with_slack() {
        let ladder = Ladder::default();
        let at = |used: u64| {
            ladder.read(used, 100);
            Rung::ALL.into_iter().filter(|rung| ladder.is_at(*rung)).count()
        };
        let seen: Vec<_> = [74, 75, 84, 85, 92, 95, 92, 91, 89, 88, 82, 81, 72, 71, 200].map(at).to_vec();
        assert_eq!(seen, [0, 1, 1, 2, 3, 4, 4, 3, 3, 2, 2, 1, 1, 0, 4]);
        ladder.read(1, 0);
        assert!(!ladder.is_at(Rung::ShortOutboxes), "no limit, no rung");
    }

    #[test]
    fn a_group_counts_without_the_cache_that_the_kernel_gives_up() {
        let root = tempfile::tempdir().expect("directory");
        let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).expect("written");
        write("memory.max", "max\n");
        assert!(Gauge::of_group(root.path()).is_none(), "no limit");
        write("memory.max", "1000\n");
        write("memory.current", "900\n");
        write("memory.stat", "anon 500\ninactive_file 300\nactive_file 1\n");
        let gauge = Gauge::of_group(root.path()).expect("a limit");
        assert_eq!(gauge.read(), Some((600, 1000)));
        let process = Gauge::of(&MemorySource::Process(1 << 40)).and_then(|gauge| gauge.read());
        assert!(process.is_some_and(|(used, limit)| used > 100_000 && limit == 1 << 40));
    }
}
