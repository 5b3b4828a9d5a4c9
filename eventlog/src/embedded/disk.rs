//! How much room the data directory's file system has, asked at most every 250 ms.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two questions to the file system.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// What the file system last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// At least the reserve is free.
    Enough,
    /// Less than the reserve is free, so many bytes.
    Low(u64),
    /// Less than a quarter of the reserve is free, so many bytes: even upkeep goes in small steps, or stops.
    Exhausted(u64),
}

/// The gauge. A file system that cannot be asked counts as having room: the write itself will tell.
#[derive(Debug)]
pub(super) struct DiskGauge {
    path: PathBuf,
    reserve_bytes: u64,
    last: Mutex<Option<Reading>>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    room: Room,
    written_since: u64,
}

impl DiskGauge {
    pub(super) fn new(path: PathBuf, reserve_bytes: u64) -> Self {
        Self { path, reserve_bytes, last: Mutex::new(None) }
    }

    pub(super) fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// The room there is, for someone about to write `bytes` (0: who only asks). Much written since the last
    /// question ends an answer's validity before its time.
    pub(super) fn room(&self, bytes: u64) -> Room {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let written = last.map_or(0, |reading| reading.written_since) + bytes;
        if let Some(reading) = last.as_mut()
            && reading.at.elapsed() < CHECK_INTERVAL
            && written <= self.reserve_bytes / 4
        {
            reading.written_since = written;
            return reading.room;
        }
        let room = self.ask();
        *last = Some(Reading { at: Instant::now(), room, written_since: bytes });
        room
    }

    fn ask(&self) -> Room {
        match rustix::fs::statvfs(&self.path) {
            Ok(stat) => self.grade(stat.f_bavail.saturating_mul(stat.f_frsize)),
            Err(error) => {
                tracing::warn!(%error, "cannot ask the file system for its free space");
                Room::Enough
            }
        }
    }

    fn grade(&self, free_bytes: u64) -> Room {
        if free_bytes >= self.reserve_bytes {
            Room::Enough
        } else if free_bytes >= self.reserve_bytes / 4 {
            Room::Low(free_bytes)
        } else {
            Room::Exhausted(free_bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades() {
        let gauge = DiskGauge::new("/".into(), 100);
        assert_eq!(gauge.grade(100), Room::Enough);
        assert_eq!(gauge.grade(99), Room::Low(99));
        assert_eq!(gauge.grade(25), Room::Low(25));
        assert_eq!(gauge.grade(24), Room::Exhausted(24));
        assert_eq!(DiskGauge::new("/".into(), 0).grade(0), Room::Enough);
    }

    #[test]
    fn an_impossible_reserve_is_never_met_and_an_unknown_path_has_room() {
        assert!(matches!(DiskGauge::new("/".into(), u64::MAX).room(0), Room::Exhausted(_)));
        assert_eq!(DiskGauge::new("/no/such/place".into(), u64::MAX).room(0), Room::Enough);
    }
}
